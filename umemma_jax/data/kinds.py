"""What a modality's kind means on disk and in a batch: the one table to extend for a new kind or encoding.

A codec is made for one modality of one dataset. It knows how one value becomes the bytes of a feature (`encode`),
how the bytes of B examples become the arrays of a batch (`decode`), and what stands in for a mean (`from_mean`). The
codecs of kinds whose values are numbers also know what statistics need of a value.
"""

import functools
import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from umemma_jax.data import jpeg
from umemma_jax.data.tokenizer import Tokenizer

UNSEEN = -1  # a category that training does not have


@dataclass(frozen=True)
class Modality:
    """One modality of a prepared dataset, as `dataset.json` describes it.

    Attributes:
      kind: "image", "video", "audio", "text" or "tabular"; with `encoding` the key into `CODECS`.
      encoding: "raw", "jpeg", "pcm_s16le", "utf-8" or "float32".
      shape: (H, W, C) of raw images, (D,) of tabular data.
      sample_rate: Hz, of audio.
      max_samples: longest stored waveform; set by the writer.
      frame_rate: Hz, of video.
      max_frames: of the stored video that has most; set by the writer.
      mean: per channel (image and video C, audio 1, tabular D) over the train split; set by the writer.
      std: likewise. Both are in units of the stored values: 0..255 for uint8, -32768..32767 for int16.
      framing: of JPEG images and videos: "centre", the largest square in the middle (None is that, too), or "whole",
        which squeezes all of the image into the square.
      columns: names of the D numbers of tabular data, by which another dataset's are matched; None where they have
        none.
      missing: of tabular data, how many vectors of the train split lack each number; None where none is lacking; set by
        the writer.
      levels: of tabular data, those of its columns that are categories: column -> level -> how many vectors of the
        train split have it, most frequent first. None where all are numbers. In the order in which they stand here, the
        levels are stored as 0, 1, ..., and `UNSEEN` is any other one. A category has mean and std 0.
      quantiles: of tabular data, for each of the D columns Q numbers, ascending: its quantiles 0, 1/(Q-1), ... 1 over
        the train split; none of a category, or of a column without any number. None where they are not known.
    """

    kind: str
    encoding: str
    shape: tuple[int, ...] | None = None
    sample_rate: int | None = None
    max_samples: int | None = None
    frame_rate: float | None = None
    max_frames: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    framing: str | None = None
    columns: tuple[str, ...] | None = None
    missing: tuple[int, ...] | None = None
    levels: Mapping[str, Mapping[str, int]] | None = None
    quantiles: tuple[tuple[float, ...], ...] | None = None

    @property
    def level_names(self) -> dict[str, tuple[str, ...]]:
        """The names of each category's levels, in order."""
        return {column: tuple(levels) for column, levels in (self.levels or {}).items()}

    @property
    def level_counts(self) -> tuple[tuple[int, ...] | None, ...] | None:
        """Of each of the D columns the counts of `levels`, None of a number; None where all are numbers."""
        if self.levels is None:
            return None
        return tuple(tuple(self.levels[name].values()) if name in self.levels else None for name in self.columns)


Stored = bytes | list[bytes]  # of one value: a list where `stores_list`


class Codec(Protocol):
    """Between the values of one modality and their bytes on disk."""

    def encode(self, value: Any) -> Stored:
        """The bytes of one value. Raises ValueError if it has not the modality's dtype or shape."""

    def decode(self, values: Sequence[Stored | None]) -> Any:
        """The batch of B encoded values: arrays whose first axis is B, zero where the value is None.

        Raises ValueError if the bytes are not what `encode` makes, or the codec was made without what a batch needs.
        """

    def from_mean(self, mean: np.ndarray | None) -> Any:
        """The value nearest to the element-wise mean that `statistics.npz` holds; None where it holds none.

        Raises ValueError if it is None, unless the kind has no statistics.
        """


@runtime_checkable
class NumericCodec(Codec, Protocol):
    """The codec of a kind that has statistics.

    Attributes:
      channels: how many values the mean and the deviation of a modality have.
    """

    channels: int

    def to_positions(self, value: Any) -> np.ndarray:
        """One value as [positions, channels], for statistics; a video as so many frames, [T, positions, channels]."""

    def from_positions(self, value: np.ndarray) -> np.ndarray:
        """Back from the mean of [positions, channels] to the layout of a value, or of a video's frame, in any dtype."""

    def measured(self, value: Any) -> dict[str, int]:
        """What this value has of the fields of `Modality` that state the largest of all values."""


class _FixedShape:
    """Values of one dtype and shape, stored as they lie in memory."""

    def __init__(self, dtype: str, shape: tuple[int, ...]) -> None:
        self._dtype = np.dtype(dtype)
        self._shape = shape
        self.channels = shape[-1]

    @functools.cached_property  # not before a batch is made: it is as large as `dataset.json` says
    def _absent(self) -> bytes:
        return bytes(self._dtype.itemsize * math.prod(self._shape))

    def encode(self, value: np.ndarray) -> bytes:
        _check_dtype(value, self._dtype)
        if value.shape != self._shape:
            raise ValueError(f"shape {value.shape} instead of {self._shape}")
        return value.tobytes()

    def decode(self, values: Sequence[bytes | None]) -> np.ndarray:
        values = [self._absent if value is None else value for value in values]
        for value in values:
            if len(value) != len(self._absent):
                raise ValueError(f"{len(value)} bytes instead of {len(self._absent)}")
        # One copy for the batch; a bytearray makes the array writable.
        return np.frombuffer(bytearray().join(values), self._dtype).reshape(-1, *self._shape)

    def to_positions(self, value: np.ndarray) -> np.ndarray:
        return value.reshape(-1, self._shape[-1])

    def from_positions(self, value: np.ndarray) -> np.ndarray:
        return value.reshape(self._shape)

    def measured(self, value: Any) -> dict[str, int]:
        return {}

    def from_mean(self, mean: np.ndarray | None) -> np.ndarray:
        return _nearest(mean, self._dtype)


class _RawImage(_FixedShape):
    """uint8 pixels [H, W, C] <-> uint8 [B, H, W, C]."""

    def __init__(self, modality: Modality, length: int | None, tokenizer: Tokenizer | None) -> None:
        super().__init__("uint8", _check_shape(modality, 3))
        _check_not_taken(modality, framing=modality.framing, length=length, tokenizer=tokenizer)


class _JpegImage:
    """A JPEG file, RGB or grey, of any size (bytes) <-> uint8 [B, S, S, 3], S the batch's `length`.

    `jpeg.decode` says how an image becomes a square. Statistics are of squares of `_MEASURED` pixels, whatever the
    size of the images: at that size decoding costs a third, and the deviation is a few percent below that at 224.
    """

    _MEASURED = 64
    channels = 3

    def __init__(self, modality: Modality, length: int | None, tokenizer: Tokenizer | None) -> None:
        _check_not_taken(modality, shape=modality.shape, tokenizer=tokenizer)
        if length is not None and length < 1:
            raise ValueError(f"length must be positive, not {length}")
        if modality.framing not in (None, *jpeg.FRAMINGS):
            raise ValueError(f"framing {modality.framing!r} is neither {' nor '.join(jpeg.FRAMINGS)}")
        self._name = f"{modality.kind}/{modality.encoding}"
        self._side = length
        self._framing = modality.framing or jpeg.FRAMINGS[0]

    def encode(self, value: bytes) -> bytes:
        jpeg.check(value)
        return value

    def decode(self, values: Sequence[bytes | None]) -> np.ndarray:
        if self._side is None:
            raise ValueError(f"{self._name} needs a length: the side of the square images of a batch, in pixels")
        batch = np.zeros((len(values), self._side, self._side, 3), np.uint8)
        for pixels, value in zip(batch, values, strict=True):
            if value is not None:
                pixels[:] = jpeg.decode(value, self._side, self._framing)
        return batch

    def to_positions(self, value: bytes) -> np.ndarray:
        return jpeg.decode(value, self._MEASURED, self._framing).reshape(-1, 3)

    def from_positions(self, value: np.ndarray) -> np.ndarray:
        return value.reshape(self._MEASURED, self._MEASURED, 3)

    def measured(self, value: Any) -> dict[str, int]:
        return {}

    def from_mean(self, mean: np.ndarray | None) -> bytes:
        return jpeg.encode(_nearest(mean, np.dtype(np.uint8)))  # which `decode` resizes


class _JpegVideo:
    """A list of any number T > 0 of JPEG files <-> {"frames": uint8 [B, F, S, S, 3], "count": int32 [B]}.

    F is the number of frames of the stored video that has most, S the batch's `length`; `count` is T, and frames from
    there on are zero. Frames and their statistics are those of JPEG images.
    """

    channels = _JpegImage.channels

    def __init__(self, modality: Modality, length: int | None, tokenizer: Tokenizer | None) -> None:
        if not modality.frame_rate or modality.frame_rate < 0:
            raise ValueError("video needs a frame_rate")
        self._image = _JpegImage(modality, length, tokenizer)
        self._frames = modality.max_frames

    def encode(self, value: Sequence[bytes]) -> list[bytes]:
        if not isinstance(value, list | tuple) or not value:
            found = "an empty one" if isinstance(value, list | tuple) else type(value).__name__
            raise ValueError(f"{found} instead of a list of JPEG files")
        for number, frame in enumerate(value):
            try:
                self._image.encode(frame)
            except ValueError as error:
                raise ValueError(f"frame {number}: {error}") from error
        return list(value)

    def decode(self, values: Sequence[list[bytes] | None]) -> dict[str, np.ndarray]:
        if not self._frames:
            raise ValueError("video without max_frames cannot be decoded")
        values = [[] if value is None else value for value in values]
        for value in values:
            if len(value) > self._frames:
                raise ValueError(f"{len(value)} frames instead of {self._frames} at most")
        frames = self._image.decode([frame for value in values for frame in _padded(value, self._frames)])
        return {
            "frames": frames.reshape(len(values), self._frames, *frames.shape[1:]),
            "count": np.array([len(value) for value in values], np.int32),
        }

    def to_positions(self, value: Sequence[bytes]) -> np.ndarray:
        return np.stack([self._image.to_positions(frame) for frame in value])

    def from_positions(self, value: np.ndarray) -> np.ndarray:
        return self._image.from_positions(value)

    def measured(self, value: Sequence[bytes]) -> dict[str, int]:
        return {"max_frames": len(value)}

    def from_mean(self, mean: np.ndarray | None) -> list[bytes]:
        return [self._image.from_mean(mean)]


class _Tabular(_FixedShape):
    """float32 vector [D] <-> float32 [B, D]: numbers, and categories as the places of their levels or `UNSEEN`.

    What is missing is NaN; of a vector not all is.
    """

    def __init__(self, modality: Modality, length: int | None, tokenizer: Tokenizer | None) -> None:
        super().__init__("<f4", _check_shape(modality, 1))
        _check_not_taken(modality, framing=modality.framing, length=length, tokenizer=tokenizer)
        columns = modality.columns
        if columns is not None and (len(columns), len(set(columns))) != (modality.shape[0], modality.shape[0]):
            raise ValueError(f"columns name not each of the {modality.shape[0]} numbers once")
        if not set(modality.levels or ()) <= set(columns or ()):
            raise ValueError("levels are of columns that are not named")
        counts = modality.level_counts or ()
        self._categories = np.array([column for column, levels in enumerate(counts) if levels is not None], np.intp)
        # At least one: an absent vector is zeros.
        self._levels = np.array([max(len(counts[column]), 1) for column in self._categories], np.float32)

    def encode(self, value: np.ndarray) -> bytes:
        data = super().encode(value)
        self._check(value)
        if np.all(np.isnan(value)):
            raise ValueError("all numbers are missing: leave it out")
        return data

    def decode(self, values: Sequence[bytes | None]) -> np.ndarray:
        batch = super().decode(values)
        self._check(batch)
        return batch

    def _check(self, values: np.ndarray) -> None:
        if np.isinf(values).any():
            raise ValueError("infinite")
        levels = values[..., self._categories]
        places = (levels >= UNSEEN) & (levels < self._levels) & (levels == np.rint(levels))
        if not np.all(places | np.isnan(levels)):
            raise ValueError("a category that is no level's place")

    def to_positions(self, value: np.ndarray) -> np.ndarray:
        """As `NumericCodec`; a category counts as 0, so that the mean is its most frequent level."""
        numbers = value.copy()
        numbers[self._categories] *= 0
        return numbers[np.newaxis]


class _PcmAudio:
    """int16 mono waveform [S'] of any length S' > 0 <-> {"samples": int16 [B, S], "length": int32 [B]}.

    S is the batch's `length`, or the longest stored waveform: what is longer is cut at the end, what is shorter is
    padded with zeros. `length` counts the samples that are not padding.
    """

    _dtype = np.dtype("<i2")
    channels = 1

    def __init__(self, modality: Modality, length: int | None, tokenizer: Tokenizer | None) -> None:
        _check_not_taken(modality, framing=modality.framing, tokenizer=tokenizer)
        if not modality.sample_rate:
            raise ValueError("audio needs a sample_rate")
        if length is not None and length < 1:
            raise ValueError(f"length must be positive, not {length}")
        self._samples = length or modality.max_samples
        self._longest = modality.max_samples

    def encode(self, value: np.ndarray) -> bytes:
        _check_dtype(value, self._dtype)
        if value.ndim != 1 or not value.size:
            raise ValueError(f"shape {value.shape} instead of a non-empty (samples,)")
        return value.tobytes()

    def decode(self, values: Sequence[bytes | None]) -> dict[str, np.ndarray]:
        if not self._samples:
            raise ValueError("audio without max_samples needs a length")
        size = self._samples * self._dtype.itemsize
        values = [b"" if value is None else value[:size] for value in values]
        lengths = np.array([len(value) for value in values])
        if np.any(lengths % self._dtype.itemsize):
            raise ValueError("an odd number of bytes instead of int16 samples")
        padded = bytearray().join([value.ljust(size, b"\0") for value in values])
        return {
            "samples": np.frombuffer(padded, self._dtype).reshape(len(values), self._samples),
            "length": (lengths // self._dtype.itemsize).astype(np.int32),
        }

    def to_positions(self, value: np.ndarray) -> np.ndarray:
        return value[:, np.newaxis]

    def from_positions(self, value: np.ndarray) -> np.ndarray:
        return np.pad(value[:, 0], (0, self._longest - len(value)))

    def measured(self, value: np.ndarray) -> dict[str, int]:
        return {"max_samples": len(value)}

    def from_mean(self, mean: np.ndarray | None) -> np.ndarray:
        return _nearest(mean, self._dtype)


class _Text:
    """str <-> {"tokens": int32 [B, T], "length": int32 [B]}, of n-grams "weights" too, all 0 where absent.

    The text itself is stored, as UTF-8, so that another tokenizer needs no new preparation.
    """

    def __init__(self, modality: Modality, length: int | None, tokenizer: Tokenizer | None) -> None:
        if tokenizer is not None and length is not None:
            tokenizer.check_length(length)
        self._length = length
        self._tokenizer = tokenizer

    def encode(self, value: str) -> bytes:
        if not isinstance(value, str):
            raise ValueError(f"{type(value).__name__} instead of str")
        return value.encode("utf-8")

    def decode(self, values: Sequence[bytes | None]) -> dict[str, np.ndarray]:
        if self._tokenizer is None or self._length is None:
            raise ValueError(f"text needs a {'length' if self._tokenizer else 'tokenizer'}")
        present = [row for row, value in enumerate(values) if value is not None]
        encoded = self._tokenizer.encode([values[row].decode("utf-8") for row in present], self._length)
        batch = {name: np.zeros((len(values), *array.shape[1:]), array.dtype) for name, array in encoded.items()}
        for name, array in encoded.items():
            batch[name][present] = array
        return batch

    def from_mean(self, mean: np.ndarray | None) -> str:
        return ""  # texts have no mean: the one that says nothing


CODECS = {
    ("image", "raw"): _RawImage,
    ("image", "jpeg"): _JpegImage,
    ("video", "jpeg"): _JpegVideo,
    ("audio", "pcm_s16le"): _PcmAudio,
    ("text", "utf-8"): _Text,
    ("tabular", "float32"): _Tabular,
}


def codec(modality: Modality, length: int | None = None, tokenizer: Tokenizer | None = None) -> Codec:
    """The codec of a modality.

    Args:
      modality: what is stored.
      length: for kinds of variable length, the static length of a batch (audio: samples S, text: tokens T, JPEG images
        and videos: pixels S of a side).
      tokenizer: for text.

    Text needs both to decode, JPEG its length; neither needs any to encode.

    Raises:
      ValueError: kind and encoding are not in the table, or the modality lacks what its kind needs, or length
        or tokenizer do not suit the kind.
    """
    return _codec_class(modality)(modality, length, tokenizer)


def takes_tokenizer(modality: Modality) -> bool:
    """Whether a batch of the modality is made by a tokenizer. Raises ValueError if the kind is not in the table."""
    return _codec_class(modality) is _Text


def decodes_in_threads(modality: Modality) -> bool:
    """Whether making a batch takes long, and lets go of the interpreter's lock meanwhile, as images and texts do."""
    return _codec_class(modality) in (_JpegImage, _JpegVideo, _Text)


def stores_list(modality: Modality) -> bool:
    """Whether a value is stored as a list, one entry per frame. Raises ValueError if the kind is not in the table."""
    return _codec_class(modality) is _JpegVideo


def _codec_class(modality: Modality) -> type[Codec]:
    key = (modality.kind, modality.encoding)
    if key not in CODECS:
        known = ", ".join(f"{kind}/{encoding}" for kind, encoding in CODECS)
        kind, encoding = map(reprlib.repr, key)
        raise ValueError(f"kind {kind} with encoding {encoding} is not known (known: {known})")
    return CODECS[key]


def _check_dtype(value: np.ndarray, dtype: np.dtype) -> None:
    if not isinstance(value, np.ndarray) or value.dtype != dtype:
        found = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise ValueError(f"{found} instead of a NumPy array of {dtype}")


def _check_shape(modality: Modality, rank: int) -> tuple[int, ...]:
    shape = modality.shape
    if shape is None or len(shape) != rank or min(shape) < 1:
        raise ValueError(f"{modality.kind}/{modality.encoding} needs a shape of {rank} sizes, not {shape}")
    return tuple(shape)


def _check_not_taken(modality: Modality, **arguments: Any) -> None:
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(f"{modality.kind}/{modality.encoding} takes no {name}")


def _padded(values: list[bytes], size: int) -> list[bytes | None]:
    return values + [None] * (size - len(values))


def _nearest(value: np.ndarray | None, dtype: np.dtype) -> np.ndarray:
    if value is None:
        raise ValueError("no mean is known")
    return (np.rint(value) if dtype.kind in "iu" else value).astype(dtype)
