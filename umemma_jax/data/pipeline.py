"""From a prepared dataset to batches of NumPy arrays, in threads ahead of the step that consumes them.

A batch is a pure function of its number: the number gives the rows (`TrainOrder`, `EvalOrder`), the rows give the
arrays (`BatchReader`) and, where there are several, their static lengths (`Buckets`). So the position of an iterator is
one integer, and grain's prefetching cannot disturb it.

A batch is {"inputs": {modality: arrays of its codec}, "present": bool [B, M], "label": int32 [B], float32 [B, K] or,
of targets in their own units, float32 [B, T], "weight": float32 [B], "index": int32 [B]}. `index` is the record's
number within the split. `label` is all zero where the dataset has no labels. Rows that only pad the last batch of an
evaluation have zeros everywhere, weight 0 and index -1.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np

from umemma_jax.data import example, kinds
from umemma_jax.data.buckets import Buckets, Lengths, largest, several
from umemma_jax.data.dataset import Dataset
from umemma_jax.data.source import RecordSource, label_values
from umemma_jax.data.tokenizer import Tokenizer
from umemma_jax.errors import UserError

Batch = dict[str, Any]
Arrange = Callable[[np.ndarray], np.ndarray]  # present bool [B, M] -> permutation int [B]

_PADDING = -1
_MOST, _WAITING = 32, 4  # threads; more do not help photos, of whose time reading and parsing, under the lock, is 2 %
_TRAIN_KEY, _SPLIT_KEY, _WINDOW_KEY = 0, 1, 2  # keep what is drawn from one seed for several purposes apart
_STARTS = 1024  # where a split may start, within the interval from one held-out row to the next


def train_batches(
    dataset: Dataset,
    split: str,
    modalities: Sequence[str],
    batch_size: int,
    seed: int,
    rows: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    lengths: Lengths | None = None,
    tokenizers: Mapping[str, Tokenizer] | None = None,
    process_index: int = 0,
    process_count: int = 1,
    arrange: Arrange | None = None,
    needed: np.ndarray | None = None,
    window: int = 1,
    threads: int | None = None,
    prefetch: int | None = None,
    cache_bytes: int = 0,
) -> grain.DatasetIterator:
    """Endless batches in an order that is shuffled globally and anew in every epoch.

    A batch never mixes two epochs: the remainder of an epoch, other rows each time, is dropped. The batches depend
    on the arguments down to `window` only; each process gets its slice of the same global batches.

    Args:
      dataset: to read from.
      split: of it.
      modalities: M of the dataset's modalities, in the order of the columns of `present`.
      batch_size: B, the global one, over all processes.
      seed: of the order; any integer from 0.
      rows: int, the record numbers to use; None for all.
      weights: of these rows, which become the batches' `weight`; None for ones.
      lengths: static length of modalities of variable length. Audio: samples S, the longest stored if left out; text:
        tokens T, always needed; JPEG images and videos: pixels of a side, always needed. Where there are several,
        ascending, a batch gets the smallest that holds its longest value.
      tokenizers: of text modalities, each of which needs one.
      process_index: which slice of B / process_count rows of each global batch to read.
      process_count: number of processes.
      arrange: permutes the rows of each global batch, given which modalities they have.
      needed: bool [B, M], by position in the global batch; modalities that are not needed there may be left undecoded,
        all zero. `present` says all the same what the row has, and one that has nothing needed is decoded in full.
      window: so many consecutive batches exchange rows such that rows of one length come together. Every epoch is still
        a permutation of all rows.
      threads: that read ahead, each a batch at a time; 0 reads when asked; None for `reading_threads`.
      prefetch: batches held ready; None for one more than threads, so that none of them waits for the consumer.
      cache_bytes: of this process: if the decoded rows, all of them, are no larger than this, they are read once and
        held in memory.

    Returns:
      A grain iterator, whose `get_state` and `set_state` are exact whatever has been prefetched.

    Raises:
      UserError: split or modality does not exist, the rows do not fill a batch, or (from the iterator) a record is
        damaged.
      ValueError: B is not divisible by the number of processes, or `needed` is of another shape.
    """
    if needed is not None and needed.shape != (batch_size, len(modalities)):
        raise ValueError(f"needed of shape {needed.shape} instead of {(batch_size, len(modalities))}")
    source = dataset.source(split)
    rows = _checked_rows(rows, len(source))
    reader = BatchReader(dataset, source, modalities, largest(lengths or {}), tokenizers)
    buckets = _buckets(dataset, source, modalities, lengths or {}, tokenizers)
    groups = _groups(buckets, rows) if buckets and window > 1 else None
    order = TrainOrder(rows, batch_size, seed, groups, window)
    automatic = reading_threads(dataset, modalities)
    if _size(reader.read(rows[:1])) * len(rows) <= cache_bytes:
        reader, automatic = CachedReader(reader, rows), 1  # which only copies
    threads = automatic if threads is None else threads
    mine = _process_slice(batch_size, process_index, process_count)
    needed = None if needed is None else needed[mine]
    present = None if arrange is None else source.present(modalities)
    weight_of_row = np.ones(len(source), np.float32)
    if weights is not None:
        weight_of_row[rows] = weights

    def load(step: int) -> Batch:
        batch_rows = order[step]
        if arrange is not None:
            batch_rows = batch_rows[arrange(present[batch_rows])]
        batch = {**reader.read(batch_rows[mine], needed), "weight": weight_of_row[batch_rows[mine]]}
        return _cut(buckets, batch, batch_rows)

    return _iterate(load, sys.maxsize, threads, prefetch)


def eval_batches(
    dataset: Dataset,
    split: str,
    modalities: Sequence[str],
    batch_size: int,
    rows: np.ndarray | None = None,
    lengths: Lengths | None = None,
    tokenizers: Mapping[str, Tokenizer] | None = None,
    process_index: int = 0,
    process_count: int = 1,
    threads: int | None = None,
    prefetch: int | None = None,
) -> grain.DatasetIterator:
    """All rows once, in order, the last batch padded; as many batches on every process.

    Arguments and errors are those of `train_batches`.
    """
    source = dataset.source(split)
    reader = BatchReader(dataset, source, modalities, largest(lengths or {}), tokenizers)
    buckets = _buckets(dataset, source, modalities, lengths or {}, tokenizers)
    order = EvalOrder(_checked_rows(rows, len(source)), batch_size)
    mine = _process_slice(batch_size, process_index, process_count)
    threads = reading_threads(dataset, modalities) if threads is None else threads

    def load(step: int) -> Batch:
        return _cut(buckets, reader.read(order[step][mine]), order[step])

    return _iterate(load, len(order), threads, prefetch)


def reading_threads(dataset: Dataset, modalities: Sequence[str]) -> int:
    """How many threads are worth having, each a batch at a time; benchmarks/readers.py measures it.

    One per core of the process, up to `_MOST`, where images or texts are decoded. One in all where values are stored as
    they are: what little there is to do holds the interpreter's lock. Remote data take `_WAITING` or more, since these
    mostly wait.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    decoding = any(kinds.decodes_in_threads(dataset.info.modalities[name]) for name in modalities)
    threads = min(cores, _MOST) if decoding else 1
    return threads if isinstance(dataset.path, Path) else max(threads, _WAITING)


def steps_per_epoch(n_rows: int, batch_size: int) -> int:
    """Full batches in `n_rows` rows. Raises UserError if there is none."""
    if n_rows < batch_size:
        raise UserError(
            f"{n_rows} training examples do not fill one batch of batch_size={batch_size}: "
            f"set batch_size to {n_rows} or less"
        )
    return n_rows // batch_size


def split_rows(labels: np.ndarray, present: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Takes a validation split out of N rows, stratified by what they have and, with one label each, by class.

    What is rarest comes first, be it a modality or, by their mean size, the classes: of n rows that have it
    n * fraction go to validation, rounded up or down, and so of the others and of all; then likewise within each of
    both. Where all rows have all, that is by class alone.

    Args:
      labels: int [N], or float [N, K] (multi-label: not stratified by class).
      present: bool [N, M].
      fraction: of the rows that go to validation, in [0, 1).
      seed: of the choice.

    Returns:
      (training rows, validation rows), each int64 and ascending.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"fraction {fraction} is not in [0, 1)")
    order = _permutation(len(labels), seed, _SPLIT_KEY)
    keys = [(column.sum(), column) for column in present.T]
    if labels.ndim == 1:
        keys.append((len(labels) / len(np.unique(labels)), labels))
    keys.sort(key=lambda counted: -counted[0])  # the last one sorts first
    order = order[np.lexsort([key[order] for _, key in keys])]
    # Every (1 / fraction)-th of the sorted rows, starting half an interval in. Where modalities are absent there are
    # groups of less than an interval, which would be left out for good: there the start is drawn.
    start = 0.5 if present.all() else (_permutation(_STARTS, seed, _SPLIT_KEY, 1)[0] + 0.5) / _STARTS
    ticks = np.floor(np.arange(len(labels) + 1) * fraction + start)
    chosen = np.diff(ticks) > 0
    return np.sort(order[~chosen]), np.sort(order[chosen])


class TrainOrder:
    """The rows of training batch 0, 1, 2, ...: each epoch a permutation, cut into full batches."""

    def __init__(
        self, rows: np.ndarray, batch_size: int, seed: int, groups: np.ndarray | None = None, window: int = 1
    ) -> None:
        """Takes groups, int of each record, to bring together within each `window` of batches.

        Raises UserError if the rows do not fill a batch.
        """
        if seed < 0:
            raise ValueError(f"seed {seed} is negative")
        self._rows = rows
        self._batch_size = batch_size
        self._seed = seed
        self._groups = groups
        self._window = window
        self._steps_per_epoch = steps_per_epoch(len(rows), batch_size)
        self._shuffled = (None, rows)  # the epoch last asked for, and its order

    def __getitem__(self, step: int) -> np.ndarray:
        """int [B]."""
        epoch, step = divmod(step, self._steps_per_epoch)
        shuffled_epoch, shuffled = self._shuffled
        if epoch != shuffled_epoch:
            shuffled = self._rows[_permutation(len(self._rows), self._seed, _TRAIN_KEY, epoch)]
            if self._groups is not None:
                shuffled = self._grouped(shuffled, epoch)
            self._shuffled = (epoch, shuffled)  # in one assignment: threads share this
        return shuffled[step * self._batch_size : (step + 1) * self._batch_size]

    def _grouped(self, shuffled: np.ndarray, epoch: int) -> np.ndarray:
        """Rows of one group together within each window; its batches in random order, and the rows of a batch too."""
        steps, size = self._steps_per_epoch, self._batch_size
        windows = np.arange(steps) // self._window
        batch_draws, row_draws = np.split(_permutation(steps + steps * size, self._seed, _WINDOW_KEY, epoch), [steps])
        shuffled = shuffled[: steps * size]
        batches = shuffled[np.lexsort((self._groups[shuffled], np.repeat(windows, size)))].reshape(steps, size)
        batches = batches[np.lexsort((batch_draws, windows))]
        return np.take_along_axis(batches, np.argsort(row_draws.reshape(steps, size), axis=1), axis=1).ravel()


class EvalOrder:
    """The rows of evaluation batch 0, 1, ...: in order, the last batch filled up with -1."""

    def __init__(self, rows: np.ndarray, batch_size: int) -> None:
        self._rows = rows
        self._batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self._rows) // self._batch_size)

    def __getitem__(self, step: int) -> np.ndarray:
        """int [B]."""
        rows = self._rows[step * self._batch_size : (step + 1) * self._batch_size]
        return np.pad(rows, (0, self._batch_size - len(rows)), constant_values=_PADDING)


class BatchReader:
    """Reads the records of B rows, and makes one batch of them."""

    def __init__(
        self,
        dataset: Dataset,
        source: RecordSource,
        modalities: Sequence[str],
        lengths: Mapping[str, int] | None = None,
        tokenizers: Mapping[str, Tokenizer] | None = None,
    ) -> None:
        """Raises UserError if the dataset has not all the modalities, or length or tokenizer do not suit one."""
        known = dataset.info.modalities
        lengths, tokenizers = lengths or {}, tokenizers or {}
        for name in (*modalities, *lengths, *tokenizers):
            if name not in known:
                raise UserError(f"{dataset.path}: no modality {name!r} in this dataset; it has: {', '.join(known)}")
        self._source = source
        self._codecs, self._read = {}, {}
        for name in modalities:
            try:
                self._codecs[name] = kinds.codec(known[name], lengths.get(name), tokenizers.get(name))
                self._codecs[name].decode([None])  # raises where a batch needs what is not given
                self._read[name] = example.bytes_values if kinds.stores_list(known[name]) else example.bytes_value
            except ValueError as error:
                raise UserError(f"{dataset.path}: modality {name!r}: {error}") from error
        self._info = dataset.info

    def read(self, rows: np.ndarray, needed: np.ndarray | None = None) -> Batch:
        """The batch of `rows`, int [B]; rows of -1 are padding, and at the end.

        `needed` is that of `train_batches`, for these rows.
        """
        real = rows[rows != _PADDING].tolist()
        examples = self._source.examples(real)
        labels = np.zeros((len(rows), *self._info.label_shape), self._info.label_dtype)
        labels[: len(real)] = self._source.label_array(real, [label_values(f) for f in examples])
        padding = [None] * (len(rows) - len(real))
        values = [[read(f, name) for f in examples] + padding for name, read in self._read.items()]
        present = np.array([[value is not None for value in column] for column in values], bool).T
        decoded = present if needed is None else _decoded(present, needed)
        inputs = {}
        for (name, codec), column, chosen in zip(self._codecs.items(), values, decoded.T, strict=True):
            inputs[name] = self._decode(
                codec, name, real, [v if c else None for v, c in zip(column, chosen, strict=True)]
            )
        return {
            "inputs": inputs,
            "present": present,
            "label": labels,
            "weight": (rows != _PADDING).astype(np.float32),
            "index": rows.astype(np.int32),
        }

    def _decode(self, codec: kinds.Codec, name: str, rows: Sequence[int], values: Sequence[kinds.Stored | None]) -> Any:
        try:
            return codec.decode(values)
        except ValueError:
            for row, value in zip(rows, values, strict=False):  # which one was it?
                try:
                    codec.decode([value])
                except ValueError as error:
                    raise UserError(f"{self._source.where(row)}: {name}: {error}: prepare the dataset again") from error
            raise


class CachedReader:
    """What a `BatchReader` reads, from memory: the given rows are read and decoded once, at the start.

    Each of several processes holds all of the rows, though it takes only its slice of a batch: every epoch permutes all
    of them, and so any row may come into any slice.
    """

    def __init__(self, reader: BatchReader, rows: np.ndarray) -> None:
        # One padding row at the end, where the position of row -1 points too.
        self._examples = reader.read(np.append(rows, _PADDING))
        self._positions = np.full(rows.max() + 2, len(rows))
        self._positions[rows] = np.arange(len(rows))

    def read(self, rows: np.ndarray, needed: np.ndarray | None = None) -> Batch:
        """The batch of `rows`, int [B], all of them among those given; rows of -1 are padding.

        All that they have is in it: nothing is left to be saved.
        """
        positions = self._positions[rows]
        return _map(lambda values: values.take(positions, axis=0), self._examples)


def _buckets(
    dataset: Dataset,
    source: RecordSource,
    modalities: Sequence[str],
    lengths: Lengths,
    tokenizers: Mapping[str, Tokenizer] | None,
) -> Buckets | None:
    """Of the modalities that have several lengths; None where there is none."""
    chosen = {name: length for name, length in several(lengths).items() if name in modalities}
    if not chosen:
        return None
    tokenizers = {name: tokenizer for name, tokenizer in (tokenizers or {}).items() if name in chosen}
    smallest = {name: length[0] for name, length in chosen.items()}
    BatchReader(dataset, source, tuple(chosen), smallest, tokenizers)  # raises where a length is too small
    reader = BatchReader(dataset, source, tuple(chosen), largest(chosen), tokenizers)
    for name, values in reader.read(np.array([_PADDING]))["inputs"].items():
        if not isinstance(values, Mapping) or "length" not in values:
            raise UserError(f"{dataset.path}: modality {name!r} takes one length, not {chosen[name]}")
    return Buckets(chosen, lambda rows: reader.read(rows)["inputs"], len(source))


def _groups(buckets: Buckets, rows: np.ndarray) -> np.ndarray:
    """int [N]: equal for rows that need the same lengths; 0 for rows not given."""
    numbers = np.concatenate([buckets.numbers(part) for part in np.array_split(rows, -(-len(rows) // 1024))])
    groups = np.zeros(rows.max() + 1, int)
    groups[rows] = np.unique(numbers, axis=0, return_inverse=True)[1].ravel()
    return groups


def _cut(buckets: Buckets | None, batch: Batch, rows: np.ndarray) -> Batch:
    return batch if buckets is None else {**batch, "inputs": buckets.cut(batch["inputs"], rows)}


def _decoded(present: np.ndarray, needed: np.ndarray) -> np.ndarray:
    """bool [B, M]: what is there and needed, or all that is there in rows of which nothing would be left."""
    both = present & needed
    return np.where(both.any(axis=1, keepdims=True), both, present)


def _map(function: Callable[[np.ndarray], Any], tree: Any) -> Any:
    """The arrays of nested dicts, each replaced by what the function makes of it."""
    if isinstance(tree, Mapping):
        return {name: _map(function, value) for name, value in tree.items()}
    return function(tree)


def _size(batch: Batch) -> int:
    """Bytes of a batch's arrays."""
    sizes: list[int] = []
    _map(lambda values: sizes.append(values.nbytes), batch)
    return sum(sizes)


def _checked_rows(rows: np.ndarray | None, size: int) -> np.ndarray:
    if rows is None:
        return np.arange(size)
    rows = np.asarray(rows)
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or np.any((rows < 0) | (rows >= size)):
        raise ValueError(f"rows must be integers from 0 to {size - 1}")
    return rows.astype(np.int64)


def _process_slice(batch_size: int, process_index: int, process_count: int) -> slice:
    if batch_size % process_count or not 0 <= process_index < process_count:
        raise ValueError(f"batch of {batch_size} on process {process_index} of {process_count}")
    size = batch_size // process_count
    return slice(process_index * size, (process_index + 1) * size)


def _iterate(load: Callable[[int], Batch], steps: int, threads: int, prefetch: int | None) -> grain.DatasetIterator:
    prefetch = threads + 1 if prefetch is None else prefetch
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
    return iter(grain.MapDataset.range(steps).map(load).to_iter_dataset(options))


def _permutation(n: int, seed: int, *key: int) -> np.ndarray:
    """int64 [n], a permutation for each (seed, key).

    The same under every NumPy: bit generators are frozen, the methods of Generator are not.
    """
    sequence = np.random.SeedSequence(seed, spawn_key=key)
    return np.argsort(np.random.PCG64(sequence).random_raw(n), kind="stable")
