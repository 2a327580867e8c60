"""report.json read back, with all that a comparison relies on."""

import json
from pathlib import Path
from types import NoneType
from typing import Any

from umemma_jax import checksums
from umemma_jax.errors import UserError
from umemma_jax.reporting.results import headline, metrics

EVERY = "*"  # in place of a name: what holds for each
SCORES = {EVERY: (int, float, NoneType)}
FIELDS = {
    "dataset": (str,),
    "split": (str,),
    "examples": (int,),
    "metric": (str,),
    "modalities": [(str,)],
    "method": (str,),
    "seed": (int,),
    "patterns": {EVERY: SCORES},
    "ceilings": {EVERY: SCORES},
    "missing_rates": [{"kind": (str,), "rate": (int, float), "seeds": (int,), "mean": SCORES, "std": SCORES}],
}
OPTIONAL_FIELDS = {
    "eta": {"kind": (str,), "rate": (int, float)},
    "unequal": {"mean": SCORES, "std": SCORES},
    "calibration": {"patterns": {EVERY: {"before": SCORES}}},
    "headline": (str,),
    "not_validated": {EVERY: [(str,)]},
    "ended_early": {EVERY: {"step": (int,), "steps": (int,), "reason": (str,)}},
}


def read_report(path: Path) -> dict[str, Any]:
    """The results that `report.write_report` wrote.

    Raises:
      UserError: the file cannot be read, is damaged, or is of a version with other fields.
    """
    try:
        results = json.loads(path.read_bytes(), parse_constant=_refuse)
        _check(results, FIELDS, "report")
        _check(results, {name: form for name, form in OPTIONAL_FIELDS.items() if name in results}, "report")
        _check_names(results)
        checksums.check_sealed(results, str(path))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is damaged or of another version ({error}): remove it, "
            "and the same command evaluates the run again"
        ) from error
    return {name: value for name, value in results.items() if name != checksums.FIELD}


def _refuse(constant: str) -> None:
    raise ValueError(f"it holds {constant}")


def _check(value: Any, form: Any, where: str) -> None:
    """Raises ValueError where a value is not of its form: types, [form of each entry] or {name: form}."""
    kind = type(form) if isinstance(form, list | dict) else form
    if type(value) not in (kind if isinstance(kind, tuple) else (kind,)):
        raise ValueError(f"{where} is of type {type(value).__name__}")
    if isinstance(form, list):
        for number, entry in enumerate(value):
            _check(entry, form[0], f"{where}[{number}]")
    elif isinstance(form, dict):
        for name in value if EVERY in form else form:
            if name not in value:
                raise ValueError(f"{where}.{name} is missing")
            _check(value[name], form.get(EVERY, form.get(name)), f"{where}.{name}")


def _check_names(results: dict[str, Any]) -> None:
    """Raises ValueError where a pattern, a modality or a metric of the results is missing."""
    modalities, patterns, ceilings = results["modalities"], results["patterns"], results["ceilings"]
    if "+".join(modalities) not in patterns or not results["missing_rates"] or results["examples"] < 1:
        raise ValueError("it holds no numbers")
    names = set(metrics(results))
    if headline(results) not in names:
        raise ValueError("report.headline is no metric")
    for pattern, scores in patterns.items():
        if not set(pattern.split("+")) <= set(modalities) or scores.keys() - {"examples"} != names:
            raise ValueError(f"report.patterns.{pattern} has other modalities or metrics than the rest")
    for modality in modalities if ceilings else ():
        if not names <= ceilings.get(modality, {}).keys():
            raise ValueError(f"report.ceilings.{modality} lacks metrics")
    means = set(results["missing_rates"][0]["mean"])
    for number, cell in enumerate(results["missing_rates"]):
        if not cell["mean"].keys() == cell["std"].keys() == means or results["metric"] not in means & names:
            raise ValueError(f"report.missing_rates[{number}] has other metrics than the rest")
