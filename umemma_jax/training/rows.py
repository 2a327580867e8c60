"""What a method's own loss sees of the rows that are computed at once."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from umemma_jax.model import LateFusion

PyTree = Any
Features = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class FusionRows:
    """B rows in the fusion stage: a whole batch under jit without accumulation, else a part of one.

    Attributes:
      features: of each modality in the order of presence masks, float [B, D_m]; where it is absent, its stand-in's.
      present: bool [B, M], what the policy keeps of what the data have; something in every row that counts.
      logits: fused, float32 [B, K].
      unimodal: logits of each modality's own head, float32 [B, K], 0 where it is absent. The fusion stage trains
        no head of these: they are what the uni-modal stage has left, and pass gradients on to the encoders.
      label: int [B]; multi-label: zeros and ones [B, K]; of regression the targets, [B, T].
      counted: bool [B], rows that are no padding.
      keys: typed PRNG keys [B], of the method's own; a row's depends on its place in the whole batch only.
      loss: (logits [B, K], label) -> float32 [B], the task's.
      join: (features, present) -> logits; see `fuse`.
      taught: features {m: [B, D_m]} of the encoders as the stage began, 0 where m is absent; {} unless asked for.
    """

    features: Features
    present: jax.Array
    logits: jax.Array
    unimodal: Mapping[str, jax.Array]
    label: jax.Array
    counted: jax.Array
    keys: jax.Array
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    join: Callable[[Features, jax.Array], jax.Array]
    taught: Features = dataclasses.field(default_factory=dict)

    def fuse(self, subset: jax.Array, features: Features | None = None) -> jax.Array:
        """Fused logits [B, K] with no more than a subset of what is present.

        Args:
          subset: bool [B, M] or [M]; what is absent stays so.
          features: in place of the rows' own.
        """
        subset = jnp.broadcast_to(subset, self.present.shape)
        return self.join(self.features if features is None else features, self.present & subset)

    def alone(self, index: int) -> jax.Array:
        """Logits [B, K] of one modality, the fused ones with it alone; meaningful where it is present."""
        return self.fuse(jnp.arange(self.present.shape[1]) == index)

    def unimodal_loss(self) -> jax.Array:
        """Sum over what is present of the loss of each modality's own logits, float32 [B]."""
        losses = jnp.stack([self.loss(logits, self.label) for logits in self.unimodal.values()], axis=1)
        return jnp.where(self.present, losses, 0.0).sum(axis=1)


def fusion_rows(
    model: LateFusion,
    loss: Callable[[jax.Array, jax.Array], jax.Array],
    means: PyTree,
    variables: PyTree,
    batch: PyTree,
    outputs: Mapping[str, jax.Array],
) -> FusionRows:
    """The rows of a batch or microbatch, as a method's own loss sees them.

    Args:
      model: the module.
      loss: the task's.
      means: as in `LateFusion.__call__`.
      variables: of the model.
      batch: of the pipeline, with `keys` [B], `share` [B, 1] and `taught` (see `steps`).
      outputs: what the model says of it.
    """
    names = [tower.name for tower in model.towers]
    features = {m: outputs[f"features/{m}"] for m in names}
    stand_ins = model.apply(variables, features, means, method="stand_ins")

    def join(features: Features, present: jax.Array) -> jax.Array:
        return model.apply(variables, features, stand_ins, present, method="fuse")[1]

    # Encoders take the numbers up to M, the policy M itself.
    keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(batch["keys"], len(names) + 1)
    return FusionRows(
        features=features,
        present=batch["present"],
        logits=outputs["logits"],
        unimodal={m: outputs[f"logits/{m}"] for m in names},
        label=batch["label"],
        counted=batch["share"][:, 0] > 0,
        keys=keys,
        loss=loss,
        join=join,
        taught=batch["taught"],
    )
