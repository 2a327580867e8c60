"""The TFRecord shards of a split, on disk or behind a URL: any record, by its shard and its bytes in it."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from umemma_jax.data import tfrecord
from umemma_jax.data.info import Shard
from umemma_jax.data.remote import RemotePath
from umemma_jax.errors import UserError

_LARGEST_REQUEST = 8 << 20  # bytes; what is longer comes faster as several requests at once


class Place(NamedTuple):
    """Where a record lies: number of its shard, its own number there, its first byte and the one behind its last."""

    shard: int
    record: int
    start: int
    end: int


class LocalShards:
    """Shards on disk, read with `pread`, not through a memory map.

    So other threads run while the disk is waited for, and a file cut short under a running training is an error
    message instead of a SIGBUS.
    """

    def __init__(self, folder: Path, shards: Sequence[Shard]) -> None:
        self.paths = [folder / shard.file for shard in shards]
        self._files: list[_File | None] = [None] * len(shards)

    def offsets(self) -> list[np.ndarray]:
        """Of each shard, as `tfrecord.load_index`."""
        return [tfrecord.load_index(path) for path in self.paths]

    def read(self, places: Sequence[Place]) -> list[bytes]:
        """The payloads of records. Raises UserError where one is truncated or corrupted."""
        records = []
        for shard, record, start, end in places:
            file = self._files[shard]
            if file is None:  # for several threads perhaps; of their files the last is kept, and each holds its own
                file = self._files[shard] = _File(self.paths[shard])
            records.append(tfrecord.read_record(file.descriptor, self.paths[shard], record, start, end))
        return records

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": [None] * len(self.paths)}


class RemoteShards:
    """Shards behind a URL: records that are read together are asked for together, so that one wait serves them all."""

    def __init__(self, folder: RemotePath, shards: Sequence[Shard]) -> None:
        self.paths = [folder / shard.file for shard in shards]
        self._sizes = [shard.bytes for shard in shards]

    def offsets(self) -> list[np.ndarray]:
        """Of each shard, from its index; raises UserError if that is not what the shard's writer made."""
        indexes = [tfrecord.index_path(path) for path in self.paths]
        offsets = [tfrecord.parse_index(data) for data in RemotePath.read_all(indexes)]
        for path, index, size in zip(indexes, offsets, self._sizes, strict=True):
            if index is None or index[-1] != size:
                raise UserError(f"{path}: damaged, or of another shard: copy the folder of the dataset again")
        return offsets

    def read(self, places: Sequence[Place]) -> list[bytes]:
        """The payloads of records. Raises UserError where one is truncated or corrupted, or cannot be reached."""
        runs = _runs(places)
        parts = RemotePath.read_ranges(
            [self.paths[run[0].shard] for run in runs], [run[0].start for run in runs], [run[-1].end for run in runs]
        )
        records = []
        for run, part in zip(runs, parts, strict=True):
            for shard, record, start, end in run:
                frame = part[start - run[0].start : end - run[0].start]
                records.append(tfrecord.payload(frame, self.paths[shard], record, end - start))
        return records


def check_remote(folder: RemotePath, shards: Sequence[Shard]) -> None:
    """Raises UserError unless all shards are there at their full length, and parts of them can be had."""
    for some in (shards[:1], shards[1:]):  # a server that sends whole files instead of parts is found by one file
        ends = [shard.bytes for shard in some]
        paths = [folder / shard.file for shard in some]
        for path, data in zip(paths, RemotePath.read_ranges(paths, [end - 1 for end in ends], ends), strict=True):
            if not data:
                raise UserError(f"{path}: shorter than dataset.json says: copy the folder of the dataset again")


def _runs(places: Sequence[Place]) -> list[list[Place]]:
    """The places, in their order, with those together that follow each other in a shard."""
    runs: list[list[Place]] = []
    for place in places:
        run = runs[-1] if runs else None
        follows = run and (place.shard, place.start) == (run[-1].shard, run[-1].end)
        if follows and place.end - run[0].start <= _LARGEST_REQUEST:
            run.append(place)
        else:
            runs.append([place])
    return runs


class _File:
    """An open file descriptor that is closed with the last reference to it."""

    def __init__(self, path: Path) -> None:
        try:
            self.descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}): prepare the dataset again") from error

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)
