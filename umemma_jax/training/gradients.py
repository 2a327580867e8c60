"""A method's own way from the gradients of its losses to the one that the optimiser sees; see `methods`."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import optax

from umemma_jax.model import LateFusion
from umemma_jax.training.rows import FusionRows

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Gradients:
    """What a whole batch has given, summed over its microbatches and devices.

    Attributes:
      of: of each of the L losses its gradient, by top-level group of parameters: `encoders_<m>`, `tokens_<m>`,
        `fusion`; of those that the stage trains.
      modalities: in the order of presence masks.
      sums: what the method's `sums` gives of its rows, added up.
      state: what the method carries from step to step.
      step: int32, steps done before this one.
      key: typed PRNG key of the step, the same on all devices.
    """

    of: tuple[PyTree, ...]
    modalities: tuple[str, ...]
    sums: PyTree
    state: PyTree
    step: jax.Array
    key: jax.Array

    def total(self) -> PyTree:
        """The gradient of the sum of all losses."""
        return functools.reduce(optax.tree.add, self.of)

    def of_encoders(self) -> dict[int, tuple[PyTree, ...]]:
        """Number of a modality whose encoder is trained -> its encoder's gradients, one of each loss."""
        groups = {index: f"encoders_{m}" for index, m in enumerate(self.modalities)}
        return {index: tuple(x[group] for x in self.of) for index, group in groups.items() if group in self.of[0]}

    def with_encoders(self, gradients: Mapping[int, PyTree]) -> PyTree:
        """The total, with other gradients of some modalities' encoders."""
        return self.total() | {f"encoders_{self.modalities[index]}": x for index, x in gradients.items()}


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a method has besides its `row_losses`; the default is that of one which has no more.

    Attributes:
      losses: L.
      combine: Gradients -> (the gradient, by the same groups, and the method's next state); None adds them up.
      sums: FusionRows -> float32 arrays, which are added up over the rows.
      state: number of modalities M -> what the method carries, before the first step; None for nothing.
      teachers: whether its rows have what the encoders said as the stage began.
    """

    losses: int = 1
    combine: Callable[[Gradients], tuple[PyTree, PyTree]] | None = None
    sums: Callable[[FusionRows], PyTree] | None = None
    state: Callable[[int], PyTree] | None = None
    teachers: bool = False

    def first_state(self, model: LateFusion) -> PyTree:
        """The method's state before the stage's first step; {} where it carries none."""
        return self.state(len(model.towers)) if self.state else {}

    def apply(self, found: Gradients) -> tuple[PyTree, PyTree]:
        """The gradient that the optimiser sees, and the method's next state."""
        return self.combine(found) if self.combine else (found.total(), found.state)


def rule_of(module: ModuleType, settings: Mapping[str, float]) -> Rule:
    """The rule that a method's module exports, with its hyper-parameters."""
    hooks = {name: getattr(module, name, None) for name in ("gradients", "sums")}
    bound = {name: functools.partial(hook, **settings) if hook else None for name, hook in hooks.items()}
    return Rule(
        getattr(module, "LOSSES", 1),
        bound["gradients"],
        bound["sums"],
        getattr(module, "state", None),
        getattr(module, "TEACHERS", False),
    )


def of_each_loss(objective: Callable[[PyTree], tuple[jax.Array, PyTree]], params: PyTree, losses: int) -> tuple:
    """Gradients of an objective's losses, one tree of each, and what else it returns.

    Args:
      objective: params -> (float32 scalar, or [L] of several losses; anything).
      params: to differentiate by.
      losses: L.
    """
    values, pullback, others = jax.vjp(objective, params, has_aux=True)
    return tuple(pullback(one)[0] for one in jnp.eye(losses).reshape(losses, *values.shape)), others
