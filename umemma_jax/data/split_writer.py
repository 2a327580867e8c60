"""Writes the shards of one split of a prepared dataset."""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from umemma_jax.data import tfrecord
from umemma_jax.data.info import Info, Shard, Split
from umemma_jax.data.source import ID_END


class SplitWriter:
    """The shards of one split, and the counts that `dataset.json` gives of it.

    Attributes:
      present: examples so far in which each modality is present.
    """

    def __init__(self, folder: Path, name: str, info: Info, shard_bytes: int) -> None:
        self._folder = folder
        self._name = name
        self._shard_bytes = shard_bytes
        self._ids: dict[str, None] = {}  # a set in order
        self.present = dict.fromkeys(info.modalities, 0)
        self._classes = [0] * len(info.classes)
        self._info = info
        self._labels: list[Sequence[int] | Sequence[float]] = []
        self._weights: list[float] = []
        self._present: list[list[bool]] = []
        self._full: list[tfrecord.RecordWriter] = []
        self._current: tfrecord.RecordWriter | None = None

    def write(
        self,
        id: str,
        labels: Sequence[int] | Sequence[float],
        weights: Sequence[float],
        present: Collection[str],
        record: bytes,
    ) -> None:
        """Adds one example: its id, classes or targets, weight or [], modalities, and all of it as it is stored.

        Raises:
          ValueError: the id was there already, or only some examples have weights.
        """
        if id in self._ids:
            raise ValueError(f"example {id!r} is in split {self._name!r} already")
        if self._ids and bool(weights) != bool(self._weights):
            raise ValueError(f"example {id!r} has {'a' if weights else 'no'} weight, unlike those before it")
        if self._current is not None and self._current.bytes + len(record) > self._shard_bytes:
            self._current.close()
            self._full.append(self._current)
            self._current = None
        if self._current is None:
            self._current = tfrecord.RecordWriter(self._folder / f"{self._name}-{len(self._full):05d}")
        self._current.write(record)
        self._ids[id] = None
        for label in labels if self._classes else ():
            self._classes[label] += 1
        for modality in present:
            self.present[modality] += 1
        self._labels.append(labels)
        self._weights.extend(weights)
        self._present.append([modality in present for modality in self.present])

    def columns(self) -> dict[str, np.ndarray]:
        """What rows.npz says of the split."""
        ids = b"".join(id.encode() + ID_END for id in self._ids)
        checksums = [checksum for writer in [*self._full, self._current] for checksum in writer.checksums]
        columns = {
            "present": np.array(self._present),
            "ids": np.frombuffer(ids, np.uint8),
            "checksums": np.array(checksums, np.uint32),
        }
        if self._weights:
            columns["weights"] = np.array(self._weights, np.float32)
        return columns | {"labels": self._label_column()} if self._info.labelled else columns

    def _label_column(self) -> np.ndarray:
        if self._info.targets:
            return np.array(self._labels, np.float32)
        if not self._info.multi_label:
            return np.array(self._labels, np.int32)[:, 0]
        labels = np.zeros((len(self._labels), len(self._classes)), bool)
        for row, chosen in zip(labels, self._labels, strict=True):
            row[chosen] = True
        return labels

    def target_moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and population standard deviation of the targets, float64 [T] each, of rows by their weights."""
        values = np.array(self._labels, float)
        weights = np.array(self._weights) if any(self._weights) else np.ones(len(values))
        mean = np.average(values, axis=0, weights=weights)
        return mean, np.sqrt(np.average((values - mean) ** 2, axis=0, weights=weights))

    def close(self) -> Split:
        """Completes the shards and gives them their final names, which tell how many there are."""
        self._current.close()
        writers = [*self._full, self._current]
        shards = []
        for number, writer in enumerate(writers):
            path = self._folder / f"{self._name}-{number:05d}-of-{len(writers):05d}.tfrecord"
            writer.path.rename(path)
            tfrecord.index_path(writer.path).rename(tfrecord.index_path(path))
            last = tfrecord.stored_checksum(writer.checksums[-1])
            shards.append(Shard(path.name, writer.records, writer.bytes, writer.crc32c, last, writer.index_crc32c))
        return Split(len(self._ids), tuple(shards), self.present, tuple(self._classes))

    def abandon(self) -> None:
        """Lets go of the open file."""
        if self._current is not None:
            self._current.abandon()
