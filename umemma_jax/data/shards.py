"""The TFRecord shards of a split, on disk or behind a URL: any record, by its shard and its bytes in it."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from umemma_jax import checksums
from umemma_jax.data import files, tfrecord
from umemma_jax.data.info import Shard, Split
from umemma_jax.data.remote import Location, RemotePath
from umemma_jax.errors import UserError

_REMEDY = "copy the file again, or prepare the dataset again"
_LARGEST_REQUEST = 8 << 20  # bytes; what is longer comes faster as several requests at once


class Place(NamedTuple):
    """Where a record lies: number of its shard, its own number there, its first byte and the one behind its last.

    And which one it is: its masked checksum, if the dataset knows that apart from its shards.
    """

    shard: int
    record: int
    start: int
    end: int
    checksum: int | None


class LocalShards:
    """Shards on disk, read with `pread`, not through a memory map.

    So other threads run while the disk is waited for, and a file cut short under a running training is an error
    message instead of a SIGBUS.
    """

    def __init__(self, folder: Path, shards: Sequence[Shard]) -> None:
        self.paths = [folder / shard.file for shard in shards]
        self._shards = tuple(shards)
        self._files: list[_File | None] = [None] * len(shards)

    def offsets(self) -> list[np.ndarray]:
        """Of each shard, as `tfrecord.load_index`."""
        return [
            tfrecord.load_index(path, shard.bytes, shard.index_crc32c)
            for path, shard in zip(self.paths, self._shards, strict=True)
        ]

    def read(self, places: Sequence[Place]) -> list[bytes]:
        """The payloads of records. Raises UserError where one is truncated or corrupted."""
        records = []
        for shard, record, start, end, checksum in places:
            file = self._files[shard]
            if file is None:  # for several threads perhaps; of their files the last is kept, and each holds its own
                file = self._files[shard] = _File(self.paths[shard], self._shards[shard])
            records.append(tfrecord.read_record(file.descriptor, self.paths[shard], record, start, end, checksum))
        return records

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": [None] * len(self.paths)}


class RemoteShards:
    """Shards behind a URL: records that are read together are asked for together, so that one wait serves them all."""

    def __init__(self, folder: RemotePath, shards: Sequence[Shard]) -> None:
        self.paths = [folder / shard.file for shard in shards]
        self._shards = tuple(shards)

    def offsets(self) -> list[np.ndarray]:
        """Of each shard, from its index; raises UserError if that is not what the shard's writer made."""
        indexes = [tfrecord.index_path(path) for path in self.paths]
        contents = RemotePath.read_all(indexes, [tfrecord.index_size(shard.examples) for shard in self._shards])
        offsets = list(map(tfrecord.parse_index, contents))
        for path, content, index, shard in zip(indexes, contents, offsets, self._shards, strict=True):
            stated = shard.index_crc32c in (None, checksums.of_bytes(content))
            if index is None or index[-1] != shard.bytes or not stated:
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
            for shard, record, start, end, checksum in run:
                frame = part[start - run[0].start : end - run[0].start]
                records.append(tfrecord.payload(frame, self.paths[shard], record, end - start, checksum))
        return records


def checked(folder: Location, splits: Mapping[str, Split]) -> dict[str, Split]:
    """Looks at the length and the end of each shard, and so finds one that is cut, or another's copy.

    Returns:
      The splits, with the ends of their shards, which dataset.json does not state in version 1.

    Raises:
      UserError: a shard is not there or not as `dataset.json` says, or, in version 1, ends as another one of its split.
    """
    found = {}
    for name, split in splits.items():
        ends = (_local_ends if isinstance(folder, Path) else _remote_ends)(folder, split.shards)
        seen: dict[str, str] = {}
        for shard, end in zip(split.shards, ends, strict=True):
            if shard.last_crc32c not in (None, end):
                raise UserError(f"{folder / shard.file}: does not end as dataset.json says: {_REMEDY}")
            if shard.last_crc32c is None and end in seen:
                raise UserError(f"{folder / shard.file}: ends as {seen[end]} does, of which it seems a copy: {_REMEDY}")
            seen[end] = shard.file
        pairs = zip(split.shards, ends, strict=True)
        found[name] = replace(split, shards=tuple(replace(shard, last_crc32c=end) for shard, end in pairs))
    return found


def _local_ends(folder: Path, shards: Sequence[Shard]) -> list[str]:
    ends = []
    for shard in shards:
        file = _File(folder / shard.file, shard)
        ends.append(tfrecord.last_checksum(file.descriptor, shard.bytes))
    return ends


def _remote_ends(folder: RemotePath, shards: Sequence[Shard]) -> list[str]:
    found = []
    for some in (shards[:1], shards[1:]):  # a server that sends whole files instead of parts is found by one file
        paths, sizes = [folder / shard.file for shard in some], [shard.bytes for shard in some]
        ends = RemotePath.read_ranges(paths, [size - tfrecord.CHECKSUM for size in sizes], sizes)
        for path, data in zip(paths, ends, strict=True):
            if len(data) < tfrecord.CHECKSUM:
                raise UserError(f"{path}: shorter than dataset.json says: copy the folder of the dataset again")
            found.append(data.hex())
    return found


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

    def __init__(self, path: Path, shard: Shard) -> None:
        """Raises UserError if it cannot be read, or has another length than it should."""
        try:
            self.descriptor = files.opened(path)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}): {_REMEDY}") from error
        if (size := os.fstat(self.descriptor).st_size) != shard.bytes:
            raise UserError(f"{path}: has {size} bytes, but dataset.json says {shard.bytes}: {_REMEDY}")

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # at the interpreter's end `os` may be gone
        if hasattr(self, "descriptor"):
            close(self.descriptor)
