"""Every encoder follows what its own loss and the fused one agree on.

Of the gradients of both, f and u, where they do not conflict (f u >= 0), their mean; else the shortest of their convex
mixes, a f + (1 - a) u with a = (u - f) u / |f - u|^2, which descends both. Either is rescaled to scale |f + u|. The
head, the tokens and all else follow the sum.

Left open, chosen here: the gradient is of all parameters of an encoder as one; the mean is rescaled too; what is
searched; the heads of the modalities' own losses are those of the uni-modal stage, which stay as they are.
"""

import jax
import jax.numpy as jnp
import optax

from umemma_jax.training.gradients import Gradients, PyTree
from umemma_jax.training.rows import FusionRows

LABEL = "MMPareto"
SOURCE = "MMPareto (ICML 2024), the Pareto step of multi-modal and uni-modal gradients"
SWITCHES = {"unimodal": True, "fusion": True, "augment": False}
DEFAULTS = {"scale": 1.5}
SEARCHED = {"scale": (1.0, 2.0)}
LOSSES = 2


def row_losses(rows: FusionRows, scale: float) -> jax.Array:
    """Of each row the loss of the fused logits, and the sum of its modalities' own, float32 [B, 2].

    An own loss reaches one encoder only, so that the sum's gradient is each encoder's own.
    """
    return jnp.stack([rows.loss(rows.logits, rows.label), rows.unimodal_loss()], axis=1)


def gradients(found: Gradients, scale: float) -> tuple[PyTree, PyTree]:
    """The gradient, and no state."""
    mixed = {index: mix(*of_losses, scale) for index, of_losses in found.of_encoders().items()}
    return found.with_encoders(mixed), found.state


def mix(fused: PyTree, own: PyTree, scale: float) -> PyTree:
    """One gradient of two; zero where they are opposite to each other."""
    apart = optax.tree.sub(fused, own)
    share = -optax.tree.vdot(apart, own) / jnp.maximum(optax.tree.vdot(apart, apart), jnp.finfo(jnp.float32).tiny)
    share = jnp.where(optax.tree.vdot(fused, own) < 0, share, 0.5)
    mixed = jax.tree.map(lambda f, u: share * f + (1 - share) * u, fused, own)
    wanted, length = scale * optax.tree.norm(optax.tree.add(fused, own)), optax.tree.norm(mixed)
    return optax.tree.scale(jnp.where(length > 0, wanted / length, 0.0), mixed)
