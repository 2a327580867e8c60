"""The encoder of a modality that leads learns more slowly: OGM, without the noise of its extension GE.

rho_m is the mean probability of the true class by modality m alone over that by the others; where it is above 1, the
gradient of encoder m is multiplied by 1 - tanh(alpha rho_m). What an encoder learns comes through its features, so that
their gradient is what is multiplied; the head's stays.

Left open, chosen here: of more than two modalities, the others are their mean; means are over the rows that have a
modality; m alone is the fused logits of m alone. AdamW, which divides a gradient by its size, would cancel the factor.
"""

from collections.abc import Callable

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
    return jax.lax.stop_gradient(of_sums(over_rows(rows, jnp.exp), alpha))


def of_sums(sums: dict[str, jax.Array], alpha: float) -> jax.Array:
    """The same, of what `over_rows` gives of probabilities."""
    known = sums["rows"] > 0
    scores = sums["score"] / jnp.maximum(sums["rows"], 1)
    ratio = scores / jnp.maximum(of_others(scores, known), jnp.finfo(jnp.float32).tiny)
    return jnp.where(ratio > 1, 1 - jnp.tanh(alpha * ratio), 1.0)


def over_rows(rows: FusionRows, of_log_probability: Callable[[jax.Array], jax.Array]) -> dict[str, jax.Array]:
    """Of each modality the sum over its rows of a function of the true class's log-probability, and their number."""
    has = (rows.present & rows.counted[:, None]).astype(jnp.float32)
    alone = jnp.stack([rows.alone(index) for index in range(has.shape[1])], axis=1)  # [B, M, K]
    true = jnp.take_along_axis(jax.nn.log_softmax(alone), rows.label[:, None, None], axis=2)[..., 0]
    return {"score": (has * of_log_probability(true)).sum(axis=0), "rows": has.sum(axis=0)}


def of_others(scores: jax.Array, known: jax.Array) -> jax.Array:
    """Of each modality the mean score of the other known ones, [M]; where there is none, its own."""
    count = known.sum() - known
    total = jnp.where(known, scores, 0.0).sum() - jnp.where(known, scores, 0.0)
    return jnp.where(count > 0, total / jnp.maximum(count, 1), scores)
