"""Several processes read slices that, one after another, are the batches of one process, however data are sharded."""

from itertools import islice
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.data.conftest import CLASSES, MODALITIES
from umemma_jax.data.dataset import Dataset, DatasetWriter, Modality, open_dataset
from umemma_jax.data.pipeline import CachedReader, eval_batches, train_batches

N, BATCH = 61, 12
NAMES = ("table", "title", "image")
LENGTHS = {"title": (4, 8, 16)}
SHARDS = {1: 1 << 20, 3: 2900, 10: 890}  # how many: for how many bytes in each


def write(path: Path, shards: int) -> Dataset:
    """Some titles and images are absent."""
    rng = np.random.default_rng(0)
    modalities = {**MODALITIES, "title": Modality("text", "utf-8")}
    del modalities["audio"]
    with DatasetWriter(
        path, name="titled", description="", classes=CLASSES, modalities=modalities, shard_bytes=SHARDS[shards]
    ) as writer:
        for i in range(N):
            values = {
                "table": rng.normal(size=5).astype(np.float32),
                "title": "red " * rng.geometric(0.3) if i % 5 else None,
                "image": rng.integers(0, 256, (3, 4, 2), np.uint8) if i % 3 else None,
            }
            writer.write("train", id=str(i), label=i % 3, **values)
    dataset = open_dataset(path)
    assert len(dataset.info.splits["train"].shards) == shards
    return dataset


@pytest.fixture(scope="module")
def datasets(tmp_path_factory) -> dict[int, Dataset]:
    """The same examples in fewer shards than processes, in as many, and in more."""
    return {shards: write(tmp_path_factory.mktemp("data") / "titled", shards) for shards in SHARDS}


@pytest.fixture(params=SHARDS, ids=lambda shards: f"{shards} shards")
def dataset(request, datasets) -> Dataset:
    return datasets[request.param]


def joined(parts: list[list[dict]]) -> list[dict]:
    """Each step's slices put together in the order of the processes."""
    return [jax.tree.map(lambda *slices: np.concatenate(slices), *step) for step in zip(*parts, strict=True)]


def assert_equal(batches: list[dict], expected: list[dict]) -> None:
    assert len(batches) == len(expected) > 0
    for a, b in zip(batches, expected, strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)


def images_first(present: np.ndarray) -> np.ndarray:
    return np.argsort(~present[:, 2], kind="stable")


OPTIONS = {
    "plain": {},
    "threads": {"threads": 3},
    "arranged": {"arrange": images_first},
    "needed": {"needed": np.random.default_rng(1).random((BATCH, 3)) < 0.5},
    "windows": {"window": 4},
    "rows": {"rows": np.arange(0, N, 2)},
    "cached": {"cache_bytes": 1 << 20, "arrange": images_first, "window": 4},
}


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_training(dataset: Dataset, tokenizer, options: dict, count: int):
    def batches(**processes) -> list[dict]:
        arguments = {"lengths": LENGTHS, "tokenizers": {"title": tokenizer}, **options, **processes}
        return list(islice(train_batches(dataset, "train", NAMES, BATCH, 3, **arguments), 11))  # into a third epoch

    whole = batches()
    assert all(len(batch["index"]) == BATCH for batch in whole)
    assert_equal(joined([batches(process_index=i, process_count=count) for i in range(count)]), whole)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_evaluation(dataset: Dataset, tokenizer, count: int):
    def batches(**processes) -> list[dict]:
        arguments = {"lengths": LENGTHS, "tokenizers": {"title": tokenizer}, **processes}
        return list(eval_batches(dataset, "train", NAMES, BATCH, **arguments))

    whole = batches()
    np.testing.assert_array_equal(np.concatenate([batch["index"] for batch in whole])[:N], np.arange(N))
    parts = [batches(process_index=i, process_count=count) for i in range(count)]
    assert parts[-1][-1]["weight"].any() == (count == 1)  # one may have nothing left, but has the batch
    assert_equal(joined(parts), whole)


def test_the_number_of_shards_changes_nothing(datasets, tokenizer):
    arguments = {"lengths": LENGTHS, "tokenizers": {"title": tokenizer}, "window": 4}
    one, *others = (
        list(islice(train_batches(dataset, "train", NAMES, BATCH, 3, **arguments), 11)) for dataset in datasets.values()
    )
    for batches in others:
        assert_equal(batches, one)


def test_every_process_caches_all_rows(dataset: Dataset, tokenizer, monkeypatch):
    held = []
    monkeypatch.setattr(
        "umemma_jax.data.pipeline.CachedReader",
        lambda reader, rows: held.append(rows.tolist()) or CachedReader(reader, rows),
    )
    for index in range(2):
        arguments = {"lengths": LENGTHS, "tokenizers": {"title": tokenizer}, "cache_bytes": 1 << 20}
        next(train_batches(dataset, "train", NAMES, BATCH, 3, process_index=index, process_count=2, **arguments))
    assert held == [list(range(N))] * 2
