"""umemma_jax/data/incomplete.py: what a table drops is absent wherever the dataset is read."""

import pickle

import numpy as np
import pytest

from tests.data.conftest import make_examples, unsealed, write_dataset
from umemma_jax.data import example
from umemma_jax.data.incomplete import IncompleteDataset
from umemma_jax.data.pipeline import eval_batches, train_batches

NAMES = ("table", "image")  # not in the dataset's order, and not all of it


@pytest.fixture(scope="module", params=["rows.npz", "records alone"])
def datasets(request, tmp_path_factory):
    """The whole dataset and the incomplete one; some modalities are absent by nature as well."""
    path = tmp_path_factory.mktemp("data") / "small"
    whole = write_dataset(path, train=make_examples(40, missing=True), test=make_examples(11))
    if request.param == "records alone":  # as in older datasets
        (path / "rows.npz").unlink()
        whole = unsealed(whole)
    available = whole.source("train").present(NAMES)
    kept = available & (np.random.default_rng(0).random(available.shape) < 0.6)
    return whole, IncompleteDataset(whole, {"train": kept}, NAMES), kept


def test_batches_lack_what_the_table_drops_and_are_otherwise_the_same(datasets):
    whole, incomplete, kept = datasets
    names = (*NAMES, "audio")
    before, after = (next(eval_batches(dataset, "train", names, 40)) for dataset in (whole, incomplete))
    np.testing.assert_array_equal(after["present"][:, :2], kept)
    np.testing.assert_array_equal(after["present"][:, 2], before["present"][:, 2])
    np.testing.assert_array_equal(after["label"], before["label"])
    for column, name in enumerate(NAMES):
        keeps = kept[:, column]
        np.testing.assert_array_equal(after["inputs"][name][keeps], before["inputs"][name][keeps])
        assert not after["inputs"][name][~keeps].any()


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_training_batches_lose_by_record_number_in_every_epoch(datasets, cache_bytes):
    _, incomplete, kept = datasets
    batches = train_batches(incomplete, "train", NAMES, 8, seed=0, cache_bytes=cache_bytes)
    for _ in range(10):  # two epochs
        batch = next(batches)
        np.testing.assert_array_equal(batch["present"], kept[batch["index"]])


def test_rows_are_arranged_by_what_is_left(datasets):
    _, incomplete, kept = datasets
    seen = []

    def arrange(present):
        seen.append(present)
        return np.arange(len(present))

    batch = next(train_batches(incomplete, "train", NAMES, 8, seed=0, arrange=arrange, threads=0))
    np.testing.assert_array_equal(seen[0], kept[batch["index"]])


def test_counts_presence_and_features_are_of_what_is_left(datasets):
    whole, incomplete, kept = datasets
    counts = incomplete.info.splits["train"].present
    assert counts == whole.info.splits["train"].present | dict(zip(NAMES, kept.sum(axis=0).tolist(), strict=True))
    source = pickle.loads(pickle.dumps(incomplete.source("train")))
    np.testing.assert_array_equal(source.present(NAMES), kept)
    np.testing.assert_array_equal(source.labels(), whole.source("train").labels())
    has_image = [example.bytes_value(source.features(row), "image") is not None for row in range(40)]
    np.testing.assert_array_equal(has_image, kept[:, 1])


def test_splits_without_a_table_stay_as_they_are(datasets):
    whole, incomplete, _ = datasets
    assert incomplete.info.splits["test"] == whole.info.splits["test"]
    assert incomplete.source("test").present(NAMES).all()
    assert incomplete.fingerprint == whole.fingerprint
