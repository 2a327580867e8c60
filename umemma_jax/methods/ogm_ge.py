"""OGM with its extension GE: the leading encoder learns more slowly, and noise keeps what encoders find general.

rho_m is the mean probability of the true class by modality m alone over that by the others; where it is above 1, the
gradient of encoder m is multiplied by 1 - tanh(alpha rho_m). To every array of an encoder's gradient, Gaussian noise is
added that has the standard deviation of the array's entries before they were multiplied.

Left open, chosen here: of more than two modalities, the others are their mean; means are over the rows that have a
modality; m alone is the fused logits of m alone; the noise is each array's own, of all arrays of all encoders. AdamW,
which divides a gradient by its size, would cancel the factor.
"""

import jax
import jax.numpy as jnp
import optax

from umemma_jax.methods import ogm
from umemma_jax.training.gradients import Gradients, PyTree
from umemma_jax.training.rows import FusionRows

LABEL = "OGM-GE"
SOURCE = "OGM-GE (CVPR 2022), on-the-fly gradient modulation with generalisation enhancement"
SWITCHES = {"unimodal": False, "fusion": True, "augment": False}
DEFAULTS, SEARCHED = ogm.DEFAULTS, ogm.SEARCHED
NEEDS = {"fusion.optimizer": ("sgd",)}
SINGLE_LABEL = True  # the ratio is of the probabilities of one true class


def row_losses(rows: FusionRows, alpha: float) -> jax.Array:
    """The plain loss of each row, float32 [B]."""
    return rows.loss(rows.logits, rows.label)


def sums(rows: FusionRows, alpha: float) -> dict[str, jax.Array]:
    """Of each modality the sum of the true class's probabilities by it alone, and the number of rows, float32 [M]."""
    return ogm.over_rows(rows, jnp.exp)


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
    return ogm.of_sums(sums, alpha)


def noise(key: jax.Array, gradient: PyTree) -> PyTree:
    """Gaussian noise like a gradient, of the standard deviation of each of its arrays."""
    arrays, structure = jax.tree.flatten(gradient)
    keys = jax.random.split(key, len(arrays))
    drawn = [x.std() * jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, arrays, strict=True)]
    return jax.tree.unflatten(structure, drawn)
