"""The uni-modal losses train the encoders, the loss of the fused logits trains the head alone.

loss_i = CE(o of features that pass no gradient) + weight sum over the present m of CE(l_m).

Left open, chosen here: l_m comes from the heads that the uni-modal stage has trained, which stay as they are.
"""

import jax

from umemma_jax.training.rows import FusionRows

LABEL = "DGL"
SOURCE = "arXiv 2507.10213, disentangled gradients"
SWITCHES = {"unimodal": True, "fusion": True, "augment": False}
DEFAULTS = {"weight": 1.0}
SEARCHED = {"weight": (0.1, 2.0)}
NEEDS = {"missing.stand_in": ("token", "zero")}  # an encoder makes the mean stand-in, and would learn by the fused loss


def row_losses(rows: FusionRows, weight: float) -> jax.Array:
    """Loss of each row, float32 [B]."""
    fused = rows.fuse(rows.present, jax.lax.stop_gradient(rows.features))
    return rows.loss(fused, rows.label) + weight * rows.unimodal_loss()
