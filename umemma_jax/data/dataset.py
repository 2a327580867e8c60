"""A prepared dataset: a folder of TFRecord shards with indexes, `statistics.npz`, `rows.npz` and `dataset.json`.

`rows.npz` says again what the records say of labels, modalities and ids, for who needs only that, and which records
they are; older datasets lack it, or a part of it. Labels are classes, or numbers (targets); a dataset with neither is
for predictions.
`DatasetWriter` makes one, all or nothing; `open_dataset` reads one.

`dataset.json` states the checksums of all other files. When it is opened it is verified, and of the other files the
lengths, and of shards the ends; the other files whenever they are read, and of shards each record that is read: by its
own checksums, and by that which `rows.npz` has of it. So what is read is what was written, or there is an error.
"""

import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from umemma_jax import checksums
from umemma_jax.addresses import redacted
from umemma_jax.data import bounds, documents, files, npz, shards
from umemma_jax.data.info import DATASET, FORMAT_VERSION, ROWS, STATISTICS, Info, Split, from_json
from umemma_jax.data.kinds import Modality
from umemma_jax.data.remote import Location, RemotePath, locate
from umemma_jax.data.source import ID_END, Columns, RecordSource
from umemma_jax.data.writer import TRAIN, DatasetWriter
from umemma_jax.errors import UserError

__all__ = ["FORMAT_VERSION", "TRAIN", "Dataset", "DatasetWriter", "Modality", "open_dataset"]


class Dataset:
    """A prepared dataset, opened by `open_dataset`.

    Attributes:
      path: its folder.
      info: what `dataset.json` says.
      fingerprint: SHA-256 of `dataset.json` as it was opened, and so of the whole dataset: it states the checksums of
        all other files, except in version 1.
    """

    def __init__(self, path: Location, info: Info, fingerprint: str) -> None:
        self.path = path
        self.info = info
        self.fingerprint = fingerprint

    def is_as(self, other: "Dataset") -> bool:
        """Whether all that is known of the files, without reading them, is the same as of another dataset."""
        mine, others = ([split.shards for split in dataset.info.splits.values()] for dataset in (self, other))
        return self.fingerprint == other.fingerprint and mine == others

    @cached_property
    def statistics(self) -> dict[str, np.ndarray]:
        """Mean value of each modality over the train split: image [H, W, C], audio [max_samples], tabular [D].

        float32, in units of the stored values; of JPEG images that of their centre squares, [64, 64, 3], of videos that
        of their frames, likewise. Modalities without one (no train split, or text) are left out.
        """
        arrays = self._arrays(STATISTICS)
        for name, mean in arrays.items():
            if not np.isfinite(mean).all():
                raise UserError(f"{self.path / STATISTICS}: {name} is not finite: prepare the dataset again")
        return arrays

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
        prefix = f"{split}/"
        rows = {name.removeprefix(prefix): x for name, x in self._rows.items() if name.startswith(prefix)}
        if not _fit(rows, self.info.splits[split], self.info):
            raise UserError(f"{self.path / ROWS}: not of these records: {self._remedy_of_rows}")
        labels = rows.get("labels", np.zeros(len(rows["present"])))
        return Columns(
            labels.astype(self.info.label_dtype),
            rows["present"],
            rows.get("ids"),
            rows.get("checksums"),
            rows.get("weights"),
        )

    def check_file(self, name: str) -> None:
        """Raises UserError if a file beside the shards is not as `dataset.json` states; it may be absent."""
        self._read(name, optional=True)

    @cached_property
    def _rows(self) -> dict[str, np.ndarray]:
        """The content of rows.npz; {} where there is none, as in old datasets."""
        return self._arrays(ROWS, optional=True)

    @property
    def _remedy_of_rows(self) -> str:
        return "prepare the dataset again" if self.info.files else "remove it, or prepare the dataset again"

    def _arrays(self, name: str, optional: bool = False) -> dict[str, np.ndarray]:
        data = self._read(name, optional)
        if data is None:
            return {}
        try:
            return npz.decode(io.BytesIO(data))
        except ValueError as error:
            raise UserError(f"{self.path / name}: cannot be read ({error}): prepare the dataset again") from error

    def _read(self, name: str, optional: bool) -> bytes | None:
        """A file's content, once its length and checksum are found right; None if it is absent, and may be so."""
        path, stated = self.path / name, (self.info.files or {}).get(name)
        if stated is None and optional and not _is_there(path):
            return None
        size, crc = stated or (bounds.FILE_BYTES, None)
        try:
            data = _read(path, size)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{path}: cannot be read ({reason}): prepare the dataset again") from error
        if crc not in (None, checksums.of_bytes(data)):
            raise UserError(f"{path}: does not match the checksum in {DATASET}: copy it, or prepare the dataset, again")
        return data


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
    remedy = f"`{redacted(prep)}`" if prep else "the dataset's command, python -m data_prep.<dataset> --out=DIR"
    file = path / DATASET
    try:
        if isinstance(path, Path):
            _check_folder(path, remedy)
        data = _read(file, bounds.JSON_BYTES)
        documents.check_start(data[:64], file)
        info = from_json(json.loads(data.decode(), parse_constant=_refuse))
    except RecursionError as error:
        raise UserError(f"{file}: nested too deeply: make the dataset again with {remedy}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{file}: {reason}: make the dataset again with {remedy}") from error
    if isinstance(path, Path):
        _check_files(path, info, remedy)
    info = dataclasses.replace(info, splits=shards.checked(path, info.splits))
    return Dataset(path, info, hashlib.sha256(data).hexdigest())


def _read(path: Location, bound: int) -> bytes:
    return path.read_bytes(bound) if isinstance(path, RemotePath) else files.read(path, bound)


def _is_there(path: Location) -> bool:
    """Whether there is such a file, or a symbolic link, wherever it leads."""
    return path.exists() if isinstance(path, RemotePath) else os.path.lexists(path)


def _refuse(constant: str) -> NoReturn:
    """Of NaN and the infinities, which are not JSON."""
    raise ValueError(f"{constant} is no number")


def _fit(rows: Mapping[str, np.ndarray], split: Split, info: Info) -> bool:
    """Whether the arrays of rows.npz are those of the records that `dataset.json` counts."""
    n, k = split.examples, len(info.classes)
    layouts: dict[str, Any] = {"present": (bool, (n, len(info.modalities)))}
    if info.labelled:
        stored = bool if info.multi_label else info.label_dtype
        layouts["labels"] = (stored, (n, *info.label_shape))
    if "ids" in rows or info.files:
        layouts["ids"] = (np.uint8, (rows["ids"].size,) if "ids" in rows else None)
    if info.files:
        layouts["checksums"] = (np.uint32, (n,))
    if "weights" in rows:
        layouts["weights"] = (np.float32, (n,))
    if rows.keys() != layouts.keys() or any((x.dtype, x.shape) != layouts[name] for name, x in rows.items()):
        return False
    if "weights" in rows and not (np.isfinite(rows["weights"]) & (rows["weights"] >= 0)).all():
        return False
    if info.targets and not np.isfinite(rows["labels"]).all():
        return False
    if "ids" in rows and rows["ids"].tobytes().count(ID_END) != n:
        return False
    present = [split.present[name] for name in info.modalities]
    return np.array_equal(rows["present"].sum(axis=0), present) and (
        not k or _counts(rows["labels"], k) == split.classes
    )


def _counts(labels: np.ndarray, num_classes: int) -> tuple[int, ...] | None:
    """Examples of each class; None where a label is of none."""
    if labels.ndim == 2:
        return tuple(labels.sum(axis=0).tolist())
    if not 0 <= labels.min() <= labels.max() < num_classes:
        return None
    return tuple(np.bincount(labels, minlength=num_classes).tolist())


def _check_files(path: Path, info: Info, remedy: str) -> None:
    """Raises UserError unless the files beside the shards are there, at the length that is stated."""
    for name, (length, _) in (info.files or {}).items():
        try:
            found = files.size(path / name)
        except OSError as error:
            raise UserError(f"{path / name}: {error.strerror}: make the dataset again with {remedy}") from error
        if found != length:
            raise UserError(
                f"{path / name}: has {found} bytes, but {DATASET} says {length}: make the dataset again with {remedy}"
            )


def _check_folder(path: Path, remedy: str) -> None:
    """Raises UserError unless the folder holds a dataset."""
    if not path.is_dir():
        raise UserError(f"{path}: the data folder does not exist: make it with {remedy}")
    if not _is_there(path / DATASET):
        found = "is empty" if not any(path.iterdir()) else f"has no {DATASET}"
        raise UserError(f"{path}: the data folder {found}: make the dataset with {remedy}")
