"""Datasets without labels: they have no classes, and are otherwise like any other."""

import dataclasses
import json
from itertools import islice
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.data.conftest import CLASSES, MODALITIES, edit, make_examples, unsealed, write_dataset
from umemma_jax.data.dataset import Dataset, DatasetWriter, open_dataset
from umemma_jax.data.incomplete import IncompleteDataset
from umemma_jax.data.info import from_json
from umemma_jax.data.pipeline import eval_batches, train_batches
from umemma_jax.errors import UserError

NAMES = ("table", "image", "audio")
N = 43


def writer(path: Path, **changes) -> DatasetWriter:
    arguments = {"name": "new", "description": "d", "classes": [], "modalities": MODALITIES, "shard_bytes": 1500}
    return DatasetWriter(path, **arguments | changes)


@pytest.fixture(scope="module", params=["rows.npz", "records alone"])
def pair(request, tmp_path_factory) -> tuple[Dataset, Dataset]:
    """The same examples without labels and with them."""
    folder, examples = tmp_path_factory.mktemp("data"), make_examples(N, missing=True)
    write_dataset(folder / "labelled", train=examples)
    with writer(folder / "unlabelled") as output:
        for example in examples:
            output.write("train", **{name: value for name, value in example.items() if name != "label"})
    if request.param == "records alone":
        for dataset in ("labelled", "unlabelled"):
            opened = open_dataset(folder / dataset)
            (folder / dataset / "rows.npz").unlink()
            unsealed(opened)
    return open_dataset(folder / "unlabelled"), open_dataset(folder / "labelled")


def test_there_are_no_classes_and_the_counts_are_the_same(pair):
    unlabelled, labelled = pair
    assert (unlabelled.info.classes, unlabelled.info.multi_label) == ((), False)
    found, expected = (dataset.info.splits["train"] for dataset in pair)
    assert (found.examples, found.present, found.classes) == (N, expected.present, ())
    assert unlabelled.info.modalities == labelled.info.modalities
    stated, opened = from_json(json.loads((unlabelled.path / "dataset.json").read_text())), unlabelled.info
    if stated.files is None:  # version 1 states no ends of shards, which are read when it is opened
        opened = dataclasses.replace(opened, splits=stated.splits)
    assert stated == opened


def test_records_have_everything_but_the_label(pair):
    for found, expected in zip(*(dataset.source("train").examples(range(N)) for dataset in pair), strict=True):
        assert dict(found) == {name: feature for name, feature in expected.items() if name != "label"}


def test_all_that_a_source_tells_is_the_same_but_labels_are_zero(pair):
    found, expected = (dataset.source("train") for dataset in pair)
    assert found.ids() == expected.ids() == [f"example {i}" for i in range(N)]
    np.testing.assert_array_equal(found.present(NAMES), expected.present(NAMES))
    assert (found.labels().dtype, found.labels().tolist()) == (np.int32, [0] * N)


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_batches_are_the_same_but_labels_are_zero(pair, cache_bytes: int):
    found, expected = (
        [
            *eval_batches(dataset, "train", NAMES, 8),
            *islice(train_batches(dataset, "train", NAMES, 8, seed=0, cache_bytes=cache_bytes), 7),
        ]
        for dataset in pair
    )
    for batch, other in zip(found, expected, strict=True):
        label = batch.pop("label")
        assert (label.dtype, label.tolist()) == (np.int32, [0] * 8)
        assert other.pop("label").any()
        jax.tree.map(np.testing.assert_array_equal, batch, other)


def test_values_can_be_dropped(pair):
    kept = np.random.default_rng(0).random((N, len(NAMES))) < 0.5
    found, expected = (IncompleteDataset(dataset, {"train": kept}, NAMES).source("train") for dataset in pair)
    np.testing.assert_array_equal(found.present(NAMES), expected.present(NAMES))
    assert found.ids() == expected.ids()
    assert not found.labels().any()


# Mistakes


@pytest.mark.parametrize(
    ("classes", "multi_label", "label", "message"),
    [
        ((), False, 0, "label 0, but the dataset has no classes"),
        ((), False, [], r"label \[\], but the dataset has no classes"),
        (CLASSES, False, None, "no label, but the dataset has classes"),
        (CLASSES, True, None, "no label, but the dataset has classes"),
    ],
)
def test_labels_where_there_are_classes_and_only_there(tmp_path: Path, classes, multi_label, label, message):
    output = writer(tmp_path / "new", classes=classes, multi_label=multi_label)
    with pytest.raises(ValueError, match=message), output:
        output.write("train", **make_examples(1)[0] | {"label": label})


@pytest.fixture
def small(tmp_path: Path) -> Dataset:
    with writer(tmp_path / "new") as output:
        for example in make_examples(5):
            output.write("test", **example | {"label": None})
    return open_dataset(tmp_path / "new")


def test_multi_label_in_dataset_json(small: Dataset):
    edit(small.path, multi_label=True)
    with pytest.raises(UserError, match=r"dataset\.json: multi_label, but there are no classes: make"):
        open_dataset(small.path)


def test_rows_of_a_labelled_dataset(tmp_path: Path, small: Dataset):
    labelled = write_dataset(tmp_path / "labelled", test=make_examples(5))
    small = unsealed(small)
    (labelled.path / "rows.npz").rename(small.path / "rows.npz")
    with pytest.raises(UserError, match=r"rows\.npz: not of these records"):
        small.source("test")


def test_records_of_a_labelled_dataset(tmp_path: Path, small: Dataset):
    labelled = write_dataset(tmp_path / "labelled", test=make_examples(5)).path
    unsealed(open_dataset(labelled))
    content = json.loads((labelled / "dataset.json").read_text())
    content["classes"], content["splits"]["test"]["classes"] = [], []
    (labelled / "dataset.json").write_text(json.dumps(content))
    (labelled / "rows.npz").unlink()
    dataset = open_dataset(labelled)
    with pytest.raises(UserError, match=r"record 0: label \[0\], but there are 0 classes"):
        next(eval_batches(dataset, "test", NAMES, 5))
    with pytest.raises(UserError, match=r"record 0: label \[0\], but there are 0 classes"):
        dataset.source("test").labels()
