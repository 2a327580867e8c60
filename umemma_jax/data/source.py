"""Random access to the records of one split, over its indexed shards."""

import os
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from umemma_jax.data import example, tfrecord
from umemma_jax.data.info import Info, Split
from umemma_jax.errors import UserError

LABEL = "label"


class RecordSource:
    """The N records of a split as a sequence of bytes: picklable, and safe to read from several threads.

    Records are read with `pread`, not through a memory map: other threads run while the disk is waited for, and a
    file cut short under a running training is an error message instead of a SIGBUS.
    """

    def __init__(self, folder: Path, split: Split, info: Info) -> None:
        """Loads the indexes of the split's shards.

        Raises:
          UserError: a shard is absent, truncated, or holds another number of records than `dataset.json` says.
        """
        self._paths = [folder / shard.file for shard in split.shards]
        self._split = split
        self._info = info
        offsets = [tfrecord.load_index(path) for path in self._paths]
        for path, shard, index in zip(self._paths, split.shards, offsets, strict=True):
            if len(index) - 1 != shard.examples:
                raise UserError(
                    f"{path}: {len(index) - 1} records, but dataset.json says {shard.examples}: "
                    "prepare the dataset again"
                )
        self._starts = np.concatenate([index[:-1] for index in offsets])
        self._ends = np.concatenate([index[1:] for index in offsets])
        self._first_rows = np.cumsum([0] + [shard.examples for shard in split.shards[:-1]]).tolist()
        self._files: list[_File | None] = [None] * len(self._paths)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, row: int) -> bytes:
        """The serialised Example of one row. Raises UserError where it is truncated or corrupted."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        shard = bisect_right(self._first_rows, row) - 1
        file = self._files[shard]
        if file is None:
            file = self._files[shard] = _File(self._paths[shard])
        start, end = int(self._starts[row]), int(self._ends[row])
        return tfrecord.read_record(file.descriptor, file.path, row - self._first_rows[shard], start, end)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": [None] * len(self._paths)}

    def __repr__(self) -> str:
        return f"RecordSource({self._paths[0].parent}, {len(self)} records)"

    def where(self, row: int) -> str:
        """File and record number of a row, for messages."""
        shard = bisect_right(self._first_rows, row) - 1
        return f"{self._paths[shard]}: record {row - self._first_rows[shard]}"

    def features(self, row: int) -> example.Features:
        """The parsed features of one row. Raises UserError where the record is damaged or no Example."""
        try:
            return example.decode(self[row])
        except ValueError as error:
            raise UserError(f"{self.where(row)}: {error}: prepare the dataset again") from error

    def labels(self) -> np.ndarray:
        """Labels of all rows: int32 [N], or float32 [N, K] zeros and ones with multi_label. Reads every record."""
        rows = range(len(self))
        return self.label_array(rows, [label_values(self.features(row)) for row in rows])

    def label_array(self, rows: Iterable[int], labels: Sequence[list[int]]) -> np.ndarray:
        """The `label_values` of some rows as int32 [B], or float32 [B, K] with multi_label.

        Raises:
          UserError: a class is unknown, or a row has not exactly one though it should.
        """
        num_classes = len(self._info.classes)
        for row, label in zip(rows, labels, strict=True):
            if label and not 0 <= min(label) <= max(label) < num_classes:
                raise UserError(f"{self.where(row)}: label {label}, but there are {num_classes} classes")
            if len(label) != 1 and not self._info.multi_label:
                raise UserError(f"{self.where(row)}: {len(label)} labels instead of 1")
        if not self._info.multi_label:
            return np.array([label[0] for label in labels], np.int32)
        hot = np.zeros((len(labels), num_classes), np.float32)
        for row, label in zip(hot, labels, strict=True):
            row[label] = 1
        return hot

    def present(self, modalities: Sequence[str]) -> np.ndarray:
        """bool [N, M]: which rows have which modality. Reads every record, unless all rows have them all."""
        if all(self._split.present[name] == len(self) for name in modalities):
            return np.ones((len(self), len(modalities)), bool)
        rows = (self.features(row) for row in range(len(self)))
        return np.array([[example.bytes_value(f, name) is not None for name in modalities] for f in rows])


def label_values(features: example.Features) -> list[int]:
    """The classes of one example, as stored."""
    return example.int64_values(features, LABEL) or []


class _File:
    """An open file descriptor that is closed with the last reference to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}): prepare the dataset again") from error

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)
