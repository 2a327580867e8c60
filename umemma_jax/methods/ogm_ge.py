"""OGM with its extension GE: the leading encoder learns more slowly, and noise keeps what encoders find general.

rho_m is the mean probability of the true class by modality m alone over that by the others; where it is above 1, the
gradient of encoder m is multiplied by 1 - tanh(alpha rho_m). To every array of an encoder's gradient, Gaussian noise is
added that has the standard deviation of the array's entries before they were multiplied.

Left open, chosen here: of more than two modalities, the others are their mean; means are over the rows that have a
modality; m alone is the fused logits of m alone; the noise is each array's own, of all arrays of all encoders. AdamW,
which divides a gradient by its size, would cancel the factor.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from umemma_jax.training.gradients import Gradients, PyTree
from umemma_jax.training.rows import FusionRows

LABEL = "OGM-GE"
SOURCE = "OGM-GE (CVPR 2022), on-the-fly gradient modulation with generalisation enhancement"
SWITCHES = {"unimodal": False, "fusion": True, "augment": False}
DEFAULTS = {"alpha": 0.3}
SEARCHED = {"alpha": (0.1, 1.0)}
NEEDS = {"fusion.optimizer": ("sgd",)}
SINGLE_LABEL = True  # the ratio is of the probabilities of one true class


def row_losses(rows: FusionRows, alpha: float) -> jax.Array:
    """The plain loss of each row, float32 [B]."""
    return rows.loss(rows.logits, rows.label)


def sums(rows: FusionRows, alpha: float) -> dict[str, jax.Array]:
    """Of each modality the sum of the true class's probabilities by it alone, and the number of rows, float32 [M]."""
    return over_rows(rows, jnp.exp)


def gradients(found: Gradients, alpha: float) -> tuple[PyTree, PyTree]:
    """The gradient, and no state."""
    slower = factors(found.sums, alpha)
    changed = {}
    for index, (gradient,) in found.of_encoders().items():
        key = jax.random.fold_in(found.key, index)
        changed[index] = optax.tree.add(optax.tree.scale(slower[index], gradient), noise(key, gradient))
    return found.with_encoders(changed), found.state


def factors(sums: dict[str, jax.Array], alpha: float) -> jax.Array:
    """What each encoder's gradient is multiplied by, float32 [M]."""
    known = sums["rows"] > 0
    scores = sums["score"] / jnp.maximum(sums["rows"], 1)
    ratio = scores / jnp.maximum(of_others(scores, known), jnp.finfo(jnp.float32).tiny)
    return jnp.where(ratio > 1, 1 - jnp.tanh(alpha * ratio), 1.0)


def noise(key: jax.Array, gradient: PyTree) -> PyTree:
    """Gaussian noise like a gradient, of the standard deviation of each of its arrays."""
    arrays, structure = jax.tree.flatten(gradient)
    keys = jax.random.split(key, len(arrays))
    drawn = [x.std() * jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, arrays, strict=True)]
    return jax.tree.unflatten(structure, drawn)


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
