"""Length buckets: short texts come in short batches, and nothing else changes."""

import json
from itertools import islice
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.data.conftest import make_examples, write_dataset
from tests.data.test_pipeline import noise_files, write_photos, write_titles
from umemma_jax.data.buckets import largest, several
from umemma_jax.data.dataset import Dataset
from umemma_jax.data.pipeline import TrainOrder, eval_batches, train_batches
from umemma_jax.data.tokenizer import Tokenizer
from umemma_jax.errors import UserError

N, BATCH = 200, 8
LENGTHS = (4, 8, 16)
NAMES = ("table", "title")


@pytest.fixture(scope="module")
def words() -> np.ndarray:
    """Words of each title: mostly few, now and then more than the largest length holds; -1: no title."""
    words = np.random.default_rng(0).geometric(0.3, N)
    words[::17] = -1
    words[5] = 40
    return words


@pytest.fixture(scope="module")
def titled(tmp_path_factory, words: np.ndarray) -> Dataset:
    titles = [None if count < 0 else "red " * count for count in words]
    return write_titles(tmp_path_factory.mktemp("data") / "titled", titles)


def arguments(tokenizer: Tokenizer, lengths=LENGTHS) -> dict:
    return {"lengths": {"title": lengths}, "tokenizers": {"title": tokenizer}}


def train(titled: Dataset, tokenizer: Tokenizer, n: int, lengths=LENGTHS, **options) -> list[dict]:
    return list(islice(train_batches(titled, "train", NAMES, BATCH, 0, **arguments(tokenizer, lengths), **options), n))


def needed_length(words: np.ndarray, rows: np.ndarray) -> int:
    """The smallest length that holds the longest title of the rows and its two special tokens."""
    longest = min(max(words[row] + 2 if row >= 0 and words[row] >= 0 else 0 for row in rows), LENGTHS[-1])
    return min(length for length in LENGTHS if length >= longest)


def assert_cut(batches: list[dict], whole: list[dict], words: np.ndarray) -> None:
    """The batches are those read at the largest length, without the end that is padding in all rows."""
    for batch, full in zip(batches, whole, strict=True):
        length = needed_length(words, batch["index"])
        assert full["inputs"]["title"]["length"].max() <= length
        full["inputs"]["title"]["tokens"] = full["inputs"]["title"]["tokens"][:, :length]
        jax.tree.map(np.testing.assert_array_equal, batch, full)


@pytest.mark.parametrize("options", [{}, {"threads": 3}, {"cache_bytes": 1 << 20}])
def test_a_batch_has_the_smallest_length_that_holds_its_longest_text(titled, tokenizer, words, options: dict):
    batches = train(titled, tokenizer, 60, **options)
    assert_cut(batches, train(titled, tokenizer, 60, LENGTHS[-1]), words)
    assert {batch["inputs"]["title"]["tokens"].shape[1] for batch in batches} == {8, 16}
    whole = eval_batches(titled, "train", NAMES, 3, **arguments(tokenizer, LENGTHS[-1]))
    batches = list(eval_batches(titled, "train", NAMES, 3, **arguments(tokenizer)))
    assert_cut(batches, list(whole), words)
    assert {batch["inputs"]["title"]["tokens"].shape[1] for batch in batches} == set(LENGTHS)


def test_processes_agree_on_the_length(titled, tokenizer):
    whole = train(titled, tokenizer, 30, window=4)
    parts = [train(titled, tokenizer, 30, window=4, process_index=p, process_count=4) for p in range(4)]
    joined = [jax.tree.map(lambda *xs: np.concatenate(xs), *p) for p in zip(*parts, strict=True)]
    jax.tree.map(np.testing.assert_array_equal, joined, whole)


def test_rows_of_one_length_come_together_within_a_window(titled, tokenizer, words):
    steps = N // BATCH
    plain, windowed = train(titled, tokenizer, steps), train(titled, tokenizer, steps, window=5)
    for start in range(0, steps, 5):
        rows = [np.concatenate([b["index"] for b in batches[start : start + 5]]) for batches in (plain, windowed)]
        np.testing.assert_array_equal(*map(np.sort, rows))
    tokens = [sum(b["inputs"]["title"]["tokens"].size for b in batches) for batches in (plain, windowed)]
    assert tokens[1] < 0.8 * tokens[0] < 0.8 * N * LENGTHS[-1]
    for batch in windowed:
        assert batch["inputs"]["title"]["tokens"].shape[1] == needed_length(words, batch["index"])


def test_windows_resume_exactly(titled, tokenizer):
    def start(threads):
        return train_batches(titled, "train", NAMES, BATCH, 3, **arguments(tokenizer), window=6, threads=threads)

    iterator = start(2)
    expected = list(islice(iterator, 60))[33:]
    iterator = start(0)
    list(islice(iterator, 33))
    state = json.loads(json.dumps(iterator.get_state()))
    fresh = start(1)
    fresh.set_state(state)
    jax.tree.map(np.testing.assert_array_equal, list(islice(fresh, 27)), expected)


def test_order_within_and_of_the_batches_of_a_window_is_random():
    groups = np.arange(96) % 2
    firsts, positions = [], []
    for epoch in range(300):
        order = TrainOrder(np.arange(96), 16, 0, groups, window=3)
        batches = np.array([order[step] for step in range(6 * epoch, 6 * epoch + 6)])
        np.testing.assert_array_equal(np.sort(batches.ravel()), np.arange(96))
        mixed = groups[batches].mean(axis=1)
        assert np.isin(mixed, (0, 1)).sum() >= 4  # one batch of each window has both
        firsts.append(mixed[0])
        positions += [groups[batch] for batch in batches if 0 < groups[batch].mean() < 1]
    assert 0.4 < np.mean(firsts) < 0.6
    assert np.abs(np.mean(positions, axis=0) - np.mean(positions)).max() < 0.1


def test_a_window_is_of_no_use_without_several_lengths(titled, tokenizer):
    a, b = (train(titled, tokenizer, 30, 16, window=window) for window in (1, 5))
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_modalities_that_are_not_read_need_no_length(titled, tokenizer):
    batch = next(eval_batches(titled, "train", ("table",), 4, **arguments(tokenizer)))
    assert list(batch["inputs"]) == ["table"]


def test_lengths_as_given():
    lengths = {"a": 5, "b": (2, 7)}
    assert largest(lengths) == {"a": 5, "b": 7}
    assert several(lengths) == {"b": (2, 7)}
    for wrong in ((), (0, 3), (3, 3), (4, 3)):
        with pytest.raises(ValueError, match=r"modality 'b': lengths .* are not positive and ascending"):
            several({"b": wrong})


def test_what_takes_no_buckets(titled, tokenizer, tmp_path: Path):
    with pytest.raises(UserError, match="modality 'title': a length of 2 tokens has no room"):
        train(titled, tokenizer, 1, (2, 8))
    small = write_dataset(tmp_path / "small", train=make_examples(8))
    with pytest.raises(UserError, match="modality 'table': tabular/float32 takes no length"):
        eval_batches(small, "train", ("table",), 4, lengths={"table": (2, 8)})
    photos = write_photos(tmp_path / "photos", noise_files(2))
    with pytest.raises(UserError, match=r"modality 'image' takes one length, not \(16, 32\)"):
        eval_batches(photos, "train", ("image",), 2, lengths={"image": (16, 32)})
    audio = next(eval_batches(small, "train", ("audio",), 1, lengths={"audio": (2, 50)}))
    assert audio["inputs"]["audio"]["samples"].shape[1] in (2, 50)
