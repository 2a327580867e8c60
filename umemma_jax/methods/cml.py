"""Confidence must not rise when a modality is taken away.

loss_i = CE(o_S+) + weight max(0, confidence(o_S-) - confidence(o_S+)).

Left open, chosen here: confidence is the largest probability; S- is S+ without one of its modalities, drawn at random;
a row with one modality has no S-.
"""

import jax
import jax.numpy as jnp

from umemma_jax.training.rows import FusionRows

LABEL = "CML"
SOURCE = "CML as in BalanceBenchmark, the confidence penalty"
SWITCHES = {"unimodal": True, "fusion": True, "augment": False}
DEFAULTS = {"weight": 0.1}
SEARCHED = {"weight": (0.01, 1.0)}
SINGLE_LABEL = True  # of several labels no one probability is the confidence


def row_losses(rows: FusionRows, weight: float) -> jax.Array:
    """Loss of each row, float32 [B]."""
    among = jnp.where(rows.present, 0.0, -jnp.inf)
    dropped = jax.vmap(jax.random.categorical)(rows.keys, jnp.where(rows.present.any(axis=1)[:, None], among, 0.0))
    fewer = jnp.arange(rows.present.shape[1])[None, :] != dropped[:, None]
    rise = confidence(rows.fuse(fewer)) - confidence(rows.logits)
    penalty = jnp.where(rows.present.sum(axis=1) > 1, jax.nn.relu(rise), 0.0)
    return rows.loss(rows.logits, rows.label) + weight * penalty


def confidence(logits: jax.Array) -> jax.Array:
    """The largest probability, [B], of logits [B, K]."""
    return jax.nn.softmax(logits).max(axis=-1)
