"""Batches: the right values, the right order, and an exact position."""

import json
import os
from itertools import islice
from pathlib import Path

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from scipy import stats

from tests.data.conftest import CLASSES, MODALITIES, make_examples, replace_records, write_dataset
from umemma_jax.data import jpeg
from umemma_jax.data.dataset import Dataset, DatasetWriter, Modality, open_dataset
from umemma_jax.data.pipeline import (
    BatchReader,
    CachedReader,
    TrainOrder,
    eval_batches,
    reading_threads,
    split_rows,
    steps_per_epoch,
    train_batches,
)
from umemma_jax.data.tokenizer import Tokenizer
from umemma_jax.errors import UserError

NAMES = ("image", "audio", "table")
N = 43


@pytest.fixture(scope="module")
def examples() -> list[dict]:
    return make_examples(N, missing=True)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, examples) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("data") / "small", train=examples)


def take(iterator, n: int) -> list[dict]:
    return list(islice(iterator, n))


def rows_of(batches) -> list[list[int]]:
    return [batch["index"].tolist() for batch in batches]


def assert_equal(batches, expected) -> None:
    assert len(batches) == len(expected)
    for a, b in zip(batches, expected, strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_holds(batch: dict, examples: list[dict], names, samples: int) -> None:
    """Compares each row of a batch with what was written."""
    for i, row in enumerate(batch["index"]):
        example = examples[row] if row >= 0 else {}
        assert batch["weight"][i] == (row >= 0)
        assert batch["label"][i] == example.get("label", 0)
        np.testing.assert_array_equal(batch["present"][i], [name in example for name in names])
        np.testing.assert_array_equal(batch["inputs"]["image"][i], example.get("image", np.zeros((3, 4, 2))))
        np.testing.assert_array_equal(batch["inputs"]["table"][i], example.get("table", np.zeros(5)))
        wave = example.get("audio", np.zeros(0))[:samples]
        np.testing.assert_array_equal(batch["inputs"]["audio"]["samples"][i], np.pad(wave, (0, samples - len(wave))))
        assert batch["inputs"]["audio"]["length"][i] == len(wave)


# Content


def test_shapes_and_types(dataset: Dataset):
    batch = next(train_batches(dataset, "train", NAMES, 8, seed=0, lengths={"audio": 20}))
    assert jax.tree.map(lambda x: (x.dtype.name, x.shape), batch) == {
        "inputs": {
            "image": ("uint8", (8, 3, 4, 2)),
            "audio": {"samples": ("int16", (8, 20)), "length": ("int32", (8,))},
            "table": ("float32", (8, 5)),
        },
        "present": ("bool", (8, 3)),
        "label": ("int32", (8,)),
        "weight": ("float32", (8,)),
        "index": ("int32", (8,)),
    }


def test_training_batches_hold_what_was_written(dataset: Dataset, examples):
    names = ("table", "audio", "image")  # the columns of `present` follow the argument
    for batch in take(train_batches(dataset, "train", names, 8, 0, lengths={"audio": 20}), 12):
        assert_holds(batch, examples, names, 20)


@pytest.mark.parametrize("batch_size", [1, 8, 43, 64])
def test_evaluation_is_everything_once_in_order(dataset: Dataset, examples, batch_size: int):
    batches = list(eval_batches(dataset, "train", NAMES, batch_size))
    for batch in batches:
        assert len(batch["index"]) == batch_size
        assert_holds(batch, examples, NAMES, dataset.info.modalities["audio"].max_samples)
    index = np.concatenate([batch["index"] for batch in batches])
    np.testing.assert_array_equal(index[:N], np.arange(N))
    assert (index[N:] == -1).all()
    assert len(index) - N < batch_size


def test_only_the_modalities_asked_for_are_read(dataset: Dataset):
    batch = next(train_batches(dataset, "train", ("table",), 8, seed=0))
    assert list(batch["inputs"]) == ["table"]
    assert batch["present"].shape == (8, 1)


def test_multi_label(tmp_path: Path):
    examples = make_examples(10, multi_label=True)
    dataset = write_dataset(tmp_path / "small", train=examples)
    batches = list(eval_batches(dataset, "train", NAMES, 4))
    labels = np.concatenate([batch["label"] for batch in batches])
    assert labels.dtype == np.float32
    np.testing.assert_array_equal(labels[:10], [[k in e["label"] for k in range(3)] for e in examples])
    assert not labels[10:].any()


def test_subset_of_rows(dataset: Dataset):
    rows = np.array([40, 3, 17, 8, 22])
    assert rows_of(eval_batches(dataset, "train", NAMES, 3, rows=rows)) == [[40, 3, 17], [8, 22, -1]]
    trained = rows_of(take(train_batches(dataset, "train", NAMES, 5, 0, rows=rows), 3))
    assert [sorted(batch) for batch in trained] == [sorted(rows)] * 3


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_training_batches_have_the_weights_of_their_rows(dataset: Dataset, cache_bytes: int):
    rows, weights = np.array([40, 3, 17, 8, 22]), np.array([0.5, 0.0, 1.5, 2.0, 1.0], np.float32)
    order = dict(zip(rows.tolist(), weights.tolist(), strict=True))
    batches = train_batches(dataset, "train", NAMES, 4, 0, rows=rows, weights=weights, cache_bytes=cache_bytes)
    for batch in take(batches, 5):
        assert batch["weight"].dtype == np.float32
        assert batch["weight"].tolist() == [order[row] for row in batch["index"].tolist()]


def test_evaluation_of_no_rows_is_no_batch(dataset: Dataset):
    assert list(eval_batches(dataset, "train", NAMES, 3, rows=np.array([], int))) == []


# Order


def test_every_epoch_is_a_new_permutation_cut_into_full_batches(dataset: Dataset):
    steps = steps_per_epoch(N, 8)
    assert steps == 5
    batches = rows_of(take(train_batches(dataset, "train", NAMES, 8, seed=3), 20 * steps))
    epochs = np.array(batches).reshape(20, steps * 8)
    for epoch in epochs:
        assert len(set(epoch)) == 40  # no batch mixes epochs, so nothing twice
    assert len({tuple(epoch) for epoch in epochs}) == 20
    dropped = [frozenset(range(N)) - set(epoch) for epoch in epochs]
    assert len(set(dropped)) > 15


def test_epochs_that_fit_exactly_drop_nothing():
    order = TrainOrder(np.arange(40), 8, seed=0)
    for epoch in range(3):
        rows = np.concatenate([order[step] for step in range(epoch * 5, epoch * 5 + 5)])
        np.testing.assert_array_equal(np.sort(rows), np.arange(40))


def test_neighbouring_seeds_share_no_order():
    orders = {tuple(TrainOrder(np.arange(40), 40, seed)[e]) for seed in range(30) for e in range(30)}
    assert len(orders) == 900


def test_every_permutation_is_equally_likely():
    counts = {}
    for seed in range(120):
        order = TrainOrder(np.arange(4), 4, seed)
        for epoch in range(20):
            permutation = tuple(order[epoch])
            counts[permutation] = counts.get(permutation, 0) + 1
    assert len(counts) == 24
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_order_is_the_seeds(dataset: Dataset):
    first, again, other = (rows_of(take(train_batches(dataset, "train", NAMES, 8, seed), 7)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("threads", "prefetch"), [(None, None), (0, None), (0, 0), (1, 1), (1, 5), (4, 2), (4, 8), (9, None)]
)
def test_threads_change_nothing(dataset: Dataset, threads: int | None, prefetch: int | None):
    expected = take(train_batches(dataset, "train", NAMES, 8, 0, threads=0), 30)
    got = take(train_batches(dataset, "train", NAMES, 8, 0, threads=threads, prefetch=prefetch), 30)
    assert_equal(got, expected)
    expected = list(eval_batches(dataset, "train", NAMES, 8, threads=0))
    assert_equal(list(eval_batches(dataset, "train", NAMES, 8, threads=threads, prefetch=prefetch)), expected)


def most_present_first(present: np.ndarray) -> np.ndarray:
    return np.argsort(~present[:, 1], kind="stable")


def test_arrange_permutes_each_batch_by_what_is_present(dataset: Dataset):
    plain = take(train_batches(dataset, "train", NAMES, 8, 0), 12)
    arranged = take(train_batches(dataset, "train", NAMES, 8, 0, arrange=most_present_first), 12)
    for a, b in zip(arranged, plain, strict=True):
        order = most_present_first(b["present"])
        assert_equal([a], [jax.tree.map(lambda x, order=order: x[order], b)])
    assert any((a["index"] != b["index"]).any() for a, b in zip(arranged, plain, strict=True))


def zeroed(batch: dict, column: int, rows: np.ndarray) -> dict:
    """The batch with zeros in some rows of one modality's arrays."""
    name = NAMES[column]
    keep = ~rows
    arrays = jax.tree.map(lambda x: x * keep.reshape(-1, *[1] * (x.ndim - 1)).astype(x.dtype), batch["inputs"][name])
    return {**batch, "inputs": {**batch["inputs"], name: arrays}}


@pytest.mark.parametrize("arrange", [None, most_present_first])
@pytest.mark.parametrize("count", [1, 2])
def test_what_is_not_needed_is_not_decoded_unless_nothing_would_be_left(dataset: Dataset, arrange, count: int):
    needed = np.random.default_rng(0).random((8, 3)) < 0.4
    needed[3] = False
    whole = take(train_batches(dataset, "train", NAMES, 8, 0, arrange=arrange), 12)
    expected = []
    for batch in whole:
        nothing_left = ~(batch["present"] & needed).any(axis=1)
        assert nothing_left[3]
        for column in range(3):
            batch = zeroed(batch, column, ~needed[:, column] & ~nothing_left)
        expected.append(batch)
    parts = [
        take(
            train_batches(
                dataset, "train", NAMES, 8, 0, process_index=p, process_count=count, arrange=arrange, needed=needed
            ),
            12,
        )
        for p in range(count)
    ]
    assert_equal([jax.tree.map(lambda *xs: np.concatenate(xs), *p) for p in zip(*parts, strict=True)], expected)


def test_what_is_not_needed_is_not_looked_at(tmp_path: Path):
    """A damaged photo stops only who needs it."""
    dataset = write_photos(tmp_path / "photos", noise_files(2))
    table = np.zeros(5, np.float32).tobytes()
    dataset = replace_records(dataset, {"label": [0], "image": noise_files(1)[0][:-200], "table": table})

    def epoch(needed):
        arguments = {"lengths": {"image": 32}, "needed": np.array(needed)}
        return take(train_batches(dataset, "train", ("image", "table"), 1, 0, **arguments), 2)

    assert not any(batch["inputs"]["image"].any() for batch in epoch([[False, True]]))
    for needed in ([[True, False]], [[False, False]]):
        with pytest.raises(UserError, match="image: Premature end"):
            epoch(needed)


def test_cached_rows_are_whole_whatever_is_needed(dataset: Dataset):
    needed = np.zeros((8, 3), bool)
    needed[:, 0] = True
    whole = take(train_batches(dataset, "train", NAMES, 8, 0), 3)
    assert_equal(take(train_batches(dataset, "train", NAMES, 8, 0, needed=needed, cache_bytes=1 << 20), 3), whole)


def test_needed_of_another_shape(dataset: Dataset):
    with pytest.raises(ValueError, match=r"needed of shape \(3, 8\) instead of \(8, 3\)"):
        train_batches(dataset, "train", NAMES, 8, 0, needed=np.ones((3, 8), bool))


# Position


@pytest.mark.parametrize("threads", [0, 1, 3])
@pytest.mark.parametrize("consumed", [0, 1, 4, 5, 13])
def test_resumes_exactly(dataset: Dataset, consumed: int, threads: int):
    def start():
        return train_batches(dataset, "train", NAMES, 8, 0, threads=threads, prefetch=3)

    expected = take(start(), consumed + 8)
    iterator = start()
    take(iterator, consumed)
    state = json.loads(json.dumps(iterator.get_state()))  # while batches lie prefetched
    assert_equal(take(iterator, 8), expected[consumed:])

    fresh = start()
    fresh.set_state(state)
    assert_equal(take(fresh, 8), expected[consumed:])

    iterator.set_state(state)  # back, in an iterator that has gone on
    assert_equal(take(iterator, 8), expected[consumed:])


def test_resumes_from_an_orbax_checkpoint(dataset: Dataset, tmp_path: Path):
    def start(threads):
        return train_batches(dataset, "train", NAMES, 8, 0, threads=threads)

    iterator = start(threads=1)
    take(iterator, 7)
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(7, args=ocp.args.Composite(data=grain.checkpoint.CheckpointSave(iterator)))
        manager.wait_until_finished()
        expected = take(iterator, 9)
        fresh = start(threads=2)  # the number of threads may change
        manager.restore(7, args=ocp.args.Composite(data=grain.checkpoint.CheckpointRestore(fresh)))
    assert_equal(take(fresh, 9), expected)


# Mistakes


def test_too_few_rows(dataset: Dataset):
    message = r"43 training examples do not fill one batch of batch_size=44: set batch_size to 43"
    with pytest.raises(UserError, match=message):
        train_batches(dataset, "train", NAMES, 44, seed=0)
    with pytest.raises(UserError, match=message):
        steps_per_epoch(43, 44)


def test_what_the_dataset_lacks(dataset: Dataset):
    message = "no modality 'video' in this dataset; it has: image, audio, table"
    for batches in (eval_batches, lambda *a: train_batches(*a, seed=0)):
        with pytest.raises(UserError, match=message):
            batches(dataset, "train", ("image", "video"), 4)
        with pytest.raises(UserError, match="no split 'val'"):
            batches(dataset, "val", NAMES, 4)
    with pytest.raises(UserError, match=message):
        eval_batches(dataset, "train", NAMES, 4, lengths={"video": 3})
    with pytest.raises(UserError, match=r"modality 'image': .* takes no length"):
        eval_batches(dataset, "train", NAMES, 4, lengths={"image": 3})


@pytest.mark.parametrize("rows", [[-1], [N], [[1]], [0.5]])
def test_rows_that_do_not_exist(dataset: Dataset, rows):
    with pytest.raises(ValueError, match="rows must be integers from 0 to 42"):
        eval_batches(dataset, "train", NAMES, 1, rows=np.array(rows))


def test_batch_that_does_not_divide(dataset: Dataset):
    for arguments in ({"process_count": 3}, {"process_index": 2, "process_count": 2}):
        with pytest.raises(ValueError, match="batch of 8 on process"):
            train_batches(dataset, "train", NAMES, 8, 0, **arguments)


@pytest.mark.parametrize("threads", [0, 1])
def test_damaged_record_stops_the_iterator_in_one_line(tmp_path: Path, flip_byte, threads: int):
    dataset = write_dataset(tmp_path / "small", train=make_examples(8))
    shard = dataset.path / dataset.info.splits["train"].shards[-1].file
    flip_byte(shard, shard.stat().st_size - 8)
    with pytest.raises(UserError, match=rf"{shard}: record \d is corrupted") as caught:
        list(eval_batches(dataset, "train", NAMES, 4, threads=threads))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"label": [0], "image": b"abc"}, "record 1: image: 3 bytes instead of 24"),
        ({"label": [0], "audio": b"abc"}, "record 1: audio: an odd number of bytes"),
        ({"label": [7]}, r"record 1: label \[7\], but there are 3 classes"),
    ],
)
def test_foreign_record_that_is_not_as_described(tmp_path: Path, features: dict, message: str):
    dataset = write_dataset(tmp_path / "small", train=make_examples(2))
    path = dataset.path / dataset.info.splits["train"].shards[0].file
    dataset = replace_records(dataset, features)
    with pytest.raises(UserError, match=rf"{path}: {message}"):
        list(eval_batches(dataset, "train", NAMES, 2))


def test_negative_seed(dataset: Dataset):
    with pytest.raises(ValueError, match="seed -1 is negative"):
        train_batches(dataset, "train", NAMES, 4, seed=-1)


# Validation split


@pytest.mark.parametrize("fraction", [0.0, 0.1, 1 / 3, 0.5, 0.97])
def test_split_is_stratified(fraction: float):
    labels = np.random.default_rng(0).choice(5, 1001, p=[0.5, 0.3, 0.1, 0.095, 0.005])
    train, validation = split_rows(labels, np.ones((1001, 2), bool), fraction, seed=0)
    np.testing.assert_array_equal(np.sort(np.r_[train, validation]), np.arange(1001))
    assert len(validation) == int(1001 * fraction + 0.5)
    counts, chosen = np.bincount(labels, minlength=5), np.bincount(labels[validation], minlength=5)
    assert (np.abs(chosen - counts * fraction) < 1 + 1e-9).all()
    assert (np.diff(train) > 0).all()
    assert (np.diff(validation) > 0).all()


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_split_has_its_share_of_what_is_rare(seed: int, multi_label: bool):
    rng = np.random.default_rng(seed)
    present = rng.random((1000, 3)) < [1.0, 0.5, 0.03]
    classes = rng.choice(5, 1000)
    labels = np.eye(5, dtype=np.float32)[classes] if multi_label else classes
    _, validation = split_rows(labels, present, 0.1, seed)
    assert len(validation) == 100

    def distance(rows: np.ndarray) -> int:
        """By how many rows validation misses its share of these."""
        return abs(rows[validation].sum() - 0.1 * rows.sum())

    assert distance(present[:, 2]) < 1
    assert distance(present[:, 1]) < (2 if multi_label else 10)
    for label in range(5):
        assert distance(classes == label) < (10 if multi_label else 2)


def test_split_is_by_class_first_where_classes_are_rarer_than_any_modality():
    rng = np.random.default_rng(0)
    present, labels = rng.random((2000, 6)) < 0.3, rng.choice(10, 2000)
    _, validation = split_rows(labels, present, 0.1, seed=0)
    chosen, counts = np.bincount(labels[validation]), np.bincount(labels)
    assert (np.abs(chosen - 0.1 * counts) < 1 + 1e-9).all()
    assert (np.abs(present[validation].sum(axis=0) - 0.1 * present.sum(axis=0)) < 15).all()


def test_split_of_complete_rows_is_by_class_alone():
    labels = np.arange(300) % 7
    complete = [split_rows(labels, np.ones((300, m), bool), 0.2, seed=0)[1].tolist() for m in (0, 1, 3)]
    assert complete[0] == complete[1] == complete[2]


def test_split_is_the_seeds():
    labels = np.arange(300) % 3
    present = np.ones((300, 2), bool)
    first, again, other = (split_rows(labels, present, 0.2, seed)[1].tolist() for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_every_row_is_equally_likely_to_be_held_out():
    labels = np.array([0] * 10 + [1] * 20)
    present = np.arange(30)[:, None] % [1, 4] == 0
    counts = sum(np.bincount(split_rows(labels, present, 0.1, s)[1], minlength=30) for s in range(2000))
    assert stats.chisquare(counts).pvalue > 1e-3


def test_split_of_multi_label_rows():
    labels = np.eye(3, dtype=np.float32)[np.arange(100) % 3]
    train, validation = split_rows(labels, np.ones((100, 2), bool), 0.25, seed=0)
    np.testing.assert_array_equal(np.sort(np.r_[train, validation]), np.arange(100))
    assert len(validation) == 25


def test_split_fraction():
    for fraction in (-0.1, 1.0):
        with pytest.raises(ValueError, match=r"not in \[0, 1\)"):
            split_rows(np.zeros(3, int), np.ones((3, 2), bool), fraction, seed=0)


def test_all_modalities_are_in_the_fixture():
    assert set(NAMES) == set(MODALITIES)


# Memory


@pytest.mark.parametrize("rows", [None, np.array([9, 2, 5, 11, 3, 7])])
def test_cached_batches_are_those_read_from_disk_and_need_no_disk(tmp_path, examples, rows):
    dataset = write_dataset(tmp_path / "small", train=examples)
    arguments = {"modalities": NAMES, "batch_size": 3, "seed": 5, "rows": rows}
    read = take(train_batches(dataset, "train", **arguments), 30)
    cached = train_batches(dataset, "train", **arguments, cache_bytes=1 << 20)
    for path in tmp_path.rglob("*.tfrecord"):
        path.write_bytes(b"")
    assert_equal(take(cached, 30), read)


def test_what_is_larger_than_the_cache_is_read_from_disk(tmp_path, examples):
    dataset = write_dataset(tmp_path / "small", train=examples)
    batches = train_batches(dataset, "train", NAMES, 3, seed=5, cache_bytes=1000)
    for path in tmp_path.rglob("*.tfrecord"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="record"):
        take(batches, 30)


def test_a_cached_reader_pads_as_an_uncached_one(dataset: Dataset):
    reader = BatchReader(dataset, dataset.source("train"), NAMES)
    cached = CachedReader(reader, np.array([4, 1, 8]))
    assert_equal([cached.read(np.array([8, 4, -1]))], [reader.read(np.array([8, 4, -1]))])


# Text

TITLES = ["red shoe", None, "blue", "shoes of red", None, " ", "red red red red red red", "Blue, é"]


def write_titles(path: Path, titles: list[str | None]) -> Dataset:
    """Rows with a number each, and a title unless it is None."""
    modalities = {"table": Modality("tabular", "float32", shape=(1,)), "title": Modality("text", "utf-8")}
    with DatasetWriter(path, name="n", description="d", classes=CLASSES, modalities=modalities) as w:
        for i, title in enumerate(titles):
            w.write("train", id=str(i), label=0, table=np.array([i], np.float32), title=title)
    return open_dataset(path)


@pytest.fixture
def titled(tmp_path: Path) -> Dataset:
    return write_titles(tmp_path / "titled", TITLES)


def expected_title(tokenizer: Tokenizer, row: int, length: int) -> tuple[list[int], int]:
    if row < 0 or TITLES[row] is None:
        return [0] * length, 0
    encoded = tokenizer.encode([TITLES[row]], length)
    return encoded["tokens"][0].tolist(), encoded["length"][0]


@pytest.mark.parametrize("threads", [0, 3])
def test_texts_come_as_tokens(titled: Dataset, tokenizer: Tokenizer, threads: int):
    arguments = {"lengths": {"title": 5}, "tokenizers": {"title": tokenizer}, "threads": threads}
    train = take(train_batches(titled, "train", ("table", "title"), 3, seed=0, **arguments), 6)
    test = list(eval_batches(titled, "train", ("table", "title"), 3, **arguments))
    assert rows_of(test) == [[0, 1, 2], [3, 4, 5], [6, 7, -1]]
    for batch in train + test:
        tokens, length = batch["inputs"]["title"]["tokens"], batch["inputs"]["title"]["length"]
        assert (tokens.dtype, tokens.shape, length.dtype, length.shape) == (np.int32, (3, 5), np.int32, (3,))
        for i, row in enumerate(batch["index"]):
            assert (tokens[i].tolist(), length[i]) == expected_title(tokenizer, row, 5)
            assert batch["present"][i, 1] == (row >= 0 and TITLES[row] is not None)


def test_cached_texts_are_those_read_from_disk(titled: Dataset, tokenizer: Tokenizer):
    arguments = {
        "modalities": ("table", "title"),
        "batch_size": 3,
        "seed": 5,
        "lengths": {"title": 6},
        "tokenizers": {"title": tokenizer},
    }
    read = take(train_batches(titled, "train", **arguments), 20)
    # Per row: tokens and length, table, label, weight and index of 4 bytes an element, presence of 1.
    size = len(TITLES) * (6 * 4 + 4 + 4 + 4 + 4 + 4 + 2)
    cached = train_batches(titled, "train", **arguments, cache_bytes=size)
    uncached = train_batches(titled, "train", **arguments, cache_bytes=size - 1)
    for path in titled.path.rglob("*.tfrecord"):
        path.write_bytes(b"")
    assert_equal(take(cached, 20), read)
    with pytest.raises(UserError, match="record"):
        take(uncached, 20)


def test_text_without_what_it_needs(titled: Dataset, tokenizer: Tokenizer):
    lengths, tokenizers = {"title": 5}, {"title": tokenizer}
    for batches in (eval_batches, lambda *a, **k: train_batches(*a, seed=0, **k)):
        for given, message in (
            ({}, "text needs a tokenizer"),
            ({"lengths": lengths}, "text needs a tokenizer"),
            ({"tokenizers": tokenizers}, "text needs a length"),
            ({"lengths": {"title": 2}, "tokenizers": tokenizers}, "no room for text beside 2 special tokens"),
        ):
            with pytest.raises(UserError, match=f"{titled.path}: modality 'title': .*{message}") as caught:
                batches(titled, "train", ("title",), 2, **given)
            assert "\n" not in str(caught.value)
        with pytest.raises(UserError, match="modality 'table': tabular/float32 takes no tokenizer"):
            batches(titled, "train", ("table",), 2, tokenizers={"table": tokenizer})
        with pytest.raises(UserError, match="no modality 'plot' in this dataset; it has: table, title"):
            batches(titled, "train", ("title",), 2, lengths=lengths, tokenizers=tokenizers | {"plot": tokenizer})


def test_stored_text_that_is_no_utf8(tmp_path: Path, tokenizer: Tokenizer):
    titled = write_titles(tmp_path / "titled", ["red", "blue"])
    path = titled.path / titled.info.splits["train"].shards[0].file
    titled = replace_records(titled, {"label": [0], "title": b"red \xff"})
    with pytest.raises(UserError, match=rf"{path}: record 1: title: 'utf-8' codec can't decode byte 0xff") as caught:
        list(eval_batches(titled, "train", ("title",), 2, lengths={"title": 5}, tokenizers={"title": tokenizer}))
    assert "\n" not in str(caught.value)


# JPEG images


def write_photos(path: Path, files: list[bytes | None]) -> Dataset:
    """Images that some examples lack, and tables that none does."""
    modalities = {"image": Modality(kind="image", encoding="jpeg"), "table": MODALITIES["table"]}
    with DatasetWriter(path, name="photos", description="", classes=CLASSES, modalities=modalities) as writer:
        for i, file in enumerate(files):
            writer.write("train", id=str(i), label=0, image=file, table=np.full(5, i, np.float32))
    return open_dataset(path)


def noise_files(count: int) -> list[bytes]:
    rng = np.random.default_rng(0)
    return [jpeg.encode(rng.integers(0, 256, (30 + i, 40, 3), np.uint8)) for i in range(count)]


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
@pytest.mark.parametrize("threads", [0, 3])
def test_photos_come_as_squares(tmp_path: Path, threads: int, cache_bytes: int):
    files = [*noise_files(7), None]
    dataset = write_photos(tmp_path / "photos", files)
    arguments = {"lengths": {"image": 32}, "threads": threads, "cache_bytes": cache_bytes}
    for batch in take(train_batches(dataset, "train", ("image", "table"), 4, 0, **arguments), 4):
        assert (batch["inputs"]["image"].shape, batch["inputs"]["image"].dtype) == ((4, 32, 32, 3), np.uint8)
        for row, image, present in zip(batch["index"], batch["inputs"]["image"], batch["present"][:, 0], strict=True):
            assert present == (files[row] is not None)
            np.testing.assert_array_equal(image, jpeg.decode(files[row], 32) if present else 0)


def test_photos_without_a_side(tmp_path: Path):
    dataset = write_photos(tmp_path / "photos", noise_files(2))
    with pytest.raises(UserError, match=r"photos: modality 'image': image/jpeg needs a length: the side"):
        eval_batches(dataset, "train", ("image", "table"), 2)


def test_stored_photo_that_is_damaged(tmp_path: Path):
    dataset = write_photos(tmp_path / "photos", noise_files(2))
    path = dataset.path / dataset.info.splits["train"].shards[0].file
    dataset = replace_records(dataset, {"label": [0], "image": noise_files(1)[0][:-200]})
    with pytest.raises(UserError, match=rf"{path}: record 1: image: Premature end of JPEG file") as caught:
        list(eval_batches(dataset, "train", ("image",), 2, lengths={"image": 32}))
    assert "\n" not in str(caught.value)


# Videos


def write_clips(path: Path, videos: list[list[bytes] | None]) -> Dataset:
    """Videos that some examples lack, and tables that none does."""
    modalities = {
        "frames": Modality(kind="video", encoding="jpeg", frame_rate=1.0),
        "table": MODALITIES["table"],
    }
    with DatasetWriter(path, name="clips", description="", classes=CLASSES, modalities=modalities) as writer:
        for i, video in enumerate(videos):
            writer.write("train", id=str(i), label=0, frames=video, table=np.full(5, i, np.float32))
    return open_dataset(path)


def clips() -> list[list[bytes] | None]:
    files = noise_files(9)
    return [files[:3], files[3:4], None, files[4:6], files[6:9]]


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
@pytest.mark.parametrize("threads", [0, 3])
def test_videos_come_as_frames_and_their_number(tmp_path: Path, threads: int, cache_bytes: int):
    videos = clips()
    dataset = write_clips(tmp_path / "clips", videos)
    arguments = {"lengths": {"frames": 32}, "threads": threads, "cache_bytes": cache_bytes}
    for batch in take(train_batches(dataset, "train", ("frames", "table"), 5, 0, **arguments), 2):
        frames, counts = batch["inputs"]["frames"]["frames"], batch["inputs"]["frames"]["count"]
        assert (frames.shape, frames.dtype, counts.dtype) == ((5, 3, 32, 32, 3), np.uint8, np.int32)
        for row, pixels, count, present in zip(batch["index"], frames, counts, batch["present"][:, 0], strict=True):
            video = videos[row] or []
            assert (count, present) == (len(video), bool(video))
            np.testing.assert_array_equal(pixels[:count], [jpeg.decode(file, 32) for file in video] or pixels[:0])
            assert not pixels[count:].any()


def test_frames_that_are_not_needed_are_not_decoded(tmp_path: Path, monkeypatch):
    dataset = write_clips(tmp_path / "clips", [noise_files(2)] * 4)
    decoded = []
    decode = jpeg.decode
    monkeypatch.setattr(jpeg, "decode", lambda file, *arguments: decoded.append(file) or decode(file, *arguments))
    reader = BatchReader(dataset, dataset.source("train"), ("frames", "table"), {"frames": 32})
    needed = np.array([[True, False], [False, True], [False, True], [True, True]])
    batch = reader.read(np.arange(4), needed)
    assert len(decoded) == 4
    np.testing.assert_array_equal(batch["inputs"]["frames"]["count"], [2, 0, 0, 2])
    assert not batch["inputs"]["frames"]["frames"][1:3].any()
    assert batch["present"].all()


def test_video_of_two_lengths(tmp_path: Path):
    dataset = write_clips(tmp_path / "clips", clips())
    with pytest.raises(UserError, match=r"clips: modality 'frames' takes one length, not \(16, 32\)"):
        eval_batches(dataset, "train", ("frames", "table"), 2, lengths={"frames": (16, 32)})


def test_stored_frame_that_is_damaged(tmp_path: Path):
    dataset = write_clips(tmp_path / "clips", [noise_files(2)] * 2)
    path = dataset.path / dataset.info.splits["train"].shards[0].file
    dataset = replace_records(dataset, {"label": [0], "frames": [noise_files(1)[0], noise_files(1)[0][:-200]]})
    with pytest.raises(UserError, match=rf"{path}: record 1: frames: Premature end of JPEG file"):
        list(eval_batches(dataset, "train", ("frames",), 2, lengths={"frames": 32}))


# Threads


@pytest.fixture
def readers(monkeypatch) -> list[tuple[int, int]]:
    """Threads and prefetched batches of each iterator."""
    seen, options = [], grain.ReadOptions

    def note(num_threads: int, prefetch_buffer_size: int):
        seen.append((num_threads, prefetch_buffer_size))
        return options(num_threads=num_threads, prefetch_buffer_size=prefetch_buffer_size)

    monkeypatch.setattr(grain, "ReadOptions", note)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)), raising=False)
    return seen


def test_photos_are_decoded_by_all_cores_that_the_process_may_use(tmp_path: Path, readers):
    dataset = write_photos(tmp_path / "photos", noise_files(4))
    assert reading_threads(dataset, ("image", "table")) == 6
    eval_batches(dataset, "train", ("image", "table"), 2, lengths={"image": 8})
    train_batches(dataset, "train", ("image", "table"), 2, seed=0, lengths={"image": 8})
    assert readers == [(6, 7)] * 2


def test_what_is_stored_as_it_is_takes_one_thread(tmp_path: Path, dataset: Dataset, readers):
    assert reading_threads(write_photos(tmp_path / "photos", noise_files(4)), ("table",)) == 1
    train_batches(dataset, "train", NAMES, 8, seed=0)
    assert readers == [(1, 2)]


def test_what_is_held_in_memory_takes_one_thread(tmp_path: Path, readers):
    dataset = write_photos(tmp_path / "photos", noise_files(4))
    arguments = {"lengths": {"image": 8}, "cache_bytes": 1 << 20}
    train_batches(dataset, "train", ("image",), 2, seed=0, **arguments)
    train_batches(dataset, "train", ("image",), 2, seed=0, **arguments, threads=3)
    assert readers == [(1, 2), (3, 4)]


def test_texts_take_all_cores_up_to_a_limit(titled: Dataset, monkeypatch):
    for cores, threads in ((1, 1), (6, 6), (200, 32)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process, cores=cores: set(range(cores)), raising=False)
        assert reading_threads(titled, ("table", "title")) == threads
