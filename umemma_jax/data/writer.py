"""Writes prepared datasets, all or nothing."""

import contextlib
import dataclasses
import json
import math
import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from umemma_jax import checksums
from umemma_jax.addresses import redacted
from umemma_jax.data import bounds, example, kinds, npz
from umemma_jax.data.info import (
    DATASET,
    ROWS,
    STATISTICS,
    Info,
    check_file_name,
    check_name,
    check_targets,
    check_title,
    to_json,
)
from umemma_jax.data.kinds import Modality
from umemma_jax.data.remote import is_url
from umemma_jax.data.source import ID, LABEL, WEIGHT
from umemma_jax.data.split_writer import SplitWriter
from umemma_jax.data.statistics import Statistics
from umemma_jax.data.targets import Target
from umemma_jax.data.unfinished import UnfinishedFolder, clear_up, put_in_place
from umemma_jax.errors import UserError

Value = np.ndarray | bytes | Sequence[bytes] | str  # whichever the modality's kind takes
Label = int | Sequence[int] | Sequence[float]

TRAIN = "train"  # the split that statistics are of

# Arguments of DatasetWriter.write and numpy.savez.
_RESERVED = ("self", "split", "id", "label", "sample_weight", "file")


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
        targets: Sequence[str] = (),
        source: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        shard_bytes: int = 64 << 20,
    ) -> None:
        """Checks everything that can be checked before any work; touches no file.

        Args:
          path: folder to make.
          name: of the dataset.
          description: one or two sentences.
          classes: names of the K classes, distinct; none where the examples have targets or no labels.
          modalities: name -> what it is; the order is that of the columns of presence masks.
          multi_label: whether an example has any number of classes instead of exactly one.
          targets: names of the T numbers that a label is, of a dataset for regression.
          source: for provenance: command line, seeds, counts; must go into JSON.
          overwrite: whether a dataset at `path` may be replaced.
          shard_bytes: a new shard is begun beyond this size.

        Raises:
          UserError: `path` is a URL, or in use, and `overwrite` does not allow or cannot mean to replace it.
          ValueError: the description of the dataset contradicts itself.
        """
        if is_url(path):
            raise UserError(
                f"{redacted(path)}: datasets are written to local folders: choose one, and copy it there afterwards"
            )
        self._path = Path(os.path.realpath(path))
        _check_description(name, classes, multi_label, targets, modalities)
        with _disk_errors(self._path):
            _check_target(self._path, overwrite)
        description = description.encode(errors="backslashreplace").decode()  # names of files can be any bytes
        json.dumps(source)  # raises TypeError now rather than after hours
        self._info = Info(
            name,
            description,
            tuple(classes),
            multi_label,
            dict(modalities),
            source=dict(source or {}),
            targets=tuple(map(Target, targets)),
        )
        self._overwrite = overwrite
        self._shard_bytes = shard_bytes
        self._partial: UnfinishedFolder | None = None
        self._made: list[Path] = []  # folders above `path` that did not exist, innermost first
        self._codecs = {name: kinds.codec(modality) for name, modality in modalities.items()}
        self._numeric = {name: c for name, c in self._codecs.items() if isinstance(c, kinds.NumericCodec)}
        self._statistics = {name: Statistics() for name in self._numeric}
        self._measured: dict[str, dict[str, int]] = {name: {} for name in self._numeric}
        self._splits: dict[str, SplitWriter] = {}
        self._files: dict[str, tuple[int, str]] = {}  # length and checksum

    def __enter__(self) -> Self:
        try:
            with _disk_errors(self._path):
                clear_up(self._path)
                _check_target(self._path, self._overwrite)
                self._made = [folder for folder in self._path.parents if not folder.exists()]
                self._partial = UnfinishedFolder(self._path)
        except BaseException:
            self._clean_up()
            raise
        return self

    def write(
        self,
        split: str,
        *,
        id: str,
        label: Label | None = None,
        sample_weight: float | None = None,
        **values: Value | None,
    ) -> None:
        """Adds one example.

        Args:
          split: its split.
          id: unique within the split, and not empty.
          label: class index; with `multi_label` a sequence of them, which may be empty; of a dataset with targets
            their values, finite as float32; None where the dataset has neither, and only there.
          sample_weight: of the example in training, finite and from 0 on; all of a split have one, or none has.
          **values: modality -> value; absent if left out or None.

        Raises:
          ValueError: a value, label or id is not what the dataset's description allows.
          UserError: the disk is full, or cannot be written to.
        """
        check_name("split", split)
        if not id:
            raise ValueError("an empty id, which reads as none")
        id = id.encode(errors="backslashreplace").decode()  # names of files can be any bytes
        labels = self._check_labels(label)
        weights = [] if sample_weight is None else [_float32(sample_weight)]
        if not all(0 <= weight < math.inf for weight in weights):
            raise ValueError(f"example {id!r}: weight {sample_weight} is not a finite number from 0 on")
        present = {name: value for name, value in values.items() if value is not None}
        if unknown := [name for name in present if name not in self._codecs]:
            raise ValueError(f"example {id!r}: the dataset has no modality {unknown[0]!r}")
        if not present:
            raise ValueError(f"example {id!r}: no modality is present")
        features: dict[str, kinds.Stored | Sequence[int] | Sequence[float]] = {ID: id.encode()}
        if weights:
            features[WEIGHT] = weights
        if self._info.labelled:
            features[LABEL] = labels
        for name, value in present.items():
            try:
                features[name] = self._codecs[name].encode(value)
                if not features[name]:
                    raise ValueError("empty, which reads as absent: leave it out")
            except ValueError as error:
                raise ValueError(f"example {id!r}: {name}: {error}") from error

        if split not in self._splits:
            self._splits[split] = SplitWriter(self._partial.path, split, self._info, self._shard_bytes)
        with _disk_errors(self._path):
            self._splits[split].write(id, labels, weights, present, example.encode(features))
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
        check_file_name(name)
        with _disk_errors(self._path):
            _write_file(self._partial.path / name, data)
        self._files[name] = (len(data), checksums.of_bytes(data))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._clean_up()

    def _check_labels(self, label: Label | None) -> list[int] | list[float]:
        if label is None and self._info.labelled:
            raise ValueError(f"no label, but the dataset has {'targets' if self._info.targets else 'classes'}")
        if label is not None and not self._info.labelled:
            raise ValueError(f"label {label}, but the dataset has no classes")
        if label is None:
            return []
        if self._info.targets:
            return self._target_values(label)
        labels = [operator.index(x) for x in (label if self._info.multi_label else [label])]
        for x in labels:
            if not 0 <= x < len(self._info.classes):
                raise ValueError(f"label {x} is out of range: there are {len(self._info.classes)} classes")
        if len(set(labels)) < len(labels):
            raise ValueError(f"label {labels} names a class twice")
        return labels

    def _target_values(self, label: Sequence[float]) -> list[float]:
        with np.errstate(over="ignore"):
            values = np.array(label, np.float32)
        if values.shape != self._info.label_shape or not np.isfinite(values).all():
            raise ValueError(f"label {label} is not a finite number for each of {len(self._info.targets)} targets")
        return values.tolist()

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
        self._check_spread()
        with _disk_errors(self._path):
            splits = {name: split.close() for name, split in self._splits.items()}
            modalities = {name: self._described(name) for name in self._info.modalities}
            self.add_file(STATISTICS, npz.encode(self._mean_values(modalities)))
            columns = {
                f"{name}/{key}": value for name, split in self._splits.items() for key, value in split.columns().items()
            }
            self.add_file(ROWS, npz.encode(columns))
            info = dataclasses.replace(
                self._info, modalities=modalities, splits=splits, files=self._files, targets=self._described_targets()
            )
            text = json.dumps(to_json(info), indent=2, ensure_ascii=False) + "\n"
            # What is no Unicode, of names of files, becomes what escapes it in JSON.
            _write_file(self._partial.path / DATASET, text.encode(errors="backslashreplace"))
            _check_target(self._path, self._overwrite)  # it may have come to be meanwhile
            put_in_place(self._partial.path, self._path)

    def _check_spread(self) -> None:
        for target in self._described_targets():
            if target.std is not None and not target.std > 0:
                raise UserError(
                    f"{self._path}: not written: target {target.name!r} is {target.mean:g} in all training examples, "
                    "there is nothing to learn: name another"
                )

    def _described(self, name: str) -> Modality:
        """A modality with the fields that only the data can tell."""
        modality = self._info.modalities[name]
        if name not in self._numeric:
            return modality
        statistics, fields = self._statistics[name], dict(self._measured[name])
        if not statistics.empty:
            fields |= {"mean": statistics.mean, "std": statistics.std, "missing": statistics.missing}
        return dataclasses.replace(modality, **fields)

    def _described_targets(self) -> tuple[Target, ...]:
        """With mean and standard deviation, where there is a train split."""
        if not self._info.targets or TRAIN not in self._splits:
            return self._info.targets
        moments = (values.tolist() for values in self._splits[TRAIN].target_moments())
        rows = zip(self._info.targets, *moments, strict=True)
        return tuple(Target(target.name, mean, std) for target, mean, std in rows)

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
        if self._partial is not None:
            self._partial.remove()
        for folder in self._made:
            with contextlib.suppress(OSError):  # not empty: the dataset is in it
                folder.rmdir()


def _check_description(
    name: str, classes: Sequence[str], multi_label: bool, targets: Sequence[str], modalities: Mapping[str, Modality]
) -> None:
    check_targets(targets)
    if classes and targets:
        raise ValueError("classes and targets: labels are of either")
    try:
        check_title(name)
        bounds.check("number of classes", len(classes), bounds.CLASSES)
    except ValueError as error:
        raise UserError(f"the dataset's {error}") from error
    if len(set(classes)) < len(classes):
        raise ValueError("classes must be distinct")
    if multi_label and not classes:
        raise ValueError("multi_label, but there are no classes")
    if not modalities:
        raise ValueError("modalities must be given")
    for modality in modalities:
        check_name("modality", modality)
        if modality in _RESERVED:
            raise ValueError(f"modality {modality!r}: none of {_RESERVED}")


def _float32(value: float) -> float:
    """The value as it is stored."""
    with np.errstate(over="ignore"):
        return float(np.float32(value))


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
    if not (path / DATASET).is_file():
        raise UserError(f"{path}: is not a prepared dataset, so it is not overwritten: choose another output folder")


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Turns a full or read-only disk into one line."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); nothing was kept: make room or choose another folder"
        ) from error


def _write_file(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
