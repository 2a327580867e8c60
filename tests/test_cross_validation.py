"""Folds of a table, each trained and reported on, and the report of all."""

import json

import numpy as np
import pytest

from tests import small_run
from tests.example_results import example_results
from umemma_jax import cross_validation
from umemma_jax.config import tower_config
from umemma_jax.data_prep import table
from umemma_jax.data_prep.raw.columns import Column
from umemma_jax.errors import UserError
from umemma_jax.reporting.cross_validation import over_folds
from umemma_jax.reporting.markdown import cross_validation_markdown, cross_validation_summary
from umemma_jax.reporting.reading import read_report
from umemma_jax.training import train

pytestmark = pytest.mark.usefixtures("one_device")
FOLDS, ROWS = 3, 90


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    """The folder of the folds of a table of two vectors and a class."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    lines = []
    for number in range(ROWS):
        values = np.eye(3)[number % 3][None] + rng.normal(size=(2, 3))
        lines.append({"a": values[0].tolist(), "b": values[1].tolist(), "kind": "xyz"[number % 3]})
    (folder / "mine.jsonl").write_text("\n".join(map(json.dumps, lines)))
    modalities = tuple(Column("tabular", name, (name,)) for name in "ab")
    out = str(folder / "out")
    table.prepare(out, table=str(folder / "mine.jsonl"), modalities=modalities, label="kind", folds=FOLDS)
    return folder / "out"


def get_config(path):
    config = small_run.get_config(path, modalities=("a", "b"), evaluation__resamples=50, evaluation__rates=(0.0, 1.0))
    for name in "ab":
        config.inputs[name] = tower_config({"name": "mlp", "widths": (4,)})
    config.data.validation_split = "val"
    config.unimodal.epochs = config.fusion.epochs = 1
    config.checkpoint_every = 1000
    return config


def test_every_fold_is_trained_once_and_the_report_holds_all(folds, tmp_path, monkeypatch):
    found = cross_validation.cross_validate(get_config(folds / "fold1"), tmp_path, "python main.py")
    assert found["examples"] == [ROWS // FOLDS] * FOLDS
    reports = [read_report(tmp_path / f"fold{number}" / "report" / "report.json") for number in range(FOLDS)]
    values = [report["patterns"]["a"]["accuracy"] for report in reports]
    assert found["patterns"]["a"]["accuracy"] == {
        "mean": pytest.approx(np.mean(values)),
        "std": pytest.approx(np.std(values, ddof=1)),
        "folds": values,
    }
    written = tmp_path / "report"
    assert json.loads((written / "cross_validation.json").read_text()) == found
    assert (written / "cross_validation.md").read_text() == cross_validation_markdown(found)
    monkeypatch.setattr(train, "train", None)  # what is finished is not trained again
    assert cross_validation.cross_validate(get_config(folds / "fold0"), tmp_path, "python main.py") == found


def test_a_dataset_that_is_no_fold(tmp_path):
    small_run.write_dataset(tmp_path / "fold0")
    with pytest.raises(
        UserError, match=r"config\.data\.dir: .*fold0 is no fold of a cross-validation: make folds with"
    ):
        cross_validation.cross_validate(get_config(tmp_path / "fold0"), tmp_path / "run", "python main.py")


def test_the_table_shows_mean_deviation_and_every_fold():
    rows = [example_results() for _ in range(3)]
    for row, value in zip(rows, (0.5, 0.6, 0.7), strict=True):
        row["patterns"]["image"]["accuracy"] = value
    found = over_folds(rows)
    line = next(line for line in cross_validation_summary(found).splitlines() if "image alone" in line)
    assert [cell.strip() for cell in line.strip("| ").split("|")][1:] == ["60.0 ± 10.0", "50.0", "60.0", "70.0"]


def test_what_a_fold_lacks_has_no_mean():
    rows = [example_results(), example_results()]
    rows[1]["patterns"]["image"]["accuracy"] = None
    value = over_folds(rows)["patterns"]["image"]["accuracy"]
    assert value == {"mean": None, "std": None, "folds": [rows[0]["patterns"]["image"]["accuracy"], None]}


def test_folds_of_different_evaluations():
    with pytest.raises(UserError, match='folds that do not belong together: method is "ume" and "ume_mma"'):
        over_folds([{**example_results(), "method": method} for method in ("ume", "ume_mma")])
