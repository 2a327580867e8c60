"""What a comparison is to run: its methods, the recipe of each, and the settings that trials draw."""

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from umemma_jax import checksums, methods
from umemma_jax import config as config_lib
from umemma_jax.addresses import redacted
from umemma_jax.config import apply_method
from umemma_jax.devices import distributed
from umemma_jax.errors import UserError
from umemma_jax.methods import METHODS
from umemma_jax.training.workdir import write_record

ALL = "all"
FILE_NAME = "plan.json"
SEED = 0  # of the settings that are drawn

Settings = dict[str, float]


def chosen_methods(config: ConfigDict, names: Sequence[str]) -> list[str]:
    """Methods to compare, each once, in the order of `METHODS`, then the user's own.

    Args:
      config: the recipe that all follow from.
      names: see `compare.compare`.
    """
    asked = set(names) - {ALL}
    for name in METHODS:
        module = METHODS[name]
        if getattr(module, "REFERENCE", False) or (not names and not methods.has_loss(module)):
            asked.add(name)
        elif ALL in names and name not in asked:
            if unmet := methods.unmet_need(module, lambda field: config_lib.get(config, field)):
                if distributed.is_first():
                    print(f"{name} is left out: {unmet}")
            else:
                asked.add(name)
    for name in sorted(asked):
        methods.method(name)  # raises where it is unknown
    return [*(name for name in METHODS if name in asked), *sorted(asked - set(METHODS))]


def ensemble() -> str:
    """The method that is no more than the uni-modal stage, which the others begin with."""
    return next(name for name in METHODS if not METHODS[name].SWITCHES["fusion"])


def recipe(config: ConfigDict, method: str, seed: int, settings: Mapping[str, float] | None = None) -> ConfigDict:
    """The recipe of one run of a method; hyper-parameters that are not in `settings` are the method's own."""
    own = config.copy_and_resolve_references()
    own.seed = seed
    apply_method(own, method)
    if settings:
        own.method.settings.update(settings)
    return own


def drawn(name: str, count: int) -> list[Settings]:
    """The settings of a method's trials, its defaults first; {} alone where there is nothing to search.

    Each hyper-parameter is drawn on its own, evenly over its range, over the logarithm where the range is of positive
    numbers. The draws of a method are the same in every comparison, and of fewer trials the first ones.

    Raises:
      UserError: a range is none.
    """
    module = methods.method(name)
    ranges = _ranges(name, module)
    if not ranges:
        return [{}]
    rng = np.random.default_rng([SEED, zlib.crc32(name.encode())])
    defaults = {key: methods.settings(module)[key] for key in ranges}
    others = [{key: _draw(rng, *ends) for key, ends in ranges.items()} for _ in range(count - 1)]
    return [defaults, *others]


def _draw(rng: np.random.Generator, least: float, most: float) -> float:
    share = rng.random()
    if least > 0:
        return float(f"{least * (most / least) ** share:.4g}")
    return float(f"{least + (most - least) * share:.4g}")


def _ranges(name: str, module: ModuleType) -> dict[str, tuple[float, float]]:
    searched, defaults = getattr(module, "SEARCHED", {}), methods.settings(module)
    for key, ends in searched.items():
        numbers = isinstance(ends, Sequence) and len(ends) == 2 and all(isinstance(x, int | float) for x in ends)
        if key not in defaults:
            raise UserError(f"method '{name}': SEARCHED['{key}'], but DEFAULTS has no '{key}': give it one")
        if not (numbers and all(map(math.isfinite, ends)) and ends[0] < ends[1]):
            raise UserError(f"method '{name}': SEARCHED['{key}'] is {ends!r}: give it (least, largest)")
    return {key: (float(least), float(most)) for key, (least, most) in searched.items()}


def claim(config: ConfigDict, trials: int, chosen: Sequence[str], workdir: Path) -> None:
    """Writes plan.json of a new comparison; of one that goes on, makes sure that it is the same one.

    Methods and seeds may join it. Of several processes the first writes, and all make sure.

    Raises:
      UserError: it is another recipe, another number of trials, or other ranges; or the workdir cannot be written.
    """
    distributed.first_then_others(lambda: _claim(config, trials, chosen, workdir))


def _claim(config: ConfigDict, trials: int, chosen: Sequence[str], workdir: Path) -> None:
    path = workdir / FILE_NAME
    fields = {key: value for key, value in config_lib.fixed(config.to_dict()).items() if key != "seed"}
    ranges = {name: {key: list(ends) for key, ends in _ranges(name, methods.method(name)).items()} for name in chosen}
    plan = json.loads(redacted(json.dumps({"config": fields, "trials": trials, "ranges": ranges})))
    known = _read(path)
    if known is not None:
        changed = config_lib.differences(known["config"], plan["config"])
        changed += [f"--trials={known['trials']} -> {trials}"] if known["trials"] != trials else []
        both = known["ranges"].keys() & ranges.keys()
        changed += [f"the ranges of {name}" for name in sorted(both) if known["ranges"][name] != plan["ranges"][name]]
        if changed:
            raise UserError(
                f"--workdir={workdir} holds another comparison ({'; '.join(changed[:4])}): use another --workdir, or "
                "the same plan"
            )
        plan["ranges"] = {**known["ranges"], **plan["ranges"]}
        if plan == known:
            return
    if distributed.is_first():
        write_record(workdir, FILE_NAME, plan)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        plan = checksums.read_sealed(path)
        return {key: plan[key] for key in ("config", "trials", "ranges")}
    except FileNotFoundError:
        return None
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}): remove it if the plan is the same") from error
