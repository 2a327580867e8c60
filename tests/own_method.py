"""A method of one's own: less confidence in everything. Named by its module: --methods=tests.own_method."""

import jax

LABEL = "entropy bonus"
SOURCE = "Pereyra et al. 2017, equation 1"
SWITCHES = {"unimodal": True, "fusion": True, "augment": True}
DEFAULTS = {"weight": 0.1}
SEARCHED = {"weight": (0.01, 1.0)}


def row_losses(rows, weight):
    """Loss of each row, float32 [B]."""
    log_p = jax.nn.log_softmax(rows.logits)
    entropy = -(jax.numpy.exp(log_p) * log_p).sum(axis=-1)
    return rows.loss(rows.logits, rows.label) - weight * entropy
