"""Every encoder's gradient by how its modality's lead stands to the lead that it has had so far.

s_m is the mean log-probability of the true class by modality m alone, r_m = exp(s_m - mean of the others' s), and r0_m
the same of the means of s over all steps so far. The gradient of encoder m is multiplied by exp(alpha min(r0_m - r_m,
7)): less where m leads by more than it has, more where by less.

Left open, chosen here: the sign, so that a lead slows; the running mean weighs all steps alike, with this one, so that
the first changes nothing; of more than two modalities, the others are their mean; means are over the rows that have a
modality, and a batch without any leaves its mean as it is; m alone is the fused logits of m alone, not its Shapley
value. AdamW, which divides a gradient by its size, would cancel much of the factor.
"""

import jax
import jax.numpy as jnp
import optax

from umemma_jax.methods.ogm import of_others, over_rows
from umemma_jax.training.gradients import Gradients, PyTree
from umemma_jax.training.rows import FusionRows

LABEL = "AGM"
SOURCE = "AGM (ICCV 2023), adaptive gradient modulation"
SWITCHES = {"unimodal": False, "fusion": True, "augment": False}
DEFAULTS = {"alpha": 1.0}
SEARCHED = {"alpha": (0.1, 2.0)}
NEEDS = {"fusion.optimizer": ("sgd",)}
SINGLE_LABEL = True  # the score is the log-probability of one true class
MOST = 7.0  # of the exponent over alpha


def row_losses(rows: FusionRows, alpha: float) -> jax.Array:
    """The plain loss of each row, float32 [B]."""
    return rows.loss(rows.logits, rows.label)


def sums(rows: FusionRows, alpha: float) -> dict[str, jax.Array]:
    """Of each modality the sum of the true class's log-probabilities by it alone, and the number of rows, [M]."""
    return over_rows(rows, lambda log_probability: log_probability)


def state(modalities: int) -> dict[str, jax.Array]:
    """The mean score of each modality, float32 [M], and the number of steps that it is over, float32 [M]."""
    return {"mean": jnp.zeros(modalities), "steps": jnp.zeros(modalities)}


def gradients(found: Gradients, alpha: float) -> tuple[PyTree, PyTree]:
    """The gradient, and the next state."""
    multiplied_by, following = factors(found.sums, found.state, alpha)
    changed = {index: optax.tree.scale(multiplied_by[index], x) for index, (x,) in found.of_encoders().items()}
    return found.with_encoders(changed), following


def factors(sums: PyTree, state: PyTree, alpha: float) -> tuple[jax.Array, PyTree]:
    """What each encoder's gradient is multiplied by, float32 [M], and the next state."""
    has = sums["rows"] > 0
    steps = state["steps"] + has
    score = sums["score"] / jnp.maximum(sums["rows"], 1)
    mean = state["mean"] + jnp.where(has, (score - state["mean"]) / jnp.maximum(steps, 1), 0.0)
    score, known = jnp.where(has, score, mean), steps > 0
    lead, usual = (jnp.exp(x - of_others(x, known)) for x in (score, mean))
    return jnp.exp(alpha * jnp.minimum(usual - lead, MOST)), {"mean": mean, "steps": steps}
