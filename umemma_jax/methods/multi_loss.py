"""The loss of the fused logits and of every modality's own.

loss_i = CE(o) + weight sum over the present m of CE(l_m).

Left open, chosen here: l_m comes from the heads that the uni-modal stage has trained, which stay as they are.
"""

import jax

from umemma_jax.training.rows import FusionRows

LABEL = "multi-loss"
SOURCE = "the multi-loss baseline of arXiv 2507.10213"
SWITCHES = {"unimodal": True, "fusion": True, "augment": False}
DEFAULTS = {"weight": 1.0}
SEARCHED = {"weight": (0.1, 2.0)}


def row_losses(rows: FusionRows, weight: float) -> jax.Array:
    """Loss of each row, float32 [B]."""
    return rows.loss(rows.logits, rows.label) + weight * rows.unimodal_loss()
