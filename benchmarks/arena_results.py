"""What the arena is of: its cells, each a dataset and a protocol, and the small file of results of each.

A file is docs/arena/NAME.json: `dataset`, `test_examples`, `seeds`, `encoders`, `metric`, `patterns` (how many),
`command`, and `methods`: {method: {measure: a value of each seed}}, measures as in `evaluation.verdict`. A method that
was run with other seeds has `seeds` of its own; `notes` are sentences for the page. `comparisons`, {measure: [...]} as
in comparison.json, are over examples and seeds; where a file has none, they are computed here, over the seeds alone: no
verdict rests on them. `budget`, as comparison.json may have it, is {method: {what: number}}, e.g. epochs and seconds.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from umemma_jax.errors import UserError
from umemma_jax.evaluation import verdict

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "arena"
REFERENCES = ("ume", "ume_mma")
FIELDS = ("dataset", "test_examples", "seeds", "encoders", "metric", "patterns", "methods", "command")
MEASURES = (*verdict.MEASURES, *verdict.CALIBRATION)
ETA = {"rate": 0.7, "kind": "mixed"}
COMPARE = "--mode=compare --methods=all --seeds=5 --trials=8 --config.fusion.only=True --workdir=DIR"


class Cell(NamedTuple):
    """A dataset under a protocol.

    Attributes:
      name: of its file.
      title: of the dataset.
      protocol: what training lacks, in words.
      eta: the same, as comparison.json has it; None where it lacks nothing.
      command: that trains and compares.
    """

    name: str
    title: str
    protocol: str
    eta: dict[str, Any] | None
    command: str


DATASETS = {  # name -> title and recipe
    "av_mnist_small": ("AV-MNIST small", "av_mnist"),
    "av_mnist_large": ("AV-MNIST large, degraded", "av_mnist"),
    "product_pairs": ("product pairs", "food101:small"),
    "product_labels": ("product labels", "mm_imdb:small"),
    "rendered_clips": ("1,800 rendered clips", "ave:small"),
    "uci_mfeat": ("UCI Multiple Features, six views", "own_data:DATA"),
}
COMPLETE, INCOMPLETE = "complete training", "eta = 70 %, mixed"


def _cell(name: str, protocol: str) -> Cell:
    title, recipe = DATASETS[name]
    data = "" if recipe.endswith("DATA") else " --config.data.dir=DATA"
    run = f"python main.py --config={recipe}{data} {COMPARE}"
    if protocol == COMPLETE:
        return Cell(name, title, protocol, None, run)
    return Cell(f"{name}_eta70", title, protocol, ETA, f"{run} --config.missing.eta.rate={ETA['rate']}")


CELLS = {
    cell.name: cell for protocol in (COMPLETE, INCOMPLETE) for cell in (_cell(name, protocol) for name in DATASETS)
}


def read(folder: Path = FOLDER) -> dict[str, dict[str, Any]]:
    """The results that are there, by cell.

    Raises:
      UserError: a file is of no cell, is damaged, or lacks a field.
    """
    found = {path.stem: _read(path) for path in sorted(folder.glob("*.json"))}
    return {name: found[name] for name in CELLS if name in found}


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """The content of a JSON file. Raises UserError, with the remedy, where it cannot be read or is damaged."""
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): {remedy}") from error


def _read(path: Path) -> dict[str, Any]:
    if path.stem not in CELLS:
        raise UserError(f"{path}: no cell of the arena has this name, use one of {', '.join(CELLS)}")
    results = read_json(path, "write it again")
    for field in FIELDS:
        if field not in results:
            raise UserError(f"{path}: {field} is missing: write it again")
    for method, values in results["methods"].items():
        for measure in (measure for measure in MEASURES if measure in values):
            if len(_listed(values[measure])) != len(values.get("seeds", results["seeds"])):
                raise UserError(f"{path}: methods.{method}.{measure} has other than one value a seed: write it again")
    return results


def _listed(values: float | list) -> list:
    return values if isinstance(values, list) else [values]


def measures(results: Mapping[str, Any]) -> dict[str, dict]:
    """What comparison.json calls `measures`, of a cell's results: {measure: {"methods", "comparisons"}}.

    Methods that were not run with all of the cell's seeds have values, but are not compared.
    """
    by_method = results["methods"]
    found = {}
    for measure in MEASURES:
        values = {name: _listed(of[measure]) for name, of in by_method.items() if measure in of}
        if values:
            found[measure] = {"methods": values, "comparisons": _comparisons(results, measure, values)}
    return found


def _comparisons(results: Mapping[str, Any], measure: str, values: Mapping[str, list]) -> list[dict]:
    if "comparisons" in results:
        return results["comparisons"].get(measure, [])
    whole = {name: own for name, own in values.items() if "seeds" not in results["methods"][name]}
    runs = {name: verdict.of_seeds({measure: own}) for name, own in whole.items()}
    references = [name for name in REFERENCES if name in runs]
    return verdict.by_measure(runs, [measure], references)[measure]["comparisons"]


def means(results: Mapping[str, Any], measure: str) -> dict[str, float]:
    """Mean over the seeds of each method that was run with all of them; none where a value is not defined."""
    values = {
        name: _listed(of[measure]) for name, of in results["methods"].items() if measure in of and "seeds" not in of
    }
    return {name: math.fsum(own) / len(own) for name, own in values.items() if None not in own}


def of_comparison(comparison: Mapping[str, Any], encoders: str, command: str) -> dict[str, Any]:
    """A cell's results, from what comparison.json holds.

    Args:
      comparison: with `paired.verdict`.
      encoders: how they were trained, in words.
      command: that was run.

    Raises:
      UserError: the comparison has no verdict.
    """
    if "verdict" not in comparison.get("paired", {}):
        raise UserError("the comparison has no verdict: run the same command again with this version")
    found = comparison["paired"]["verdict"]["measures"]
    methods = {
        name: {measure: one["methods"][name] for measure, one in found.items() if None not in one["methods"][name]}
        for name in comparison["methods"]
    }
    return {
        "dataset": comparison["dataset"],
        "test_examples": comparison["examples"],
        "seeds": next(iter(comparison["methods"].values()))["seeds"],
        "encoders": encoders,
        "metric": comparison["paired"]["metric"],
        "patterns": len(next(iter(comparison["methods"].values()))["patterns"]),
        "methods": {name: _rounded(values) for name, values in methods.items()},
        "comparisons": {measure: [_rounded(one) for one in found[measure]["comparisons"]] for measure in found},
        **({"budget": _rounded(_numbers(comparison["budget"]))} if "budget" in comparison else {}),
        "command": command,
    }


def _numbers(budget: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """{method: {what: number}} of a comparison's budget, without what is not known."""
    found = {}
    for method, given in budget.items():
        epochs = given["epochs"] or {}
        numbers = {f"{stage} epochs": count for stage, count in epochs.items()}
        numbers |= {
            "trials": given["trials"],
            "s": given["seconds"],
            "FLOPs at most": given["flops"],
            **given["settings"],
        }
        found[method] = {name: number for name, number in numbers.items() if number is not None}
    return found


def _rounded(tree: Any) -> Any:
    """Six significant digits: the files are committed."""
    if isinstance(tree, dict):
        return {name: _rounded(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [_rounded(value) for value in tree]
    return float(f"{tree:.6g}") if isinstance(tree, float) else tree
