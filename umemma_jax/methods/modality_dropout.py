"""Each modality is dropped independently of the others.

loss_i = CE(o_S), S drawn anew for every row of every batch.

Left open, chosen here: the same rate for all modalities; a draw that leaves nothing keeps all that the row has.
"""

import jax
import jax.numpy as jnp

from umemma_jax.training.rows import FusionRows

LABEL = "independent dropout"
SOURCE = "ModDrop (Neverova et al. 2016), the fusion stage's independent dropping"
SWITCHES = {"unimodal": True, "fusion": True, "augment": False}
DEFAULTS = {"rate": 0.3}
SEARCHED = {"rate": (0.1, 0.7)}


def row_losses(rows: FusionRows, rate: float) -> jax.Array:
    """Loss of each row, float32 [B]."""
    modalities = rows.present.shape[1]
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, (modalities,)))(rows.keys)
    nothing = ~(kept & rows.present).any(axis=1, keepdims=True)
    return rows.loss(rows.fuse(jnp.where(nothing, True, kept)), rows.label)
