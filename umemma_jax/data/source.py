"""Random access to the records of one split, over its indexed shards."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from umemma_jax.data import bounds, example
from umemma_jax.data.info import Info, Split
from umemma_jax.data.remote import Location
from umemma_jax.data.shards import LocalShards, Place, RemoteShards
from umemma_jax.errors import UserError

ID = "id"
LABEL = "label"
WEIGHT = "sample_weight"
ID_END = b"\xff"  # behind each id in `Columns.ids`: a byte that UTF-8 never has
_PART = 256  # records read at a time where all are


@dataclass(frozen=True)
class Columns:
    """What is known of the N rows of a split without a look at its records.

    Attributes:
      labels: int32 [N], or float32 [N, K] zeros and ones with multi_label, or the float32 [N, T] targets; int32 [N]
        zeros where there are no labels.
      present: bool [N, modalities of the dataset, in its order].
      ids: uint8, the N ids in UTF-8, each with `ID_END` behind it; None of older datasets.
      checksums: uint32 [N], of the records, masked as `tfrecord.masked_crc32c`; None of older datasets.
      weights: float32 [N], of the rows in training; None where they have none.
    """

    labels: np.ndarray
    present: np.ndarray
    ids: np.ndarray | None = None
    checksums: np.ndarray | None = None
    weights: np.ndarray | None = None


class RecordSource:
    """The N records of a split as a sequence of bytes: picklable, and safe to read from several threads."""

    def __init__(self, folder: Location, split: Split, info: Info, columns: Columns | None = None) -> None:
        """Loads the indexes of the split's shards.

        Args:
          folder: of the dataset.
          split: its description.
          info: of the dataset.
          columns: of the split's rows; without, `labels`, `present` and `ids` read every record.

        Raises:
          UserError: a shard is absent, or has another length or number of records than `dataset.json` says.
        """
        self._folder = folder
        self._shards = (LocalShards if isinstance(folder, Path) else RemoteShards)(folder, split.shards)
        self._split = split
        self._info = info
        self._columns = columns
        offsets = self._shards.offsets()
        for path, shard, index in zip(self._shards.paths, split.shards, offsets, strict=True):
            if len(index) - 1 != shard.examples:
                raise UserError(
                    f"{path}: {len(index) - 1} records, but dataset.json says {shard.examples}: "
                    "prepare the dataset again"
                )
        self._starts = np.concatenate([index[:-1] for index in offsets])
        self._ends = np.concatenate([index[1:] for index in offsets])
        self._check_sizes()
        self._first_rows = np.cumsum([0] + [shard.examples for shard in split.shards[:-1]])

    def _check_sizes(self) -> None:
        try:
            bounds.check("bytes of its longest record", int((self._ends - self._starts).max()), bounds.FILE_BYTES)
        except ValueError as error:
            raise UserError(f"{self._folder}: {error}") from error

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, row: int) -> bytes:
        """The serialised Example of one row. Raises as `records`."""
        return self.records([row])[0]

    def __repr__(self) -> str:
        return f"RecordSource({self._folder}, {len(self)} records)"

    def where(self, row: int) -> str:
        """File and record number of a row, for messages."""
        (place,) = self._places([row])
        return f"{self._shards.paths[place.shard]}: record {place.record}"

    def records(self, rows: Sequence[int]) -> list[bytes]:
        """The serialised Examples of some rows; a remote store is asked for all of them at the same time.

        Raises:
          IndexError: there is no such row.
          UserError: a record is truncated or corrupted, or cannot be reached.
        """
        return self._shards.read(self._places(rows))

    def features(self, row: int) -> example.Features:
        """The parsed features of one row. Raises as `examples`."""
        return self.examples([row])[0]

    def examples(self, rows: Sequence[int]) -> list[example.Features]:
        """The parsed features of some rows. Raises as `records`, and UserError where a record is no Example."""
        parsed = []
        for row, record in zip(rows, self.records(rows), strict=True):
            try:
                parsed.append(example.decode(record))
            except ValueError as error:
                raise UserError(f"{self.where(row)}: {error}: prepare the dataset again") from error
        return parsed

    def ids(self) -> list[str]:
        """Ids of all N rows, in order. Raises as `examples`, and UserError where a record has no id."""
        if self._columns is not None and self._columns.ids is not None:
            ids = self._columns.ids.tobytes().split(ID_END)[:-1]
        else:
            ids = [example.bytes_value(features, ID) for features in self._all()]
        return [self._id(row, id) for row, id in enumerate(ids)]

    def _id(self, row: int, id: bytes | None) -> str:
        if id is None:
            raise UserError(f"{self.where(row)}: no id: prepare the dataset again")
        try:
            return id.decode()
        except UnicodeDecodeError as error:
            raise UserError(f"{self.where(row)}: its id {id[:40]} is not UTF-8: prepare the dataset again") from error

    def labels(self) -> np.ndarray:
        """Labels of all rows, as in `Columns`."""
        if self._columns is not None:
            return self._columns.labels
        return self.label_array(range(len(self)), [label_values(features) for features in self._all()])

    def weights(self) -> np.ndarray | None:
        """Of all rows in training, float32 [N]; None where they have none, and all count the same."""
        if self._columns is not None:
            return self._columns.weights
        weights = [example.float_values(features, WEIGHT) for features in self._all()]
        return np.array(weights, np.float32)[:, 0] if all(weights) else None

    def label_array(self, rows: Iterable[int], labels: Sequence[list[int] | list[float]]) -> np.ndarray:
        """The `label_values` of some rows, as in `Columns`.

        Raises:
          UserError: a class is unknown, a row has not exactly one though it should, or not a finite number for each
            target, or others than `columns` says.
        """
        found = self._label_array(rows, labels)
        if self._columns is None or self._columns.checksums is not None:  # which agree with the records as a whole
            return found
        if not np.array_equal(found, self._columns.labels[np.asarray(rows, np.int64)]):
            row = next(row for row, own in zip(rows, found, strict=True) if np.any(own != self._columns.labels[row]))
            raise UserError(f"{self.where(row)}: another label than rows.npz says: prepare the dataset again")
        return found

    def _label_array(self, rows: Iterable[int], labels: Sequence[list[int] | list[float]]) -> np.ndarray:
        if self._info.targets:
            return self._target_array(rows, labels)
        num_classes = len(self._info.classes)
        exactly_one = num_classes > 0 and not self._info.multi_label
        for row, label in zip(rows, labels, strict=True):
            if label and not 0 <= min(label) <= max(label) < num_classes:
                raise UserError(f"{self.where(row)}: label {label}, but there are {num_classes} classes")
            if len(label) != 1 and exactly_one:
                raise UserError(f"{self.where(row)}: {len(label)} labels instead of 1")
        if not num_classes:
            return np.zeros(len(labels), np.int32)
        if exactly_one:
            return np.array([label[0] for label in labels], np.int32)
        hot = np.zeros((len(labels), num_classes), np.float32)
        for row, label in zip(hot, labels, strict=True):
            row[label] = 1
        return hot

    def _target_array(self, rows: Iterable[int], labels: Sequence[list[float]]) -> np.ndarray:
        num_targets = len(self._info.targets)
        for row, label in zip(rows, labels, strict=True):
            if len(label) != num_targets or not np.isfinite(label).all():
                raise UserError(f"{self.where(row)}: {label} instead of {num_targets} finite targets")
        return np.array(labels, np.float32).reshape(-1, num_targets)

    def present(self, modalities: Sequence[str]) -> np.ndarray:
        """bool [N, M]: which rows have which modality."""
        if all(self._split.present[name] == len(self) for name in modalities):
            return np.ones((len(self), len(modalities)), bool)
        if self._columns is not None:
            return self._columns.present[:, [list(self._info.modalities).index(name) for name in modalities]]
        return np.array([[example.bytes_value(f, name) is not None for name in modalities] for f in self._all()])

    def _all(self) -> Iterator[example.Features]:
        """Of every row, in order."""
        for first in range(0, len(self), _PART):
            yield from self.examples(range(first, min(first + _PART, len(self))))

    def _places(self, rows: Sequence[int]) -> list[Place]:
        rows = np.asarray(rows, np.int64)
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows from {rows.min()} to {rows.max()} of {len(self)}")
        shards = np.searchsorted(self._first_rows, rows, side="right") - 1
        columns = (shards, rows - self._first_rows[shards], self._starts[rows], self._ends[rows])
        known = self._columns is not None and self._columns.checksums is not None
        checksums = self._columns.checksums[rows].tolist() if known else [None] * len(rows)
        return list(map(Place, *(column.tolist() for column in columns), checksums))


def label_values(features: example.Features) -> list[int] | list[float]:
    """The classes or targets of one example, as stored."""
    return example.int64_values(features, LABEL) or example.float_values(features, LABEL) or []
