"""report.json with a bit flipped, a byte replaced, an end cut off or another value, as a comparison reads it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.trial import flipped, outcome
from umemma_jax import checksums
from umemma_jax.reporting.reading import read_report
from umemma_jax.reporting.report import write_report
from umemma_jax.reporting.results import compare

COUNT = 2000
_OTHERS = (None, "x", 1.5, -3, True, [], {}, [[]], {"x": None}, float("nan"))


def run(rng: np.random.Generator, count: int, folder: Path) -> Iterator[tuple[str, str, str]]:
    """Yields (kind of damage, outcome, what was said) of so many damaged reports."""
    path = folder / "report.json"
    write_report(results(rng), folder)
    expected, text = read_report(path), path.read_bytes()

    def same(found: dict[str, Any]) -> bool:
        """A flip in the name of the checksum's field leaves all others as they were."""
        return all(found[name] == value for name, value in expected.items())

    for number in range(count):
        kind = ("flip", "cut", "value")[number % 3]
        if kind == "flip":
            with flipped(path, rng, whole_byte=bool(rng.integers(2))):
                yield kind, *outcome(lambda: read_report(path), same)
        elif kind == "cut":
            path.write_bytes(text[: rng.integers(len(text) - 2)])
            yield kind, *outcome(lambda: read_report(path), same)
        else:
            path.write_text(json.dumps(replaced(expected, rng)))  # as of another version: without a checksum
            yield kind, *outcome(lambda: compare([read_report(path)]), lambda comparison: True)
        path.write_bytes(text)


def results(rng: np.random.Generator) -> dict[str, Any]:
    """What an evaluation of two modalities returns, with numbers by chance; none is known of sound alone."""
    names = ("accuracy", "macro_f1")

    def scores() -> dict[str, Any]:
        return dict(zip(names, rng.random(2).tolist(), strict=True))

    unknown = dict.fromkeys(names)
    cells = [
        {"kind": kind, "rate": rate, "seeds": 5, "mean": scores(), "std": scores(), "table_sha256": "0" * 64}
        for kind in ("image", "sound", "mixed")
        for rate in (0.0, 1.0)
    ]
    return {
        "dataset": "small",
        "split": "test",
        "examples": 40,
        "metric": "accuracy",
        "method": "ume_mma",
        "seed": 0,
        "stand_in": "token",
        "modalities": ["image", "sound"],
        "patterns": {"image+sound": scores(), "image": scores(), "sound": unknown | {"examples": 0}},
        "ceilings": {"image": scores(), "sound": unknown},
        "not_validated": {"ceilings": ["sound"]},
        "missing_rates": cells,
        "naturally_missing": {"image": 0, "sound": 40},
        "timing": {"report_seconds": 0.1},
    }


def replaced(content: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """A copy in which one value, at any depth, is another or gone."""
    copy = json.loads(json.dumps({name: value for name, value in content.items() if name != checksums.FIELD}))
    tree, key = copy, None
    while key is None or (isinstance(tree[key], dict | list) and tree[key] and rng.integers(4)):
        tree = copy if key is None else tree[key]
        keys = list(tree) if isinstance(tree, dict) else range(len(tree))
        key = keys[rng.integers(len(keys))]
    if rng.integers(4) == 0:
        del tree[key]
    else:
        tree[key] = _OTHERS[rng.integers(len(_OTHERS))]
    return copy
