"""A method is a file here, or a module of the user's own, whose name has a dot. None is asked for by its name.

Every file exports

- `LABEL`: how people write it; `SOURCE`: paper and equation.
- `SWITCHES`: what it has of the recipe: a uni-modal stage, a fusion stage, missing-modality augmentation.

and, where switches are not all that makes the method,

- `row_losses(rows, **settings) -> float32 [B]`: in the fusion stage, in place of the loss of the fused logits; `rows`
  is a `training.rows.FusionRows`. The step takes the weighted sum, so that microbatches and devices stay exact.
  Gradients go through it, and `jax.lax.stop_gradient` decides what each part of the loss trains.
- `LOSSES`: how many losses `row_losses` gives, [B, LOSSES], where they are more than one: gradients are of each.
- `gradients(found, **settings) -> (gradient, next state)`: in place of the sum of the losses' gradients, of a whole
  batch; `found` is a `training.gradients.Gradients`. `sums(rows, **settings)`: float32 arrays that are added up over
  the rows for it; `state(M)`: what it carries from step to step, before the first, as arrays.
- `TEACHERS = True`: rows have `taught`, what the encoders said as the stage began.
- `DEFAULTS`: hyper-parameter -> value; `SEARCHED`: hyper-parameter -> (least, largest) of what is worth a trial.
- `NEEDS`: config field -> the values that it must have, e.g. `WHOLE_BATCH` below; `SINGLE_LABEL = True`: labels must be
  one class each.
- `REFERENCE = True`: every comparison has it.
"""

import importlib
import pkgutil
import traceback
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from umemma_jax.errors import UserError, did_you_mean

WHOLE_BATCH = {"fusion.accumulate": (1,), "parallel": ("jit",)}  # of statistics over all rows of a batch
EXPORTED = ("LABEL", "SOURCE", "SWITCHES")


class Methods(Mapping):
    """Name -> module, loaded when asked for: a label alone needs no JAX.

    Switches come first, from the method with the fewest parts of the recipe to the one with all.
    """

    def __init__(self) -> None:
        self._names = frozenset(module.name for module in pkgutil.iter_modules(__path__))

    def __getitem__(self, name: str) -> ModuleType:
        """The module of a method that is known here."""
        if name not in self._names:
            raise KeyError(name)
        return importlib.import_module(f"{__name__}.{name}")

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        def order(name: str) -> tuple:
            return has_loss(self[name]), *self[name].SWITCHES.values(), name

        return iter(sorted(self._names, key=order))

    def __len__(self) -> int:
        return len(self._names)


METHODS = Methods()


def method(name: str) -> ModuleType:
    """The module of a method of `METHODS`, or of a module of the user's own, such as `my.module`.

    Raises:
      UserError: there is none, it fails, or it lacks what a method exports.
    """
    if name in METHODS:
        return METHODS[name]
    if "." not in name:
        hint = did_you_mean(name, METHODS)
        raise UserError(
            f"'{name}': unknown method, {hint}use one of {', '.join(METHODS)}, or a module of your own, with a dot"
        )
    try:
        module = importlib.import_module(name)
    except Exception as error:
        raise UserError(f"method '{name}': {type(error).__name__}: {error}: mend or rename the module") from error
    lacking = [export for export in EXPORTED if not hasattr(module, export)]
    if lacking or list(module.SWITCHES) != ["unimodal", "fusion", "augment"]:
        raise UserError(
            f"method '{name}': the module must export {', '.join(EXPORTED)}, the last with the keys unimodal, fusion "
            f"and augment{f'; it lacks {lacking[0]}' if lacking else ''}"
        )
    return module


def has_loss(module: ModuleType) -> bool:
    """Whether more than switches makes the method."""
    return hasattr(module, "row_losses")


def traced(module: ModuleType, rows: Any, **hyper_parameters: float) -> Any:
    """What the module's `row_losses` gives, float32 [B], or [B, LOSSES].

    Raises:
      UserError: it fails, or gives something else; with the line of the module where.
    """
    try:
        losses = module.row_losses(rows, **hyper_parameters)
    except UserError:
        raise
    except Exception as error:
        lines = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == module.__file__
        ]
        where = f"{module.__file__}:{lines[-1]}" if lines else module.__name__
        reason = str(error).strip().splitlines()[:1]
        raise UserError(f"method '{module.__name__}': {type(error).__name__}: {''.join(reason)} ({where})") from error
    count = getattr(module, "LOSSES", 1)
    wanted = (len(rows.label),) if count == 1 else (len(rows.label), count)
    if getattr(losses, "shape", None) != wanted:
        found = getattr(losses, "shape", type(losses).__name__)
        raise UserError(f"method '{module.__name__}': row_losses gives {found}: losses of rows are {wanted}")
    return losses


def settings(module: ModuleType) -> dict[str, float]:
    """The method's hyper-parameters with their defaults."""
    return dict(getattr(module, "DEFAULTS", {}))


def unmet_need(module: ModuleType, value_of: Any) -> str | None:
    """The first config field whose value the method cannot use, and what it needs; None where there is none.

    Args:
      module: of the method.
      value_of: config field such as `fusion.head` -> value.
    """
    for field, values in getattr(module, "NEEDS", {}).items():
        if value_of(field) not in values:
            return f"config.{field}: {value_of(field)!r}, but {module.LABEL} needs {' or '.join(map(repr, values))}"
    return None
