"""Every modality of a row against those of all other rows: the loss normalises over all tuples of modalities.

loss_i = -o(i)_y + log((1/K) sum_k exp(o_k) averaged over all B^M tuples). For a head that is a sum over modalities the
average is prod_m mean_i exp(l_m(i)_k), O(B K M), here in logarithms. An absent modality counts among the rows as what
it adds to the logits: nothing.

Left open, chosen here: training rows are complete; weights of classes and label smoothing have no part in the loss.
"""

import jax
import jax.numpy as jnp

from umemma_jax.methods import WHOLE_BATCH
from umemma_jax.training.rows import FusionRows

LABEL = "TCMax"
SOURCE = "arXiv 2602.13015, the loss over shuffled tuples"
SWITCHES = {"unimodal": True, "fusion": True, "augment": False}
NEEDS = {"fusion.head": ("linear",), "loss": ("auto",), **WHOLE_BATCH}  # other heads are no sum over modalities
SINGLE_LABEL = True  # several labels are no classes that exclude each other, which tuples are normalised over


def row_losses(rows: FusionRows) -> jax.Array:
    """Loss of each row, float32 [B]."""
    nothing = rows.fuse(jnp.zeros(rows.present.shape[1], bool))  # [B, K], the same in every row
    counted = rows.counted[:, None]
    of_tuples = nothing[0]
    for index in range(rows.present.shape[1]):
        added = rows.alone(index) - nothing
        of_tuples += jax.nn.logsumexp(added, axis=0, where=counted) - jnp.log(counted.sum())
    normaliser = jax.nn.logsumexp(of_tuples) - jnp.log(len(of_tuples))
    true = jnp.take_along_axis(rows.logits, rows.label[:, None], axis=1)[:, 0]
    return normaliser - true
