"""Mean 0 and deviation 1."""

import jax
import jax.numpy as jnp


def standardise(x: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """Per channel, the last axis; a channel that never varies stays finite."""
    others = tuple(range(x.ndim - 1))
    mean, std = (jnp.expand_dims(jnp.array(v, jnp.float32), others) for v in (mean, std))
    return (x.astype(jnp.float32) - mean) / jnp.maximum(std, 1e-6)
