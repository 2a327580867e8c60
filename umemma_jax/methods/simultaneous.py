"""Dropout of modalities, all at once: the mean loss over every missing pattern of the same features.

loss_i = mean of CE(o_S) over the non-empty subsets S of what the row has.

Left open, chosen here: all 2^M - 1 subsets, all alike.
"""

import itertools

import jax
import jax.numpy as jnp

from umemma_jax.training.rows import FusionRows

LABEL = "simultaneous dropout"
SOURCE = "arXiv 2605.15235, simultaneous modality dropout"
SWITCHES = {"unimodal": True, "fusion": True, "augment": False}


def row_losses(rows: FusionRows) -> jax.Array:
    """Loss of each row, float32 [B]."""
    patterns = jnp.array(list(itertools.product((False, True), repeat=rows.present.shape[1])))  # [P, M]

    def of_pattern(pattern: jax.Array) -> tuple[jax.Array, jax.Array]:
        left = (rows.present & pattern[None, :]).any(axis=1)
        return left, jnp.where(left, rows.loss(rows.fuse(pattern), rows.label), 0.0)

    left, losses = jax.vmap(of_pattern)(patterns)  # [P, B]
    return losses.sum(axis=0) / jnp.maximum(left.sum(axis=0), 1)
