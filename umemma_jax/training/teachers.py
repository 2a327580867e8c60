"""The encoders as a stage began, which stay as they are: what they say of a row is what its encoders may learn."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from umemma_jax.missing import Compacted, Layout
from umemma_jax.model import LateFusion, Outputs

PyTree = Any


def of(model: LateFusion, variables: PyTree) -> PyTree:
    """Copies of the encoders' variables, and of the heads that `LateFusion.encode` asks for."""
    groups = [f"{part}_{tower.name}" for tower in model.towers for part in ("encoders", "heads")]
    # Copies: the state is donated, and one buffer cannot be donated twice.
    return {
        collection: {group: jax.tree.map(jnp.copy, tree[group]) for group in groups if group in tree}
        for collection, tree in variables.items()
    }


def features(model: LateFusion, variables: PyTree, batch: PyTree, layout: Layout | Compacted | None) -> Outputs:
    """Of the rows as they are augmented for the encoders that learn, in evaluation mode: {m: [B, D_m]}.

    Args:
      model: the module.
      variables: of `of`.
      batch: of the pipeline, with `keys` [B].
      layout: as in `LateFusion.encode`.
    """
    towers = tuple(dataclasses.replace(tower, frozen=True) for tower in model.towers)
    frozen = model.clone(towers=towers, dropout=0.0)
    found, _ = frozen.apply(
        variables, batch["inputs"], batch["present"], train=True, keys=batch["keys"], layout=layout, method="encode"
    )
    return found
