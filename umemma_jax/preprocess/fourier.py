"""The Fourier transform of frames, on the device where their rows are.

XLA does not divide a transform among devices: left to itself it gathers the frames of the whole batch on each of them.
So it is told how to; on TPUs, where JAX cannot tell it (github.com/jax-ml/jax/issues/38196), the transform is two
matrix products.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.custom_partitioning import custom_partitioning


def power_spectrum(frames: jax.Array, n_fft: int) -> jax.Array:
    """`|rfft|^2` of float32 [B, T, N], zero-padded to n_fft >= N points: [B, T, n_fft // 2 + 1]."""
    if jax.default_backend() == "tpu":
        return _power_by_products(frames, n_fft)
    spectrum = _rfft(jnp.pad(frames, ((0, 0), (0, 0), (0, n_fft - frames.shape[2]))))
    return jnp.square(spectrum.real) + jnp.square(spectrum.imag)


def _power_by_products(frames: jax.Array, n_fft: int) -> jax.Array:
    angles = 2 * np.pi / n_fft * np.outer(np.arange(frames.shape[2]), np.arange(n_fft // 2 + 1))
    real, imag = (jnp.matmul(frames, jnp.float32(wave(angles)), precision="highest") for wave in (np.cos, np.sin))
    return jnp.square(real) + jnp.square(imag)


@custom_partitioning
def _rfft(frames: jax.Array) -> jax.Array:
    return jnp.fft.rfft(frames)


def _partition(mesh: Any, arguments: Any, result: Any) -> tuple[Any, ...]:
    sharding = arguments[0].sharding
    return mesh, jnp.fft.rfft, sharding, (sharding,)


_rfft.def_partition(_partition, sharding_rule="b t n -> b t f", need_replication_factors=("n", "f"))
