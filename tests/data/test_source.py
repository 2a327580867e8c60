"""Random access to the records of a split."""

import dataclasses
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.data.conftest import MODALITIES, make_examples, replace_records, unsealed, write_dataset
from umemma_jax.data import example, shards, tfrecord
from umemma_jax.data.dataset import Dataset
from umemma_jax.data.source import RecordSource
from umemma_jax.errors import UserError


def ids(source: RecordSource, rows) -> list[str]:
    return [example.bytes_value(source.features(row), "id").decode() for row in rows]


def test_any_row_in_any_order(tmp_path: Path):
    source = write_dataset(tmp_path / "small", train=make_examples(60)).source("train")
    rows = np.random.default_rng(0).integers(0, 60, 200)
    assert ids(source, rows) == [f"example {row}" for row in rows]
    for row in (-1, 60):
        with pytest.raises(IndexError):
            source[row]


def test_several_threads_and_a_pickled_copy(tmp_path: Path):
    source = write_dataset(tmp_path / "small", train=make_examples(60)).source("train")
    rows = np.random.default_rng(0).integers(0, 60, 400)
    with ThreadPoolExecutor(8) as threads:
        read = list(threads.map(source.__getitem__, rows))
    copy = pickle.loads(pickle.dumps(source))
    del source  # and with it its open files
    assert read == [copy[row] for row in rows]


def test_two_threads_that_open_a_file_at_the_same_time(tmp_path: Path, monkeypatch):
    source = write_dataset(tmp_path / "small", train=make_examples(3)).source("train")
    expected, source = list(source), pickle.loads(pickle.dumps(source))  # whose files are not open yet
    opened, assigned = threading.Barrier(2, timeout=10), threading.Barrier(2, timeout=10)
    open_file, read_record = shards._File.__init__, tfrecord.read_record

    def open_together(file, *arguments):
        open_file(file, *arguments)
        opened.wait()

    def read_when_both_have_opened(*arguments):
        assigned.wait()
        return read_record(*arguments)

    monkeypatch.setattr(shards._File, "__init__", open_together)
    monkeypatch.setattr(tfrecord, "read_record", read_when_both_have_opened)
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(source.__getitem__, [0, 1])) == expected[:2]


def test_files_are_closed_with_the_source(tmp_path: Path):
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("counts open files in /proc")
    dataset = write_dataset(tmp_path / "small", train=make_examples(60))
    before = len(os.listdir("/proc/self/fd"))
    source = dataset.source("train")
    list(source)
    assert len(os.listdir("/proc/self/fd")) == before + len(dataset.info.splits["train"].shards)
    del source
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture(params=["rows.npz", "records alone"])
def write(request, tmp_path: Path):
    """A function that writes a dataset whose records cannot be read, or one that has no rows.npz, as older ones."""

    def write(examples: list[dict]) -> Dataset:
        dataset = write_dataset(tmp_path / "small", train=examples)
        if request.param == "records alone":
            (dataset.path / "rows.npz").unlink()
            dataset = unsealed(dataset)
        else:
            for path in dataset.path.glob("*.tfrecord"):
                path.write_bytes(bytes(path.stat().st_size))
        return dataset

    return write


def test_labels(write):
    examples = make_examples(40)
    labels = write(examples).source("train").labels()
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, [e["label"] for e in examples])


def test_labels_of_many_classes(write):
    examples = make_examples(40, multi_label=True)
    dataset = write(examples)
    labels = dataset.source("train").labels()
    assert dataset.info.multi_label
    assert labels.dtype == np.float32
    np.testing.assert_array_equal(labels, [[k in e["label"] for k in range(3)] for e in examples])
    assert [] in [e["label"] for e in examples]
    assert dataset.info.splits["train"].classes == tuple(labels.sum(axis=0))


@pytest.mark.parametrize("missing", [False, True])
def test_present(write, missing: bool):
    examples = make_examples(40, missing=missing)
    source = write(examples).source("train")
    for names in (list(MODALITIES), ["table", "image"]):
        present = source.present(names)
        assert present.dtype == bool
        np.testing.assert_array_equal(present, [[name in e for name in names] for e in examples])


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ([3], r"record 1: label \[3\], but there are 3 classes"),
        ([-1], r"record 1: label \[-1\], but"),
        ([], "record 1: 0 labels instead of 1"),
        ([0, 1], "record 1: 2 labels instead of 1"),
    ],
)
def test_foreign_shard_with_wrong_labels(tmp_path: Path, label: list[int], message: str):
    dataset = write_dataset(tmp_path / "small", train=make_examples(2))
    dataset = replace_records(dataset, {"label": label})
    with pytest.raises(UserError, match=rf"train-00000-of-00001\.tfrecord: {message}"):
        dataset.source("train").labels()


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("change", ["other labels", "fewer rows", "other modalities", "another split"])
def test_rows_of_another_preparation(tmp_path: Path, multi_label: bool, change: str):
    dataset = write_dataset(tmp_path / "small", train=make_examples(30, missing=True, multi_label=multi_label))
    dataset = unsealed(dataset)
    rows = dict(np.load(dataset.path / "rows.npz"))
    match change:
        case "other labels":
            rows["train/labels"][:] = rows["train/labels"][0]
        case "fewer rows":
            rows = {name: values[:-1] for name, values in rows.items()}
        case "other modalities":
            rows["train/present"][:, 0] = True
        case "another split":
            rows = {name.replace("train", "test"): values for name, values in rows.items()}
    np.savez(dataset.path / "rows.npz", **rows)
    with pytest.raises(UserError, match=r"rows\.npz: not of these records: remove it, or prepare the dataset again$"):
        dataset.source("train")


def test_damaged_rows(tmp_path: Path):
    dataset = write_dataset(tmp_path / "small", train=make_examples(3))
    (dataset.path / "rows.npz").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"rows\.npz: (cannot be read|does not match)") as caught:
        dataset.source("train")
    assert "\n" not in str(caught.value)


def test_record_that_is_no_example(tmp_path: Path):
    dataset = write_dataset(tmp_path / "small", train=make_examples(2))
    path = dataset.path / dataset.info.splits["train"].shards[0].file
    writer = tfrecord.RecordWriter(path)
    for record in (b"", b"\xff\xff"):
        writer.write(record)
    writer.close()
    dataset = unsealed(dataset)
    with pytest.raises(UserError, match=rf"{path}: record 1: not a tf\.train\.Example") as caught:
        dataset.source("train").features(1)
    assert "\n" not in str(caught.value)


def test_damage_is_named_by_its_place_in_the_file(tmp_path: Path, flip_byte):
    dataset = write_dataset(tmp_path / "small", train=make_examples(60))
    first, second = dataset.info.splits["train"].shards[:2]
    path = dataset.path / second.file
    flip_byte(path, tfrecord.load_index(path)[2] - 10)
    source = dataset.source("train")
    assert ids(source, [first.examples]) == [f"example {first.examples}"]
    with pytest.raises(UserError, match=rf"{path}: record 1 is corrupted"):
        source[first.examples + 1]


def test_shard_that_vanished(tmp_path: Path):
    dataset = write_dataset(tmp_path / "small", train=make_examples(2))
    path = dataset.path / dataset.info.splits["train"].shards[0].file
    source = dataset.source("train")
    path.unlink()
    with pytest.raises(UserError, match=rf"{path}: cannot be read \(No such file"):
        source[0]


def test_other_number_of_records_than_promised(tmp_path: Path):
    dataset = write_dataset(tmp_path / "small", train=make_examples(2))
    split = dataset.info.splits["train"]
    shards = tuple(dataclasses.replace(shard, examples=3) for shard in split.shards)
    with pytest.raises(UserError, match=r"2 records, but dataset\.json says 3"):
        RecordSource(dataset.path, dataclasses.replace(split, shards=shards), dataset.info)
