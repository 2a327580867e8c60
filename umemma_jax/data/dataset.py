"""A prepared dataset: a folder of TFRecord shards with indexes, `statistics.npz`, `rows.npz` and `dataset.json`.

`rows.npz` says again what the records say of labels, modalities and ids, for who needs only that; older datasets lack
it, or the ids in it. A dataset without classes has no labels: it is for predictions.
`DatasetWriter` makes one, all or nothing; `open_dataset` reads one.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import operator
import os
import re
import secrets
import shutil
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from umemma_jax.data import example, kinds, tfrecord
from umemma_jax.data.info import FORMAT_VERSION, Info, Shard, Split, from_json, to_json
from umemma_jax.data.kinds import Modality
from umemma_jax.data.remote import Location, RemotePath, is_url, locate
from umemma_jax.data.shards import check_remote
from umemma_jax.data.source import ID, ID_END, LABEL, Columns, RecordSource
from umemma_jax.data.statistics import Statistics
from umemma_jax.errors import UserError

__all__ = ["FORMAT_VERSION", "Dataset", "DatasetWriter", "Modality", "open_dataset"]

Value = np.ndarray | bytes | Sequence[bytes] | str  # whichever the modality's kind takes

TRAIN = "train"  # the split that statistics are of

_DATASET = "dataset.json"
_STATISTICS = "statistics.npz"
# `<split>/labels` int32 [N] or bool [N, K], if there are classes, `<split>/present` bool [N, modalities], and
# `<split>/ids` uint8, as in `Columns`: exact for any id, which the fixed width of NumPy's strings is not.
_ROWS = "rows.npz"
_NAME = re.compile(r"[A-Za-z0-9_]+")
_RESERVED = ("self", "split", "id", "label", "file")  # arguments of DatasetWriter.write and numpy.savez


class Dataset:
    """A prepared dataset, opened by `open_dataset`.

    Attributes:
      path: its folder.
      info: what `dataset.json` says.
    """

    def __init__(self, path: Location, info: Info) -> None:
        self.path = path
        self.info = info

    @cached_property
    def statistics(self) -> dict[str, np.ndarray]:
        """Mean value of each modality over the train split: image [H, W, C], audio [max_samples], tabular [D].

        float32, in units of the stored values; of JPEG images that of their centre squares, [64, 64, 3], of videos that
        of their frames, likewise. Modalities without one (no train split, or text) are left out.
        """
        return _load_arrays(self.path / _STATISTICS)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of `dataset.json`."""
        return hashlib.sha256((self.path / _DATASET).read_bytes()).hexdigest()

    def source(self, split: str) -> RecordSource:
        """Random access to the records of a split.

        Raises:
          UserError: there is no such split, or its shards are absent or damaged.
        """
        if split not in self.info.splits:
            raise UserError(f"{self.path}: no split {split!r}; it has: {', '.join(self.info.splits)}")
        return RecordSource(self.path, self.info.splits[split], self.info, self.columns(split))

    def columns(self, split: str) -> Columns | None:
        """Labels, presence and ids of all rows of a split, if the dataset has them apart from its records.

        Raises:
          UserError: they are not those of the records that `dataset.json` counts.
        """
        if not self._rows:
            return None
        counts = self.info.splits[split]
        labels, present = (self._rows.get(f"{split}/{name}", np.zeros(0, int)) for name in ("labels", "present"))
        classes = labels.sum(axis=0) if self.info.multi_label else np.bincount(labels, minlength=len(counts.classes))
        modalities = [counts.present[name] for name in self.info.modalities]
        ids = self._rows.get(f"{split}/ids")
        if (
            len(labels) != (counts.examples if self.info.classes else 0)
            or len(present) != counts.examples
            or not np.array_equal(classes, counts.classes)
            or not np.array_equal(present.sum(axis=0), modalities)
            or (ids is not None and ids.tobytes().count(ID_END) != counts.examples)
        ):
            raise UserError(f"{self.path / _ROWS}: not of these records: remove it, or prepare the dataset again")
        if not self.info.classes:
            labels = np.zeros(counts.examples)
        return Columns(labels.astype(np.float32 if self.info.multi_label else np.int32), present, ids)

    @cached_property
    def _rows(self) -> dict[str, np.ndarray]:
        """The content of rows.npz; {} where there is none."""
        path = self.path / _ROWS
        return _load_arrays(path) if path.exists() else {}


def open_dataset(path: str | os.PathLike | RemotePath, prep: str | None = None) -> Dataset:
    """Opens a prepared dataset.

    Args:
      path: its folder, or the URL of a copy of it: gs://, s3://, https:// and what else fsspec knows.
      prep: the command that makes it, named in errors.

    Raises:
      UserError: the folder is absent or empty, `dataset.json` is broken or of another format version, or a shard is
        missing; of a URL, also that it cannot be reached.
    """
    path = locate(path)
    remedy = f"`{prep}`" if prep else "the dataset's command, python -m data_prep.<dataset> --out=DIR"
    file = path / _DATASET
    if isinstance(path, Path):
        _check_folder(path, remedy)
    try:
        info = from_json(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: {error}: make the dataset again with {remedy}") from error
    shards = [shard for split in info.splits.values() for shard in split.shards]
    if isinstance(path, RemotePath):
        check_remote(path, shards)
        return Dataset(path, info)
    for shard in shards:
        if not (path / shard.file).is_file():
            raise UserError(f"{path / shard.file}: the shard is missing: make the dataset again with {remedy}")
    return Dataset(path, info)


def _load_arrays(path: Location) -> dict[str, np.ndarray]:
    try:
        with np.load(io.BytesIO(path.read_bytes())) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: cannot be read ({error}): prepare the dataset again") from error


def _check_folder(path: Path, remedy: str) -> None:
    """Raises UserError unless the folder holds a dataset."""
    if not path.is_dir():
        raise UserError(f"{path}: the data folder does not exist: make it with {remedy}")
    if not (path / _DATASET).is_file():
        found = "is empty" if not any(path.iterdir()) else f"has no {_DATASET}"
        raise UserError(f"{path}: the data folder {found}: make the dataset with {remedy}")


class DatasetWriter:
    """Writes a prepared dataset, all or nothing.

    Use it as a context manager. The files are written to a temporary folder beside `path`, which takes the place
    of `path` by one rename at the end; after any exception it is removed and `path` is as it was.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        name: str,
        description: str,
        classes: Sequence[str],
        modalities: Mapping[str, Modality],
        multi_label: bool = False,
        source: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        shard_bytes: int = 64 << 20,
    ) -> None:
        """Checks everything that can be checked before any work; touches no file.

        Args:
          path: folder to make.
          name: of the dataset.
          description: one or two sentences.
          classes: names of the K classes, distinct; none where the examples have no labels.
          modalities: name -> what it is; the order is that of the columns of presence masks.
          multi_label: whether an example has any number of classes instead of exactly one.
          source: for provenance: command line, seeds, counts; must go into JSON.
          overwrite: whether a dataset at `path` may be replaced.
          shard_bytes: a new shard is begun beyond this size.

        Raises:
          UserError: `path` is a URL, or in use, and `overwrite` does not allow or cannot mean to replace it.
          ValueError: the description of the dataset contradicts itself.
        """
        if is_url(path):
            raise UserError(f"{path}: datasets are written to local folders: choose one, and copy it there afterwards")
        self._path = Path(path).resolve()
        _check_description(classes, multi_label, modalities)
        _check_target(self._path, overwrite)
        json.dumps(source)  # raises TypeError now rather than after hours
        self._info = Info(name, description, tuple(classes), multi_label, dict(modalities), source=dict(source or {}))
        self._overwrite = overwrite
        self._shard_bytes = shard_bytes
        self._partial = self._path.with_name(f"{self._path.name}.partial-{secrets.token_hex(4)}")
        self._made: list[Path] = []  # folders above `path` that did not exist, innermost first
        self._codecs = {name: kinds.codec(modality) for name, modality in modalities.items()}
        self._numeric = {name: c for name, c in self._codecs.items() if isinstance(c, kinds.NumericCodec)}
        self._statistics = {name: Statistics() for name in self._numeric}
        self._measured: dict[str, dict[str, int]] = {name: {} for name in self._numeric}
        self._splits: dict[str, _SplitWriter] = {}

    def __enter__(self) -> Self:
        self._made = [folder for folder in self._path.parents if not folder.exists()]
        try:
            with _disk_errors(self._path):
                self._partial.mkdir(parents=True)
        except BaseException:
            self._clean_up()
            raise
        return self

    def write(self, split: str, *, id: str, label: int | Sequence[int] | None = None, **values: Value | None) -> None:
        """Adds one example.

        Args:
          split: its split.
          id: unique within the split, and not empty.
          label: class index; with `multi_label` a sequence of them, which may be empty; None where the dataset has no
            classes, and only there.
          **values: modality -> value; absent if left out or None.

        Raises:
          ValueError: a value, label or id is not what the dataset's description allows.
          UserError: the disk is full, or cannot be written to.
        """
        if not _NAME.fullmatch(split):
            raise ValueError(f"split {split!r}: letters, digits and underscores only")
        if not id:
            raise ValueError("an empty id, which reads as none")
        labels = self._check_labels(label)
        present = {name: value for name, value in values.items() if value is not None}
        if unknown := [name for name in present if name not in self._codecs]:
            raise ValueError(f"example {id!r}: the dataset has no modality {unknown[0]!r}")
        if not present:
            raise ValueError(f"example {id!r}: no modality is present")
        features: dict[str, kinds.Stored | Sequence[int]] = {ID: id.encode()}
        if self._info.classes:
            features[LABEL] = labels
        for name, value in present.items():
            try:
                features[name] = self._codecs[name].encode(value)
                if not features[name]:
                    raise ValueError("empty, which reads as absent: leave it out")
            except ValueError as error:
                raise ValueError(f"example {id!r}: {name}: {error}") from error

        if split not in self._splits:
            self._splits[split] = _SplitWriter(self._partial, split, self._info, self._shard_bytes)
        with _disk_errors(self._path):
            self._splits[split].write(id, labels, present, example.encode(features))
        for name, value in present.items():
            if name in self._numeric:
                self._measure(name, value)
                if split == TRAIN:
                    self._statistics[name].update(self._numeric[name].to_positions(value))

    def add_file(self, name: str, data: bytes) -> None:
        """Adds a file of the preparation's own, beside the data.

        Raises:
          UserError: the disk is full, or cannot be written to.
        """
        with _disk_errors(self._path):
            _write_file(self._partial / name, data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._clean_up()

    def _check_labels(self, label: int | Sequence[int] | None) -> list[int]:
        if label is None and self._info.classes:
            raise ValueError("no label, but the dataset has classes")
        if label is not None and not self._info.classes:
            raise ValueError(f"label {label}, but the dataset has no classes")
        if label is None:
            return []
        labels = [operator.index(x) for x in (label if self._info.multi_label else [label])]
        for x in labels:
            if not 0 <= x < len(self._info.classes):
                raise ValueError(f"label {x} is out of range: there are {len(self._info.classes)} classes")
        if len(set(labels)) < len(labels):
            raise ValueError(f"label {labels} names a class twice")
        return labels

    def _measure(self, name: str, value: Any) -> None:
        largest = self._measured[name]
        for field, size in self._numeric[name].measured(value).items():
            largest[field] = max(size, largest.get(field, 0))

    def _finish(self) -> None:
        """Completes the temporary folder and puts it in its place."""
        if not self._splits:
            raise UserError(f"{self._path}: nothing to write: the raw data gave no example")
        for name in self._info.modalities:
            if not any(split.present[name] for split in self._splits.values()):
                raise UserError(f"{self._path}: not written: no example has the modality {name!r}")
        with _disk_errors(self._path):
            splits = {name: split.close() for name, split in self._splits.items()}
            modalities = {name: self._described(name) for name in self._info.modalities}
            info = dataclasses.replace(self._info, modalities=modalities, splits=splits)
            _write_file(self._partial / _STATISTICS, _arrays_file(self._mean_values(modalities)))
            columns = {
                f"{name}/{key}": value for name, split in self._splits.items() for key, value in split.columns().items()
            }
            _write_file(self._partial / _ROWS, _arrays_file(columns))
            text = json.dumps(to_json(info), indent=2, ensure_ascii=False) + "\n"
            _write_file(self._partial / _DATASET, text.encode())
            _check_target(self._path, self._overwrite)  # it may have come to be meanwhile
            _put_in_place(self._partial, self._path)

    def _described(self, name: str) -> Modality:
        """A modality with the fields that only the data can tell."""
        modality = self._info.modalities[name]
        if name not in self._numeric:
            return modality
        statistics, fields = self._statistics[name], dict(self._measured[name])
        if not statistics.empty:
            fields |= {"mean": statistics.mean, "std": statistics.std, "missing": statistics.missing}
        return dataclasses.replace(modality, **fields)

    def _mean_values(self, modalities: Mapping[str, Modality]) -> dict[str, np.ndarray]:
        """The content of statistics.npz, given all that the dataset states."""
        means = {}
        for name, statistics in self._statistics.items():
            if not statistics.empty:
                mean = statistics.mean_value.astype(np.float32)
                means[name] = kinds.codec(modalities[name]).from_positions(mean)
        return means

    def _clean_up(self) -> None:
        for split in self._splits.values():
            split.abandon()
        shutil.rmtree(self._partial, ignore_errors=True)
        for folder in self._made:
            with contextlib.suppress(OSError):  # not empty: the dataset is in it
                folder.rmdir()


class _SplitWriter:
    """The shards of one split, and the counts that `dataset.json` gives of it."""

    def __init__(self, folder: Path, name: str, info: Info, shard_bytes: int) -> None:
        self._folder = folder
        self._name = name
        self._shard_bytes = shard_bytes
        self._ids: dict[str, None] = {}  # a set in order
        self.present = dict.fromkeys(info.modalities, 0)
        self._classes = [0] * len(info.classes)
        self._multi_label = info.multi_label
        self._labels: list[Sequence[int]] = []
        self._present: list[list[bool]] = []
        self._full: list[tfrecord.RecordWriter] = []
        self._current: tfrecord.RecordWriter | None = None

    def write(self, id: str, labels: Sequence[int], present: Collection[str], record: bytes) -> None:
        if id in self._ids:
            raise ValueError(f"example {id!r} is in split {self._name!r} already")
        if self._current is not None and self._current.bytes + len(record) > self._shard_bytes:
            self._current.close()
            self._full.append(self._current)
            self._current = None
        if self._current is None:
            self._current = tfrecord.RecordWriter(self._folder / f"{self._name}-{len(self._full):05d}")
        self._current.write(record)
        self._ids[id] = None
        for label in labels:
            self._classes[label] += 1
        for modality in present:
            self.present[modality] += 1
        self._labels.append(labels)
        self._present.append([modality in present for modality in self.present])

    def columns(self) -> dict[str, np.ndarray]:
        """What rows.npz says of the split."""
        ids = b"".join(id.encode() + ID_END for id in self._ids)
        columns = {"present": np.array(self._present), "ids": np.frombuffer(ids, np.uint8)}
        return columns | {"labels": self._label_column()} if self._classes else columns

    def _label_column(self) -> np.ndarray:
        if not self._multi_label:
            return np.array(self._labels, np.int32)[:, 0]
        labels = np.zeros((len(self._labels), len(self._classes)), bool)
        for row, chosen in zip(labels, self._labels, strict=True):
            row[chosen] = True
        return labels

    def close(self) -> Split:
        """Completes the shards and gives them their final names, which tell how many there are."""
        self._current.close()
        writers = [*self._full, self._current]
        shards = []
        for number, writer in enumerate(writers):
            path = self._folder / f"{self._name}-{number:05d}-of-{len(writers):05d}.tfrecord"
            writer.path.rename(path)
            tfrecord.index_path(writer.path).rename(tfrecord.index_path(path))
            shards.append(Shard(path.name, writer.records, writer.bytes))
        return Split(len(self._ids), tuple(shards), self.present, tuple(self._classes))

    def abandon(self) -> None:
        if self._current is not None:
            self._current.abandon()


def _check_description(classes: Sequence[str], multi_label: bool, modalities: Mapping[str, Modality]) -> None:
    if len(set(classes)) < len(classes):
        raise ValueError("classes must be distinct")
    if multi_label and not classes:
        raise ValueError("multi_label, but there are no classes")
    if not modalities:
        raise ValueError("modalities must be given")
    for name in modalities:
        if not _NAME.fullmatch(name) or name in _RESERVED:
            raise ValueError(f"modality {name!r}: letters, digits and underscores only, and none of {_RESERVED}")


def _check_target(path: Path, overwrite: bool) -> None:
    """Raises UserError unless a dataset may be put at `path`."""
    if not path.exists():
        return
    if not path.is_dir():
        raise UserError(f"{path}: is a file: choose another output folder")
    if not any(path.iterdir()):
        return
    if not overwrite:
        raise UserError(f"{path}: is not empty: choose another output folder, or replace it with --overwrite")
    if not (path / _DATASET).is_file():
        raise UserError(f"{path}: is not a prepared dataset, so it is not overwritten: choose another output folder")


def _put_in_place(partial: Path, path: Path) -> None:
    """Renames the finished folder to `path`; what was there goes only after that, or comes back."""
    if not path.exists():
        partial.rename(path)
        return
    replaced = path.with_name(f"{path.name}.replaced-{secrets.token_hex(4)}")
    path.rename(replaced)
    try:
        partial.rename(path)
    except BaseException:
        replaced.rename(path)
        raise
    try:
        shutil.rmtree(replaced)
    except OSError as error:
        raise UserError(
            f"{replaced}: the dataset that was replaced cannot be removed ({error.strerror}): remove it yourself"
        ) from error


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Turns a full or read-only disk into one line."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); nothing was kept: make room or choose another folder"
        ) from error


def _arrays_file(arrays: Mapping[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _write_file(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
