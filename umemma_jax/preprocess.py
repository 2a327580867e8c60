"""From what travels over the wire to what an encoder takes, inside the jitted step: one class per kind of modality.

A preprocess object is a frozen, hashable dataclass, static under `jax.jit`. Its fields are the keys that a config may
give under `inputs.<modality>.preprocess`; the dataset's statistics are the defaults of `mean` and `std`. Augmentation
happens in training only, each row from its own key, so that a row's result does not depend on the batch around it;
strength 0 turns an augmentation off.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from umemma_jax.errors import UserError

INT16_FULL_SCALE = 32768.0


class Preprocess(Protocol):
    """What `build` returns."""

    def __call__(self, raw: Any, keys: jax.Array | None = None, train: bool = False) -> jax.Array:  # noqa: ANN401
        """Raw pytree of B rows, typed PRNG keys `[B]` (needed in training) -> float32 `[B, ...]`."""


def build(kind: str, modality: Any, config: Mapping[str, Any], name: str) -> Preprocess:  # noqa: ANN401
    """Makes the preprocess object of a modality.

    Args:
        kind: "image", "audio" or "tabular".
        modality: the dataset's record of it: `statistics` has `mean` and `std` (and `sample_rate` for audio).
        config: values of `inputs.<name>.preprocess`; what is left out keeps its default.
        name: the modality's name, for error messages.

    Raises:
        UserError: unknown kind, unknown key, or a value of the wrong type or range.
    """
    field = f"inputs.{name}.preprocess"
    if kind not in KINDS:
        raise UserError(
            f"{field}: no preprocessing for kind {kind!r}; known kinds: {', '.join(sorted(KINDS))}"
        )
    cls = KINDS[kind]
    values = cls.defaults(modality)
    known = {f.name: f.type for f in dataclasses.fields(cls)}
    for key, value in dict(config).items():
        if key not in known:
            raise UserError(f"{field}.{key}: unknown key; known keys: {', '.join(known)}")
        values[key] = _typed(f"{field}.{key}", value, known[key])
    try:
        return cls(**values)
    except ValueError as error:
        raise UserError(f"{field}.{error}") from None


def _typed(field: str, value: Any, expected: type) -> Any:  # noqa: ANN401
    """`value` as `expected` (bool, int, float, str or a tuple of floats), or UserError."""
    if expected is tuple[float, ...] and isinstance(value, list | tuple):
        return tuple(_typed(field, item, float) for item in value)
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(expected, type) and type(value) is expected:
        return value
    name = "list of numbers" if expected is tuple[float, ...] else expected.__name__
    raise UserError(f"{field}: expected {name}, got {value!r}")


def _channel_statistics(modality: Any) -> dict[str, tuple[float, ...]]:  # noqa: ANN401
    return {name: tuple(float(v) for v in getattr(modality, name)) for name in ("mean", "std")}


# --- image ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Image:
    """uint8 `[B, H, W, C]` -> float32 `[B, H, W, C]`, normalised per channel, lightly augmented in training.

    Attributes:
        mean: per channel, in units of the pixel values, 0 to 255.
        std: likewise.
        shift: largest translation in each direction, pixels.
        rotation: largest rotation either way, degrees.
        scale: largest relative change of size, each axis on its own.
        shear: largest shear, pixels per pixel.
        flip: mirror left to right half of the time.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    shift: float = 0.0
    rotation: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    flip: bool = False

    @staticmethod
    def defaults(modality: Any) -> dict[str, Any]:  # noqa: ANN401
        """The dataset's channel statistics."""
        return _channel_statistics(modality)

    def __call__(
        self, raw: jax.Array, keys: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        """Raw uint8 `[B, H, W, C]` -> float32 `[B, H, W, C]`."""
        images = raw.astype(jnp.float32)
        if train and (self.shift or self.rotation or self.scale or self.shear or self.flip):
            images = jax.vmap(self._augment)(images, keys)
        mean = jnp.array(self.mean).reshape(1, 1, 1, -1)
        std = jnp.maximum(jnp.array(self.std), 1e-6).reshape(1, 1, 1, -1)
        return (images - mean) / std

    def _augment(self, image: jax.Array, key: jax.Array) -> jax.Array:
        """One random affine map of one image `[H, W, C]`; what comes from outside it is black."""
        draw = jax.random.uniform(key, (7,), minval=-1.0)
        angle = jnp.deg2rad(self.rotation * draw[0])
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        rotation = jnp.array([[cos, -sin], [sin, cos]])
        shear = jnp.array([[1.0, 0.0], [self.shear * draw[1], 1.0]])
        mirror = jnp.where(self.flip & (draw[2] > 0), -1.0, 1.0)
        zoom = jnp.diag(jnp.array([1 + self.scale * draw[3], mirror * (1 + self.scale * draw[4])]))
        return affine(image, rotation @ shear @ zoom, self.shift * draw[5:7])


def affine(image: jax.Array, matrix: jax.Array, shift: jax.Array) -> jax.Array:
    """Samples `image` `[H, W, C]` bilinearly at `matrix @ (position - centre) + centre + shift`, zero outside."""
    height, width, _ = image.shape
    rows, columns = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    centre = jnp.array([(height - 1) / 2, (width - 1) / 2])[:, None]
    position = jnp.stack([rows.ravel(), columns.ravel()]).astype(jnp.float32) - centre
    source = jnp.matmul(matrix, position, precision="highest") + centre + shift[:, None]
    sample = lambda channel: jax.scipy.ndimage.map_coordinates(channel, list(source), order=1)  # noqa: E731
    return jax.vmap(sample, in_axes=-1, out_axes=-1)(image).reshape(image.shape)


# --- audio ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Audio:
    """int16 `{"samples": [B, S], "length": [B]}` -> log-mel spectrogram, float32 `[B, T, F]`, T = ceil(S / hop_length).

    Frame t is `win_length` samples from `t * hop_length` on, zeros past the end, under a periodic Hann window. Its
    power spectrum `|rfft|^2 / sum(window)^2` (samples scaled to [-1, 1)) goes through triangular filters, equally
    spaced on the HTK mel scale, then `log(x + floor)`. Frames that start at or after a row's length are not valid.

    Attributes:
        sample_rate: Hz; the dataset's.
        win_length: samples per frame.
        hop_length: samples between frames.
        n_mels: F.
        f_min: lower edge of the first filter, Hz.
        f_max: upper edge of the last filter, Hz; 0 means half the sample rate.
        floor: added to the power before the logarithm, as a share of full scale squared.
        normalise: "example": mean 0 and deviation 1 over a row's valid frames and all bins;
            "fixed": `(x - mean) / std`.
        mean: for "fixed", in log power.
        std: for "fixed".
        shift: largest delay of the recording, as a share of S (the end that no longer fits is lost).
        speed: largest relative change of speed either way, by linear interpolation.
        gain: largest change of level either way, dB.
        noise: largest deviation of added white noise, as a share of the row's own.
        time_mask: most consecutive frames blanked, as a share of T.
        freq_mask: most consecutive mel bins blanked, as a share of F.
    """

    sample_rate: int
    win_length: int = 256
    hop_length: int = 80
    n_mels: int = 40
    f_min: float = 0.0
    f_max: float = 0.0
    floor: float = 1e-8
    normalise: str = "example"
    mean: float = 0.0
    std: float = 1.0
    shift: float = 0.0
    speed: float = 0.0
    gain: float = 0.0
    noise: float = 0.0
    time_mask: float = 0.0
    freq_mask: float = 0.0

    @staticmethod
    def defaults(modality: Any) -> dict[str, Any]:  # noqa: ANN401
        """The dataset's sample rate."""
        return {"sample_rate": int(modality.sample_rate)}

    def __post_init__(self):
        """Checks ranges; the message starts with the field's name, as `build` expects."""
        top = self.f_max or self.sample_rate / 2
        if self.normalise not in ("example", "fixed"):
            raise ValueError(f"normalise: {self.normalise!r} is neither 'example' nor 'fixed'")
        if not 0 <= self.f_min < top <= self.sample_rate / 2:
            raise ValueError(
                f"f_max: need 0 <= f_min < f_max <= {self.sample_rate / 2:g}, got {self.f_min:g}, {top:g}"
            )

    def __call__(
        self, raw: dict[str, jax.Array], keys: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        """Raw int16 samples and lengths -> float32 `[B, T, F]`; finite for any row, length 0 included."""
        samples, length = raw["samples"].astype(jnp.float32) / INT16_FULL_SCALE, raw["length"]
        if train and (self.shift or self.speed or self.gain or self.noise):
            samples, length = jax.vmap(self._augment_waveform)(samples, length, keys)
        mels = self._log_mel(samples)
        mels = self._normalise(mels, length)
        if train and (self.time_mask or self.freq_mask):
            mels = jax.vmap(self._mask)(mels, keys)
        return mels

    def _log_mel(self, samples: jax.Array) -> jax.Array:
        """Waveform `[B, S]` -> `[B, T, F]`."""
        batch, size = samples.shape
        frames = -(-size // self.hop_length)
        padded = jnp.pad(
            samples, ((0, 0), (0, (frames - 1) * self.hop_length + self.win_length - size))
        )
        index = np.arange(frames)[:, None] * self.hop_length + np.arange(self.win_length)
        window = hann_window(self.win_length)
        spectrum = jnp.fft.rfft(padded[:, index] * (window / window.sum())[None, None, :])
        power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
        filters = mel_filters(
            self.n_mels,
            self.win_length,
            self.sample_rate,
            self.f_min,
            self.f_max or self.sample_rate / 2,
        )
        return jnp.log(jnp.matmul(power, filters, precision="highest") + self.floor)

    def _normalise(self, mels: jax.Array, length: jax.Array) -> jax.Array:
        if self.normalise == "fixed":
            return (mels - self.mean) / self.std
        _, frames, bins = mels.shape
        valid = (jnp.arange(frames)[None, :] * self.hop_length < length[:, None])[..., None]
        count = jnp.maximum(valid.sum(axis=(1, 2), keepdims=True) * bins, 1)
        mean = jnp.where(valid, mels, 0).sum(axis=(1, 2), keepdims=True) / count
        centred = mels - mean
        var = jnp.where(valid, jnp.square(centred), 0).sum(axis=(1, 2), keepdims=True) / count
        return jnp.where(valid, centred, 0) * jax.lax.rsqrt(var + 1e-6)

    def _augment_waveform(
        self, samples: jax.Array, length: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Speed, delay, gain and noise on one waveform `[S]`."""
        draws, noise_key = jax.random.split(jax.random.fold_in(key, 0))
        speed, delay, gain, level = jax.random.uniform(draws, (4,), minval=-1.0)
        size = samples.shape[0]
        speed = 1 + self.speed * speed
        delay = jnp.round(self.shift * (delay + 1) / 2 * size)
        position = (jnp.arange(size) - delay) * speed
        left = jnp.floor(position)
        share = position - left
        left = left.astype(jnp.int32)
        pick = lambda i: jnp.where((i >= 0) & (i < size), samples[jnp.clip(i, 0, size - 1)], 0)  # noqa: E731
        new = (1 - share) * pick(left) + share * pick(left + 1)
        new_length = jnp.minimum(jnp.ceil(length / speed) + delay, size).astype(length.dtype)
        length = jnp.where(length > 0, new_length, 0)
        deviation = jnp.sqrt(jnp.square(new).sum() / jnp.maximum(length, 1))
        noise = jax.random.normal(noise_key, (size,)) * deviation * self.noise * jnp.abs(level)
        noise = jnp.where(jnp.arange(size) < length, noise, 0)
        return (new + noise) * 10 ** (self.gain * gain / 20), length

    def _mask(self, mels: jax.Array, key: jax.Array) -> jax.Array:
        """SpecAugment (Park et al., 2019, arXiv 1904.08779) on one spectrogram `[T, F]`: one mask along each axis."""
        frames, bins = mels.shape
        draw = jax.random.uniform(jax.random.fold_in(key, 1), (4,))
        kept = []
        for size, share, (width, start) in (
            (frames, self.time_mask, draw[:2]),
            (bins, self.freq_mask, draw[2:]),
        ):
            width = width * share * size
            start = start * (size - width)
            position = jnp.arange(size)
            kept.append((position < start) | (position >= start + width))
        return jnp.where(kept[0][:, None] & kept[1][None, :], mels, 0)


def hann_window(size: int) -> np.ndarray:
    """Periodic Hann window, float32 `[size]`."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)


def mel_filters(
    n_mels: int, n_fft: int, sample_rate: int, f_min: float, f_max: float
) -> np.ndarray:
    """Triangles of height 1 whose corners are equally spaced on the HTK mel scale, float32 `[n_fft // 2 + 1, n_mels]`.

    Source: mel = 2595 log10(1 + f / 700), Young et al., The HTK Book, section 5.4.
    """
    low, high = (2595 * np.log10(1 + f / 700) for f in (f_min, f_max))
    corners = 700 * (10 ** (np.linspace(low, high, n_mels + 2) / 2595) - 1)
    bins = np.arange(n_fft // 2 + 1) * sample_rate / n_fft
    rising = (bins[:, None] - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - bins[:, None]) / (corners[2:] - corners[1:-1])
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


# --- tabular ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Tabular:
    """float32 `[B, D]` -> float32 `[B, D]`, standardised per column.

    Attributes:
        mean: per column.
        std: per column.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @staticmethod
    def defaults(modality: Any) -> dict[str, Any]:  # noqa: ANN401
        """The dataset's column statistics."""
        return _channel_statistics(modality)

    def __call__(
        self, raw: jax.Array, keys: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        """Raw `[B, D]` -> standardised `[B, D]`; `keys` is not used."""
        return (raw - jnp.array(self.mean)[None]) / jnp.maximum(jnp.array(self.std), 1e-6)[None]


KINDS = {"image": Image, "audio": Audio, "tabular": Tabular}
