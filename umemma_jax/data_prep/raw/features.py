"""Features of tensorflow-datasets as modalities and labels; the one table, by kind, of what a feature becomes."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tensorflow_datasets as tfds

from umemma_jax.data.dataset import Modality
from umemma_jax.data_prep.build.rows import MISSING_MARKS, is_missing
from umemma_jax.data_prep.build.tasks import Unreadable
from umemma_jax.data_prep.raw.photos import ToJpeg
from umemma_jax.errors import UserError

_FULL_SCALE = 32768


@dataclass(frozen=True)
class Record:
    """One record: where it is, and its content, in which images are still encoded."""

    directory: str
    split: str
    row: int
    content: Mapping[str, Any]

    def __getitem__(self, feature: str) -> Any:
        """The value of a feature, `outer/inner` if nested."""
        value = self.content
        for name in feature.split("/"):
            value = value[name]
        return value


@functools.cache  # opened once in each process
def open_source(directory: str, split: str) -> Sequence[Mapping[str, Any]]:
    """Random access to the records of a split of the dataset in a folder; images are left encoded."""
    builder = tfds.builder_from_directory(directory)
    return builder.as_data_source(split=split, decoders=_without_images(builder.info.features))


def read_record(directory: str, split: str, row: int) -> Record:
    """Reads a record."""
    return Record(directory, split, row, open_source(directory, split)[row])


def feature_at(features: tfds.features.FeaturesDict, name: str) -> tfds.features.FeatureConnector:
    """The feature of a name, `outer/inner` if nested. Raises UserError if there is none."""
    feature: Any = features
    for part in name.split("/"):
        if not isinstance(feature, tfds.features.FeaturesDict) or part not in feature:
            raise UserError(f"the dataset has no feature {name!r}; it has: {', '.join(sorted(_names(features)))}")
        feature = feature[part]
    return feature


def _names(features: tfds.features.FeaturesDict, prefix: str = "") -> list[str]:
    names = []
    for name, feature in features.items():
        nested = isinstance(feature, tfds.features.FeaturesDict)
        names += _names(feature, f"{prefix}{name}/") if nested else [prefix + name]
    return names


def _without_images(features: tfds.features.FeaturesDict) -> dict[str, Any]:
    """Decoders that leave images as they are stored."""
    decoders = {}
    for name, feature in features.items():
        if isinstance(feature, tfds.features.Image):
            decoders[name] = tfds.decode.SkipDecoding()
        elif isinstance(feature, tfds.features.FeaturesDict) and (nested := _without_images(feature)):
            decoders[name] = nested
    return decoders


# --- modalities -------------------------------------------------------------------------------------------------------


class FeatureConversion(Protocol):
    """Between a feature's value and the bytes that are stored."""

    def convert(self, value: Any) -> bytes:
        """Raises Unreadable."""

    def value(self, data: bytes) -> Any:
        """The bytes as what DatasetWriter.write takes."""


@dataclass(frozen=True)
class FeatureTask:
    """A feature of a record, to be read and converted in another process."""

    conversion: FeatureConversion
    directory: str
    split: str
    row: int
    feature: str

    def __call__(self) -> bytes:
        """The converted value."""
        return self.conversion.convert(read_record(self.directory, self.split, self.row)[self.feature])

    def __str__(self) -> str:
        return f"{self.feature} of record {self.row} of {self.split} in {self.directory}"

    def fingerprint(self) -> str:
        """The folder's name tells the dataset's version."""
        return repr(self)

    def value(self, data: bytes) -> Any:
        """As the conversion says."""
        return self.conversion.value(data)


@dataclass(frozen=True)
class _ToPcm:
    """Samples, integers of 16 bits or fractions of full scale, as little-endian int16."""

    def convert(self, samples: np.ndarray) -> bytes:
        samples = np.asarray(samples)
        if samples.dtype.kind == "f":
            samples = np.rint(samples.astype(np.float64) * _FULL_SCALE).clip(-_FULL_SCALE, _FULL_SCALE - 1)
        if not np.all(np.isfinite(samples)) or samples.min() < -_FULL_SCALE or samples.max() >= _FULL_SCALE:
            raise Unreadable("samples beyond 16 bits")
        return samples.astype("<i2").tobytes()

    def value(self, data: bytes) -> np.ndarray:
        return np.frombuffer(data, "<i2")


class Reader(Protocol):
    """A modality's values, record by record."""

    modality: Modality

    def take(self, record: Record) -> FeatureTask | str | np.ndarray | None:
        """The value, or how it is read; None where it is missing."""


class _InOtherProcesses:
    """A feature whose values are converted."""

    def __init__(self, columns: Sequence[str], modality: Modality, conversion: FeatureConversion) -> None:
        (self._feature,) = columns
        self._conversion = conversion
        self.modality = modality

    def take(self, record: Record) -> FeatureTask | None:
        if not len(record[self._feature]):
            return None
        return FeatureTask(self._conversion, record.directory, record.split, record.row, self._feature)


class _Images(_InOtherProcesses):
    def __init__(
        self, features: tfds.features.FeaturesDict, columns: Sequence[str], size: int, rate: int, max_pixels: int | None
    ) -> None:
        _check_is("image", tfds.features.Image, features, columns)
        super().__init__(columns, Modality(kind="image", encoding="jpeg"), ToJpeg(size, max_pixels))


class _Sounds(_InOtherProcesses):
    def __init__(
        self, features: tfds.features.FeaturesDict, columns: Sequence[str], size: int, rate: int, max_pixels: int | None
    ) -> None:
        _check_is("audio", tfds.features.Tensor, features, columns)
        if len(feature_at(features, columns[0]).shape) != 1:
            raise UserError(f"--audio: feature {columns[0]!r} is not a sequence of samples: choose another one")
        super().__init__(columns, Modality(kind="audio", encoding="pcm_s16le", sample_rate=rate), _ToPcm())


class _Texts:
    def __init__(
        self, features: tfds.features.FeaturesDict, columns: Sequence[str], size: int, rate: int, max_pixels: int | None
    ) -> None:
        _check_is("text", tfds.features.Text, features, columns)
        (self._feature,) = columns
        self.modality = Modality(kind="text", encoding="utf-8")

    def take(self, record: Record) -> str | None:
        return _decoded(record[self._feature]).strip() or None


class _Vectors:
    def __init__(
        self, features: tfds.features.FeaturesDict, columns: Sequence[str], size: int, rate: int, max_pixels: int | None
    ) -> None:
        _check_is("tabular", tfds.features.Tensor, features, columns)
        self._features = columns
        shapes = [feature_at(features, column).shape for column in columns]
        if any(side is None for shape in shapes for side in shape):
            raise UserError(f"--tabular: {', '.join(columns)}: not of a fixed size: choose other features")
        size = sum(map(math.prod, shapes))
        names = None if any(shapes) else tuple(columns)
        self.modality = Modality(kind="tabular", encoding="float32", shape=(size,), columns=names)

    def take(self, record: Record) -> np.ndarray | None:
        vectors = {name: np.ravel(record[name]).astype(np.float32) for name in self._features}
        for name, vector in vectors.items():
            if np.any(np.isinf(vector)):
                raise UserError(f"record {record.row} of {record.split}: feature {name!r} is infinite: leave it out")
        vector = np.concatenate(list(vectors.values()))
        return None if np.all(np.isnan(vector)) else vector


KINDS = {"image": _Images, "audio": _Sounds, "text": _Texts, "tabular": _Vectors}


def _check_is(kind: str, wanted: type, features: tfds.features.FeaturesDict, columns: Sequence[str]) -> None:
    for column in columns:
        found = feature_at(features, column)
        if not isinstance(found, wanted):
            raise UserError(f"--{kind}: feature {column!r} is {type(found).__name__}, not {wanted.__name__}")


def _is_whole_number(feature: tfds.features.FeatureConnector) -> bool:
    return feature.shape == () and np.dtype(feature.np_dtype).kind in "iub"


def _decoded(text: bytes | str) -> str:
    return text.decode(errors="replace") if isinstance(text, bytes) else str(text)


# --- labels -----------------------------------------------------------------------------------------------------------


class ClassNames:
    """Class names from the feature that is the label.

    Attributes:
      multi_label: whether the feature is a sequence.
      known: all class names in their order, where the feature tells them, else None.
    """

    def __init__(self, features: tfds.features.FeaturesDict, name: str) -> None:
        self._name = name
        feature = feature_at(features, name)
        self.multi_label = isinstance(feature, tfds.features.Sequence)
        if self.multi_label:
            feature = feature.feature
        self.known: list[str] | None = None
        if isinstance(feature, tfds.features.ClassLabel):
            self.known = [feature.int2str(number) for number in range(feature.num_classes)]
        elif not isinstance(feature, tfds.features.Text) and not _is_whole_number(feature):
            raise UserError(f"--label: feature {name!r} is {feature}: choose class labels, texts or whole numbers")

    def of(self, record: Record) -> tuple[str, ...] | None:
        """The record's classes; None if it has no label, which is not the same as a sequence without any."""
        value = record[self._name]
        if self.multi_label:
            return tuple(dict.fromkeys(name for item in value if (name := self._class(item)) is not None))
        name = self._class(value)
        return None if name is None else (name,)

    def _class(self, value: Any) -> str | None:
        if self.known is not None:
            return self.known[value] if value >= 0 else None  # -1 where there is no label
        name = _decoded(value).strip()
        return None if is_missing(name, MISSING_MARKS) else name
