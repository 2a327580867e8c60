"""Datasets of regression: labels that are numbers, on disk, in `dataset.json`, in batches."""

import json

import numpy as np
import pytest

from tests.data.conftest import edit
from umemma_jax.data.dataset import DatasetWriter, Modality, open_dataset
from umemma_jax.data.pipeline import eval_batches
from umemma_jax.data.targets import Target, standardised
from umemma_jax.errors import UserError

LABELS = np.array([[1.5, -2e6], [0.0, 4e6], [-3.25, 1e6], [7.0, 0.0]], np.float32)


def write(path, labels=LABELS, train=3, targets=("price", "views"), weights=(None,) * 4):
    with DatasetWriter(
        path,
        name="mine",
        description="Numbers.",
        classes=[],
        targets=targets,
        modalities={"table": Modality(kind="tabular", encoding="float32", shape=(1,))},
    ) as writer:
        for row, label in enumerate(labels):
            split = "train" if row < train else "test"
            about = {"id": str(row), "label": label.tolist(), "sample_weight": weights[row]}
            writer.write(split, **about, table=np.ones(1, np.float32))
    return open_dataset(path)


def test_labels_arrive_as_they_were_written(tmp_path):
    dataset = write(tmp_path / "data")
    assert dataset.info.classes == () and dataset.info.labelled
    np.testing.assert_array_equal(dataset.source("train").labels(), LABELS[:3])
    (batch,) = eval_batches(dataset, "test", ["table"], batch_size=2)
    assert batch["label"].dtype == np.float32
    np.testing.assert_array_equal(batch["label"], [LABELS[3], [0, 0]])  # the last row is padding


def test_mean_and_deviation_are_of_the_training_examples(tmp_path):
    dataset = write(tmp_path / "data")
    targets = dataset.info.targets
    assert [target.name for target in targets] == ["price", "views"]
    np.testing.assert_allclose([target.mean for target in targets], LABELS[:3].mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose([target.std for target in targets], LABELS[:3].std(axis=0), rtol=1e-6)
    standard = standardised(LABELS[:3], targets)
    np.testing.assert_allclose(standard.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(standard.std(axis=0), 1, rtol=1e-6)


def test_rows_count_by_their_weights(tmp_path):
    """A weight of 2 is as two such rows."""
    weighted = write(tmp_path / "weighted", weights=(2.0, 0.0, 1.0, 1.0)).info.targets
    repeated = write(tmp_path / "repeated", labels=LABELS[[0, 0, 2, 3]]).info.targets
    for one, other in zip(weighted, repeated, strict=True):
        assert (one.mean, one.std) == pytest.approx((other.mean, other.std))


def test_without_training_examples_there_is_no_mean(tmp_path):
    assert write(tmp_path / "data", train=0).info.targets == (Target("price"), Target("views"))


def test_datasets_of_classes_say_nothing_of_targets(tmp_path):
    with DatasetWriter(
        tmp_path / "data",
        name="mine",
        description="",
        classes=["a"],
        modalities={"table": Modality(kind="tabular", encoding="float32", shape=(1,))},
    ) as writer:
        writer.write("train", id="0", label=0, table=np.ones(1, np.float32))
    assert "targets" not in json.loads((tmp_path / "data" / "dataset.json").read_text())


@pytest.mark.parametrize("label", [[1.0], [1.0, np.nan], [1.0, np.inf], [1.0, 1e39], [[1.0, 2.0]]])
def test_labels_that_are_none(tmp_path, label):
    with pytest.raises(ValueError, match="is not a finite number for each of 2 targets"):
        write(tmp_path / "data", [np.array(label)])


def test_a_target_that_never_changes_is_refused(tmp_path):
    with pytest.raises(UserError, match="target 'views' is 3 in all training examples"):
        write(tmp_path / "data", np.array([[1.0, 3.0], [2.0, 3.0]]), train=2)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("targets", "complaint"),
    [
        ([{"name": "price"}, {"name": "price"}], "targets must be distinct"),
        ([{"name": "price", "mean": 0.0}], "no mean and standard deviation"),
        ([{"name": "price", "mean": 0.0, "std": 0.0}], "no mean and standard deviation"),
        ([{"name": "price", "unit": "euro"}], "field 'unit' is unknown"),
        (["price"], "elements of a wrong type"),
    ],
)
def test_descriptions_that_contradict_themselves(tmp_path, targets, complaint):
    write(tmp_path / "data")
    edit(tmp_path / "data", targets=targets)
    with pytest.raises(UserError, match=complaint):
        open_dataset(tmp_path / "data")


def test_labels_are_of_classes_or_targets(tmp_path):
    write(tmp_path / "data")
    edit(tmp_path / "data", classes=["a"])
    with pytest.raises(UserError, match="there are classes and targets"):
        open_dataset(tmp_path / "data")


def test_records_without_a_number_for_each_target(tmp_path):
    write(tmp_path / "data")
    edit(tmp_path / "data", targets=[{"name": "price"}])
    with pytest.raises(UserError, match=r"rows.npz: not of these records"):
        open_dataset(tmp_path / "data").source("train")
