"""From what the pipeline delivers to what an encoder takes, inside the jitted step: one class per kind of modality.

A preprocess object is a frozen, hashable dataclass, static under `jax.jit`. Its fields are the keys that a config may
give under `inputs.<modality>.preprocess`; what the dataset itself states (channel statistics, sample rate) are defaults
that a config may overrule. Augmentation happens in training only, each row from its own key, so that a row's result
does not depend on the batch around it. Strength 0 turns an augmentation off.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from umemma_jax.errors import UserError

INT16_FULL_SCALE = 32768.0
WAVEFORM, SPECTROGRAM = 0, 1  # folded into a row's key, so that the two stages draw independently
CUT = 0  # likewise, of an image


class Preprocess(Protocol):
    """What `build` returns."""

    def __call__(self, raw: Any, keys: jax.Array | None = None, train: bool = False) -> Any:
        """Raw pytree of B rows, typed PRNG keys [B] (needed in training) -> float32 [B, ...]; text: its pytree."""


def build(kind: str, modality: Any, config: Mapping[str, Any], name: str) -> Preprocess:
    """Makes the preprocess object of a modality.

    Args:
      kind: key of `KINDS`.
      modality: what the dataset states of it, as `umemma_jax.data.kinds.Modality`.
      config: `form`, one of the kind's, by default the first; and fields of its class, which keep their defaults if
        left out.
      name: the modality's, for error messages.

    Raises:
      UserError: unknown kind or key, or a value of the wrong type or range.
    """
    where = f"config.inputs.{name}.preprocess"
    if kind not in KINDS:
        raise UserError(f"{where}: no preprocessing for kind '{kind}', there is {', '.join(sorted(KINDS))}")
    config = dict(config)
    form = config.pop("form", next(iter(KINDS[kind])))
    if form not in KINDS[kind]:
        raise UserError(f"{where}.form: '{form}' is none of {', '.join(KINDS[kind])}, the forms of kind '{kind}'")
    preprocess = KINDS[kind][form]
    stated = {key: getattr(modality, key) for key in preprocess.STATED}
    stated = {key: tuple(value) if isinstance(value, list | tuple) else value for key, value in stated.items()}
    fields = {field.name: field.type for field in dataclasses.fields(preprocess)}
    given = {}
    for key, value in config.items():
        if key not in fields:
            raise UserError(f"{where}.{key}: unknown, kind '{kind}' takes {', '.join(fields)}")
        given[key] = _typed(f"{where}.{key}", value, fields[key])
        if isinstance(stated.get(key), tuple) and len(given[key]) != len(stated[key]):
            raise UserError(f"{where}.{key}: {len(given[key])} values, the dataset has {len(stated[key])} channels")
    values = {**stated, **given}
    for key in stated:
        if values[key] is None:
            raise UserError(f"{where}.{key}: the dataset does not state it, give it here")
    try:
        return preprocess(**values)
    except ValueError as error:
        raise UserError(f"{where}.{error}") from None


def _typed(where: str, value: Any, expected: Any) -> Any:
    """`value` as bool, int, float, str or tuple of floats, whichever is expected, or UserError."""
    if expected == tuple[float, ...] and isinstance(value, list | tuple):
        return tuple(_typed(where, item, float) for item in value)
    if expected is float and type(value) is int:
        return float(value)
    if type(value) is not expected:
        name = "a list of numbers" if expected == tuple[float, ...] else expected.__name__
        raise UserError(f"{where}: expected {name}, got {value!r}")
    return value


def _check_not_negative(config: Any, *fields: str) -> None:
    for field in fields:
        if not getattr(config, field) >= 0:
            raise ValueError(f"{field}: must not be negative, got {getattr(config, field)}")


def _check_positive(config: Any, *fields: str) -> None:
    for field in fields:
        if not getattr(config, field) > 0:
            raise ValueError(f"{field}: must be positive, got {getattr(config, field)}")


def _standardise(x: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """Per channel, the last axis; a channel that never varies stays finite."""
    others = tuple(range(x.ndim - 1))
    mean, std = (jnp.expand_dims(jnp.array(v, jnp.float32), others) for v in (mean, std))
    return (x.astype(jnp.float32) - mean) / jnp.maximum(std, 1e-6)


# --- image ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Image:
    """uint8 [B, H, W, C] -> float32 [B, H', W', C], standardised per channel; H' = W' = `crop`, or H and W without.

    In training a row is first cut, then mapped by one random affine map, then mirrored. Evaluation cuts the centre.

    Attributes:
      mean: per channel, in units of pixel values (0 to 255).
      std: likewise.
      crop: side of the square that is cut out, pixels, at a random position in training; 0: all of the image.
      resized_crop: largest share of the image's area that training leaves out: cuts a rectangle of random area,
        aspect ratio (3/4 to 4/3) and position, and resizes it to H' x W'. 0.92 is usual for training from scratch
        (Szegedy et al., 2015, arXiv 1409.4842, section 6).
      shift: largest translation along each axis, pixels.
      rotation: largest rotation either way, degrees.
      scale: largest relative change of size, height and width on their own.
      shear: largest shear, pixels per pixel.
      flip: mirror left to right, half of the time.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: int = 0
    resized_crop: float = 0.0
    shift: float = 0.0
    rotation: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    flip: bool = False

    STATED = ("mean", "std")

    def __post_init__(self) -> None:
        """Checks ranges; messages start with the field, as `build` expects."""
        _check_not_negative(self, "crop", "resized_crop", "shift", "rotation", "scale", "shear")
        if self.resized_crop >= 1:
            raise ValueError("resized_crop: must be below 1, as something has to be left")

    def __call__(self, raw: jax.Array, keys: jax.Array | None = None, train: bool = False) -> jax.Array:
        """Raw uint8 [B, H, W, C] -> float32 [B, H', W', C]. Raises UserError where `crop` is larger than H or W."""
        _, height, width, _ = raw.shape
        if self.crop > min(height, width):
            raise UserError(
                f"preprocess.crop: {self.crop} is larger than the images, {height} x {width}: "
                "lower it, or raise the input's length"
            )
        images = jax.vmap(self._augment)(raw, keys) if train else self._centre(raw)
        return _standardise(images, self.mean, self.std)

    def _centre(self, images: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H', W', C]."""
        if not self.crop:
            return images
        top, left = ((size - self.crop) // 2 for size in images.shape[1:3])
        return images[:, top : top + self.crop, left : left + self.crop]

    def _augment(self, image: jax.Array, key: jax.Array) -> jax.Array:
        """[H, W, C] -> [H', W', C]."""
        if self.resized_crop:
            image = self._cut_and_resize(image, jax.random.fold_in(key, CUT))
        elif self.crop:
            image = self._cut(image, jax.random.fold_in(key, CUT))
        *draws, side, shift_y, shift_x = jax.random.uniform(key, (7,), minval=-1.0)
        if self.shift or self.rotation or self.scale or self.shear:
            image = affine(image.astype(jnp.float32), self._matrix(*draws), self.shift * jnp.array([shift_y, shift_x]))
        if self.flip:
            image = jnp.where(side > 0, image[:, ::-1], image)
        return image

    def _cut(self, image: jax.Array, key: jax.Array) -> jax.Array:
        """A square of the given side, all positions equally likely."""
        height, width, channels = image.shape
        spare = jnp.array([height - self.crop, width - self.crop])
        top, left = jax.random.randint(key, (2,), 0, spare + 1)
        return jax.lax.dynamic_slice(image, (top, left, 0), (self.crop, self.crop, channels))

    def _cut_and_resize(self, image: jax.Array, key: jax.Array) -> jax.Array:
        """A random rectangle, resized by a triangle filter that is as wide as the step where it shrinks."""
        height, width, channels = image.shape
        area, ratio, top, left = jax.random.uniform(key, (4,))
        area = (1 - self.resized_crop * area) * height * width
        ratio = (4 / 3) ** (2 * ratio - 1)
        size = jnp.minimum(jnp.sqrt(area * jnp.array([1 / ratio, ratio])), jnp.array([height, width]))
        corner = jnp.array([top, left]) * (jnp.array([height, width]) - size)
        shape = (self.crop or height, self.crop or width, channels)
        step = jnp.array(shape[:2]) / size
        return jax.image.scale_and_translate(
            image.astype(jnp.float32), shape, (0, 1), step, -corner * step, method="linear"
        )

    def _matrix(self, angle: jax.Array, shear: jax.Array, zoom_y: jax.Array, zoom_x: jax.Array) -> jax.Array:
        """The affine map [2, 2] of draws in [-1, 1)."""
        angle = jnp.deg2rad(self.rotation * angle)
        rotation = jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]])
        shear = jnp.array([[1.0, 0.0], [self.shear * shear, 1.0]])
        zoom = jnp.diag(1 + self.scale * jnp.array([zoom_y, zoom_x]))
        return jnp.linalg.multi_dot([rotation, shear, zoom], precision="highest")


def affine(image: jax.Array, matrix: jax.Array, shift: jax.Array) -> jax.Array:
    """Looks up each pixel of [H, W, C] at `matrix @ (row, column) + shift`, bilinearly, 0 outside.

    Rows and columns are counted from the image's centre.
    """
    height, width, _ = image.shape
    centre = jnp.array([[(height - 1) / 2], [(width - 1) / 2]])
    pixels = jnp.indices((height, width), jnp.float32).reshape(2, -1) - centre
    source = jnp.matmul(matrix, pixels, precision="highest") + centre + shift[:, None]

    def look_up(channel: jax.Array) -> jax.Array:
        return jax.scipy.ndimage.map_coordinates(channel, list(source), order=1)

    return jax.vmap(look_up, in_axes=-1, out_axes=-1)(image).reshape(image.shape)


# --- audio ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class LogMel:
    """int16 {"samples": [B, S], "length": [B]} -> log-mel spectrogram, float32 [B, T, F], T = ceil(S / hop_length).

    Frame t holds `win_length` samples from `t * hop_length` on, zeros past the end, under a periodic Hann window. Its
    power spectrum `|rfft|^2 / sum(window)^2`, of samples scaled to [-1, 1), goes through `n_mels` triangular filters
    and `log(x + floor)`. Frames that start before the row's `length` are valid; they are normalised, the others are 0.

    Attributes:
      sample_rate: Hz.
      win_length: samples in a frame.
      hop_length: samples from frame to frame.
      n_fft: points of the Fourier transform, frames are zero-padded to it; 0 means `win_length`.
      n_mels: F.
      f_min: lower edge of the first filter, Hz.
      f_max: upper edge of the last filter, Hz; 0 means half the sample rate.
      floor: smallest power, 1 being full scale squared.
      normalise: "example": mean 0 and deviation 1 over a row's valid frames and all bins;
        "fixed": `(x - mean) / std`.
      mean: for "fixed", of the log-mel values.
      std: for "fixed", likewise.
      speed: largest relative change of speed (and pitch) either way.
      gain: largest change of level either way, dB.
      noise: largest deviation of added white noise, as a share of the row's own.
      shift: largest delay, as a share of T; never so far that the end of the row is lost.
      time_mask: most consecutive frames blanked, as a share of T.
      freq_mask: most consecutive bins blanked, as a share of F.
    """

    sample_rate: int
    win_length: int = 256
    hop_length: int = 80
    n_fft: int = 0
    n_mels: int = 40
    f_min: float = 0.0
    f_max: float = 0.0
    floor: float = 1e-8
    normalise: str = "example"
    mean: float = 0.0
    std: float = 1.0
    speed: float = 0.0
    gain: float = 0.0
    noise: float = 0.0
    shift: float = 0.0
    time_mask: float = 0.0
    freq_mask: float = 0.0

    STATED = ("sample_rate",)

    def __post_init__(self) -> None:
        """Checks ranges; messages start with the field, as `build` expects."""
        _check_positive(self, "sample_rate", "win_length", "hop_length", "n_mels", "floor", "std")
        _check_not_negative(self, "f_min", "speed", "gain", "noise", "shift", "time_mask", "freq_mask")
        if self.normalise not in ("example", "fixed"):
            raise ValueError(f"normalise: '{self.normalise}' is neither 'example' nor 'fixed'")
        if self.n_fft and self.n_fft < self.win_length:
            raise ValueError(f"n_fft: {self.n_fft} points are fewer than win_length {self.win_length}")
        if not self.f_min < self.top <= self.sample_rate / 2:
            raise ValueError(f"f_max: {self.top:g} Hz is not between f_min and half of {self.sample_rate} Hz")
        if self.speed >= 1 or max(self.time_mask, self.freq_mask) > 1:
            raise ValueError("speed: must be below 1, and masks at most 1")
        if not self._filters().any(axis=0).all():
            raise ValueError(f"n_mels: {self.n_mels} filters are narrower than the spectrum's bins, raise n_fft")

    @property
    def top(self) -> float:
        """Upper edge of the last filter, Hz."""
        return self.f_max or self.sample_rate / 2

    def _filters(self) -> np.ndarray:
        return mel_filters(self.n_mels, self.n_fft or self.win_length, self.sample_rate, self.f_min, self.top)

    def __call__(self, raw: Mapping[str, jax.Array], keys: jax.Array | None = None, train: bool = False) -> jax.Array:
        """Raw int16 samples and lengths -> float32 [B, T, F]; finite for any row, length 0 included."""
        samples, length = raw["samples"].astype(jnp.float32) / INT16_FULL_SCALE, raw["length"]
        if train and (self.speed or self.gain or self.noise):
            samples, length = jax.vmap(self._augment_waveform)(samples, length, keys)
        mels = self._normalised(self._log_mel(samples), length)
        if train and (self.shift or self.time_mask or self.freq_mask):
            mels = jax.vmap(self._augment_spectrogram)(mels, length, keys)
        return mels

    def _log_mel(self, samples: jax.Array) -> jax.Array:
        """Waveforms [B, S] -> [B, T, F], `log(x + floor) - log(floor)`, so that silence is exactly 0."""
        size = samples.shape[1]
        frames = -(-size // self.hop_length)
        covered = (frames - 1) * self.hop_length + self.win_length
        samples = jnp.pad(samples, ((0, 0), (0, max(covered - size, 0))))
        window = hann_window(self.win_length)
        window = jnp.array(window / window.sum(), jnp.float32)
        starts = np.arange(frames)[:, None] * self.hop_length
        cut = samples[:, starts + np.arange(self.win_length)] * window[None, None]
        spectrum = jnp.fft.rfft(cut, self.n_fft or self.win_length)
        power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
        return jnp.log1p(jnp.matmul(power, self._filters(), precision="highest") / self.floor)

    def _normalised(self, mels: jax.Array, length: jax.Array) -> jax.Array:
        """[B, T, F], 0 in the frames that are not valid."""
        _, frames, bins = mels.shape
        valid = (jnp.arange(frames)[None] * self.hop_length < length[:, None])[..., None]
        if self.normalise == "fixed":
            return jnp.where(valid, (mels + (math.log(self.floor) - self.mean)) / self.std, 0)
        values = jnp.maximum(valid.sum(axis=(1, 2), keepdims=True) * bins, 1)
        mean = jnp.where(valid, mels, 0).sum(axis=(1, 2), keepdims=True) / values
        centred = jnp.where(valid, mels - mean, 0)
        variance = jnp.square(centred).sum(axis=(1, 2), keepdims=True) / values
        return centred * jax.lax.rsqrt(variance + 1e-6)

    def _augment_waveform(self, samples: jax.Array, length: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Speed (linear interpolation), noise and gain on one waveform [S]."""
        draws, noise_key = jax.random.split(jax.random.fold_in(key, WAVEFORM))
        speed, gain, level = jax.random.uniform(draws, (3,), minval=-1.0)
        speed = 1 + self.speed * speed
        time = jnp.arange(samples.shape[0])
        samples = jnp.interp(time * speed, time, samples, right=0.0)
        length = jnp.minimum(jnp.ceil(length / speed), samples.shape[0]).astype(length.dtype)
        samples = _with_noise(samples, length, self.noise * jnp.abs(level), noise_key)
        return samples * 10 ** (self.gain * gain / 20), length

    def _augment_spectrogram(self, mels: jax.Array, length: jax.Array, key: jax.Array) -> jax.Array:
        """Delay, then one blank stretch of time and one of frequency, on one spectrogram [T, F].

        The blanks are those of SpecAugment (Park et al., 2019, arXiv 1904.08779).
        """
        frames, bins = mels.shape
        delay, *draws = jax.random.uniform(jax.random.fold_in(key, SPECTROGRAM), (5,))
        spare = frames - jnp.ceil(length / self.hop_length)
        delay = jnp.round(delay * jnp.clip(self.shift * frames, 0, spare)).astype(jnp.int32)
        mels = jnp.roll(mels, delay, axis=0)  # what comes round the end is 0
        mels = jnp.where(_stretch(frames, self.time_mask, *draws[:2])[:, None], 0, mels)
        return jnp.where(_stretch(bins, self.freq_mask, *draws[2:])[None], 0, mels)


def _stretch(size: int, share: float, width: jax.Array, start: jax.Array) -> jax.Array:
    """bool [size], True on a stretch of up to `share` of it; width and start are draws in [0, 1)."""
    width = jnp.floor(width * (share * size + 1))
    start = jnp.floor(start * (size - width + 1))
    position = jnp.arange(size)
    return (start <= position) & (position < start + width)


def hann_window(size: int) -> np.ndarray:
    """Periodic Hann window, float64 [size]."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)


def mel_filters(n_mels: int, n_fft: int, sample_rate: int, f_min: float, f_max: float) -> np.ndarray:
    """Triangles of height 1 with corners equally spaced on the HTK mel scale, float32 [n_fft // 2 + 1, n_mels].

    Source: mel = 2595 log10(1 + f / 700); Young et al., The HTK Book, section 5.4.
    """
    low, high = (2595 * np.log10(1 + f / 700) for f in (f_min, f_max))
    corners = 700 * (10 ** (np.linspace(low, high, n_mels + 2) / 2595) - 1)
    lower, middle, upper = corners[:-2], corners[1:-1], corners[2:]
    frequency = np.arange(n_fft // 2 + 1)[:, None] * sample_rate / n_fft
    rising = (frequency - lower) / (middle - lower)
    falling = (upper - frequency) / (upper - middle)
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Waveform:
    """int16 {"samples": [B, S], "length": [B]} -> float32 [B, S] in [-1, 1), 0 after each row's length.

    Attributes:
      gain: largest change of level either way, dB.
      shift: largest delay, as a share of S; never so far that the end of the row is lost.
      noise: largest deviation of added white noise, as a share of the row's own.
    """

    gain: float = 0.0
    shift: float = 0.0
    noise: float = 0.0

    STATED = ()

    def __post_init__(self) -> None:
        """Checks ranges; messages start with the field, as `build` expects."""
        _check_not_negative(self, "gain", "shift", "noise")

    def __call__(self, raw: Mapping[str, jax.Array], keys: jax.Array | None = None, train: bool = False) -> jax.Array:
        """Raw int16 samples and lengths -> float32 [B, S]."""
        samples, length = raw["samples"].astype(jnp.float32) / INT16_FULL_SCALE, raw["length"]
        samples = jnp.where(jnp.arange(samples.shape[1])[None] < length[:, None], samples, 0)
        if train and (self.gain or self.shift or self.noise):
            samples = jax.vmap(self._augment)(samples, length, keys)
        return samples

    def _augment(self, samples: jax.Array, length: jax.Array, key: jax.Array) -> jax.Array:
        """Noise, gain and delay on one waveform [S]."""
        draws, noise_key = jax.random.split(key)
        gain, level, delay = jax.random.uniform(draws, (3,), minval=-1.0)
        size = samples.shape[0]
        samples = _with_noise(samples, length, self.noise * jnp.abs(level), noise_key)
        delay = jnp.floor(jnp.abs(delay) * jnp.minimum(self.shift * size, size - length)).astype(jnp.int32)
        return jnp.roll(samples, delay) * 10 ** (self.gain * gain / 20)  # what comes round the end is 0


def _with_noise(samples: jax.Array, length: jax.Array, share: jax.Array, key: jax.Array) -> jax.Array:
    """A waveform [S] with white noise on its first `length` samples, its deviation a share of theirs."""
    deviation = jnp.sqrt(jnp.square(samples).sum() / jnp.maximum(length, 1))
    noise = jax.random.normal(key, samples.shape) * (deviation * share)
    return samples + jnp.where(jnp.arange(samples.shape[0]) < length, noise, 0)


# --- tabular ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Tabular:
    """float32 [B, D] -> float32 [B, D], standardised per column.

    Attributes:
      mean: per column.
      std: per column.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    STATED = ("mean", "std")

    def __call__(self, raw: jax.Array, keys: jax.Array | None = None, train: bool = False) -> jax.Array:
        """Raw [B, D] -> standardised [B, D]; nothing random."""
        return _standardise(raw, self.mean, self.std)


# --- text -------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Text:
    """{"tokens": int32 [B, T], "length": int32 [B]}, tokenised by the host, as they are; in training, some words fewer.

    Attributes:
      drop: share of the tokens left out, but for the first and the last, which mark start and end.
    """

    drop: float = 0.0

    STATED = ()

    def __post_init__(self) -> None:
        """Checks ranges; messages start with the field, as `build` expects."""
        if not 0 <= self.drop < 1:
            raise ValueError(f"drop: must be in [0, 1), got {self.drop}")

    def __call__(
        self, raw: Mapping[str, jax.Array], keys: jax.Array | None = None, train: bool = False
    ) -> Mapping[str, jax.Array]:
        """Raw tokens and lengths -> the same."""
        if train and self.drop:
            tokens, length = jax.vmap(self._augment)(raw["tokens"], raw["length"], keys)
            return {"tokens": tokens, "length": length}
        return raw

    def _augment(self, tokens: jax.Array, length: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """One text [T]: what stays moves up, what is left out goes past the end."""
        position = jnp.arange(tokens.shape[0])
        marks = (position == 0) | (position == length - 1)
        kept = (position < length) & (marks | ~jax.random.bernoulli(key, self.drop, tokens.shape))
        return tokens[jnp.argsort(~kept, stable=True)], kept.sum(dtype=length.dtype)


# kind -> form -> class; the first form is the default.
KINDS = {
    "image": {"pixels": Image},
    "audio": {"log_mel": LogMel, "waveform": Waveform},
    "tabular": {"standardised": Tabular},
    "text": {"tokens": Text},
}
