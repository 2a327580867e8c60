"""Every encoder stays close to what its modality's uni-modal model makes of the same input.

loss_i = CE(o) + weight sum over the present m of |z_m - t_m|^2 / D_m, t_m the feature of the frozen uni-modal teacher.

Left open, chosen here: the teachers are the encoders of the uni-modal stage, in evaluation mode on the inputs as they
are augmented, and the encoders start from them, as those of all methods with that stage do; distances of modalities
add up; the default.
"""

import jax
import jax.numpy as jnp

from umemma_jax.training.rows import FusionRows

LABEL = "UMT"
SOURCE = "UMT of arXiv 2305.01233, distillation of uni-modal features"
SWITCHES = {"unimodal": True, "fusion": True, "augment": False}
DEFAULTS = {"weight": 20.0}
SEARCHED = {"weight": (10.0, 50.0)}
NEEDS = {"fusion.only": (False,)}  # frozen encoders are their own teachers
TEACHERS = True


def row_losses(rows: FusionRows, weight: float) -> jax.Array:
    """Loss of each row, float32 [B]."""
    apart = jnp.stack([jnp.square(x - rows.taught[m]).mean(axis=1) for m, x in rows.features.items()], axis=1)
    return rows.loss(rows.logits, rows.label) + weight * jnp.where(rows.present, apart, 0.0).sum(axis=1)
