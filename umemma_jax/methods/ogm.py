"""The encoder of a modality that leads learns more slowly: OGM, without the noise of its extension GE.

rho_m is the mean probability of the true class by modality m alone over that by the others; where it is above 1, the
gradient of encoder m is multiplied by 1 - tanh(alpha rho_m). What an encoder learns comes through its features, so that
their gradient is what is multiplied; the head's stays.

Left open, chosen here: of more than two modalities, the others are their mean; means are over the rows that have a
modality; m alone is the fused logits of m alone. AdamW, which divides a gradient by its size, would cancel the factor.
"""

import jax
import jax.numpy as jnp

from umemma_jax.methods import WHOLE_BATCH
from umemma_jax.training.rows import FusionRows

LABEL = "OGM"
SOURCE = "OGM-GE (CVPR 2022), on-the-fly gradient modulation"
SWITCHES = {"unimodal": False, "fusion": True, "augment": False}
DEFAULTS = {"alpha": 0.3}
SEARCHED = {"alpha": (0.1, 1.0)}
NEEDS = {"fusion.optimizer": ("sgd",), "missing.stand_in": ("token", "zero"), **WHOLE_BATCH}
SINGLE_LABEL = True  # the ratio is of the probabilities of one true class


def row_losses(rows: FusionRows, alpha: float) -> jax.Array:
    """Loss of each row, float32 [B]."""
    slower = factors(rows, alpha)
    held = jax.lax.stop_gradient
    features = {m: held(x) + slower[index] * (x - held(x)) for index, (m, x) in enumerate(rows.features.items())}
    return rows.loss(rows.fuse(rows.present, features), rows.label)


def factors(rows: FusionRows, alpha: float) -> jax.Array:
    """What each encoder's gradient is multiplied by, float32 [M]."""
    scores = jnp.stack([_true_class_probability(rows, index) for index in range(rows.present.shape[1])])
    others = (scores.sum() - scores) / (len(scores) - 1)
    ratio = scores / others
    return jax.lax.stop_gradient(jnp.where(ratio > 1, 1 - jnp.tanh(alpha * ratio), 1.0))


def _true_class_probability(rows: FusionRows, index: int) -> jax.Array:
    """Mean over the rows that have the modality."""
    has = rows.present[:, index] & rows.counted
    probability = jnp.take_along_axis(jax.nn.softmax(rows.alone(index)), rows.label[:, None], axis=1)[:, 0]
    return (has * probability).sum() / jnp.maximum(has.sum(), 1)
