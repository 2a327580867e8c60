"""More modalities must not do worse than fewer: SimMLM's ranking loss on the recipe's own head, without SimMLM's gate.

loss_i = CE(o_S+) + CE(o_S-) + weight max(0, CE(o_S+) - CE(o_S-)), S- inside S+.

Left open, chosen here: S+ is all that a row has; S- is drawn among the proper subsets, all alike.
"""

import itertools

import jax

from umemma_jax.missing import Policy, draw
from umemma_jax.training.rows import FusionRows

LABEL = "SimMLM's ranking loss"
SOURCE = "arXiv 2507.19264, the ranking loss; its gated head is not part of this"
SWITCHES = {"unimodal": True, "fusion": True, "augment": False}
DEFAULTS = {"weight": 0.1}
SEARCHED = {"weight": (0.01, 1.0)}


def row_losses(rows: FusionRows, weight: float) -> jax.Array:
    """Loss of each row, float32 [B]."""
    masks = itertools.product((False, True), repeat=rows.present.shape[1])
    proper = [mask for mask in masks if any(mask) and not all(mask)]
    fewer = draw(Policy(tuple(proper), (1 / len(proper),) * len(proper)), rows.keys, rows.present)
    of_all = rows.loss(rows.logits, rows.label)
    of_fewer = rows.loss(rows.fuse(fewer), rows.label)
    return of_all + of_fewer + weight * jax.nn.relu(of_all - of_fewer)
