"""Accuracy on tables of numbers and categories with holes: our encoder beside gradient boosting.

OMP_NUM_THREADS=1 python -m benchmarks.tabular_baselines --data=DIR [--tables=tumours,...] [--encoder=tabular_mlp]
    [--seeds=3]

Each table is prepared as `data_prep.table` does, split 70/10/20 by each seed, and trained with the preset for any data:
its first stage alone, and the epoch that is best on validation. As a model has two modalities, there is a second one,
which is constant and not looked at. scikit-learn's HistGradientBoostingClassifier, at its defaults but for what is said
to be a category, sees the same vectors: those of training and validation. Mean test accuracy, %.

- tumours: scikit-learn's breast_cancer, 569 rows of 30 numbers, 30 % of which are taken out;
- digits: scikit-learn's digits, 1,797 rows of 64 numbers, 30 % of which are taken out;
- numerals: Zernike moments and morphology of UCI's Multiple Features, 2,000 rows of 53 numbers, 30 % of which are taken
  out, from DIR/uci_mfeat/mfeat.csv;
- reviews: the rating, 1 to 5, that comes with a review of clothing, from age, recommendation, feedback count, and four
  categories with holes of their own, 4,698 rows, from DIR/clothing_reviews/reviews.csv.
"""

import argparse
import contextlib
import csv
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from sklearn import datasets
from sklearn.ensemble import HistGradientBoostingClassifier

from umemma_jax import command, experiment, presets
from umemma_jax.data.dataset import Dataset, open_dataset
from umemma_jax.data.pipeline import eval_batches
from umemma_jax.data_prep.build.rows import Row
from umemma_jax.data_prep.raw.columns import Column
from umemma_jax.data_prep.table import Choices, prepare_rows
from umemma_jax.training import train

HOLES = 0.3  # share of the numbers that are taken out, where a table has none of its own
LABEL = "label"
MODALITY, OTHER = "table", "constant"
MOST_CATEGORIES = 255  # that scikit-learn takes of a column
CATEGORIES = ("Clothing ID", "Division Name", "Department Name", "Class Name")
NUMBERS = ("Age", "Recommended IND", "Positive Feedback Count")

Records = list[dict[str, object]]


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser("benchmarks.tabular_baselines")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--tables", default=",".join(TABLES), metavar="NAME,...")
    parser.add_argument("--encoder", default="tabular_mlp")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args(argv)
    print("| table | rows | columns | boosting | ours |\n|---|---|---|---|---|")
    for name in arguments.tables.split(","):
        records, types = TABLES[name](arguments.data)
        found = [accuracies(records, types, arguments.encoder, seed) for seed in range(arguments.seeds)]
        boosting, ours = 100 * np.mean(found, axis=0)
        columns = len(records[0]) - 1
        print(f"| {name} | {len(records)} | {columns} | {boosting:.1f} | {ours:.1f} |", flush=True)


def accuracies(records: Records, types: Mapping[str, str], encoder: str, seed: int) -> tuple[float, float]:
    """Of boosting and of ours on the test split of one seed."""
    with tempfile.TemporaryDirectory(prefix="umemma_jax_benchmark_") as folder:
        data = Path(folder) / "data"
        columns = tuple(name for name in records[0] if name != LABEL)
        modalities = [Column("tabular", MODALITY, columns, types), Column("tabular", OTHER, (OTHER,))]
        choices = Choices(modalities, label=LABEL, split="0.7,0.1,0.2", seed=seed)
        known = [{name: field for name, field in record.items() if field not in ("", None)} for record in records]
        rows = [Row(record | {OTHER: 1}, f"row {number}") for number, record in enumerate(known)]
        with contextlib.redirect_stdout(sys.stderr):
            prepare_rows(str(data), rows, choices, data, "table")
        return boosted(open_dataset(data), seed), trained(str(data), Path(folder) / "run", encoder, seed)


def boosted(dataset: Dataset, seed: int) -> float:
    """Test accuracy of scikit-learn's gradient boosting."""
    modality = dataset.info.modalities[MODALITY]
    categories = [modality.columns.index(name) for name in modality.levels or ()]
    parts = {split: _vectors(dataset, split, categories) for split in dataset.info.splits}
    x, labels = (np.concatenate([parts["train"][place], parts["val"][place]]) for place in range(2))
    model = HistGradientBoostingClassifier(categorical_features=categories or None, random_state=seed)
    return model.fit(x, labels).score(*parts["test"])


def _vectors(dataset: Dataset, split: str, categories: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Vectors [N, D] and labels [N]; a category that is unseen, or beyond what scikit-learn takes, is missing."""
    batch = _whole(dataset, split)
    vectors = batch["inputs"][MODALITY].copy()
    for column in categories:
        places = vectors[:, column]
        places[(places < 0) | (places >= MOST_CATEGORIES)] = np.nan
    return vectors, batch["label"]


def trained(data: str, workdir: Path, encoder: str, seed: int) -> float:
    """Test accuracy of our encoder, after the first stage."""
    config = presets.small(data, "ume")
    config.seed = seed
    config.inputs[MODALITY].encoder.name = encoder
    built = experiment.build(config)
    with contextlib.redirect_stdout(sys.stderr):
        variables = train.train(built, workdir).unimodal
    batch = _whole(built.dataset, "test")
    outputs = jax.jit(built.model.apply)(variables, batch["inputs"], batch["present"])
    return float(np.mean(np.argmax(outputs[f"logits/{MODALITY}"], axis=1) == batch["label"]))


def _whole(dataset: Dataset, split: str) -> dict[str, Any]:
    """All rows of a split as one batch."""
    (batch,) = eval_batches(dataset, split, (MODALITY, OTHER), dataset.info.splits[split].examples)
    return batch


# --- tables -----------------------------------------------------------------------------------------------------------


def _bundled(load: Callable[..., object]) -> tuple[Records, dict[str, str]]:
    """A table of scikit-learn's, with holes."""
    bunch = load()
    names = [f"x{column}" for column in range(bunch.data.shape[1])]
    rows = [dict(zip(names, row, strict=True)) for row in bunch.data.tolist()]
    return [row | {LABEL: str(label)} for row, label in zip(_with_holes(rows), bunch.target, strict=True)], {}


def _numerals(data: Path) -> tuple[Records, dict[str, str]]:
    records = _read(data / "uci_mfeat" / "mfeat.csv")
    names = [name for name in records[0] if name.startswith(("zer_", "mor_"))]
    rows = _with_holes([{name: record[name] for name in names} for record in records])
    return [row | {LABEL: record["label"]} for row, record in zip(rows, records, strict=True)], {}


def _reviews(data: Path) -> tuple[Records, dict[str, str]]:
    records = _read(data / "clothing_reviews" / "reviews.csv")
    rows = [{name: record[name] for name in (*NUMBERS, *CATEGORIES)} | {LABEL: record["Rating"]} for record in records]
    return rows, dict.fromkeys(CATEGORIES, "category")


def _read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _with_holes(rows: Records) -> Records:
    draw = np.random.default_rng(0)
    return [{name: None if draw.random() < HOLES else field for name, field in row.items()} for row in rows]


TABLES: dict[str, Callable[[Path], tuple[Records, dict[str, str]]]] = {
    "tumours": lambda data: _bundled(datasets.load_breast_cancer),
    "digits": lambda data: _bundled(datasets.load_digits),
    "numerals": _numerals,
    "reviews": _reviews,
}


if __name__ == "__main__":
    command.run(main)
