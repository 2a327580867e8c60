"""Sound: samples as a spectrogram of one of several definitions, or as they are.

| form | class | recipe |
|---|---|---|
| `log_mel` | `LogMel`: HTK's mel scale, every row normalised by itself | small encoders from scratch |
| `fbank` | `Fbank`: Kaldi's filter bank, as torchaudio computes it | AST; OGM-GE (128 bins, 1,024 frames) |
| `stft` | `Stft`: log-magnitudes, as librosa computes them | OGM-GE (257 bins, about 300 frames) |
| `waveform` | `Waveform` | AudioNet |
"""

import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from umemma_jax.devices import memory
from umemma_jax.errors import UserError
from umemma_jax.preprocess.filters import hann_window, kaldi_filters, mel_filters, symmetric_hann_window
from umemma_jax.preprocess.fourier import power_spectrum
from umemma_jax.preprocess.ranges import check_at_most, check_memory, check_not_negative, check_positive

INT16_FULL_SCALE = 32768.0
FLOAT32, FLOAT64 = 4, 8  # bytes
PREEMPHASIS = 0.97  # Kaldi's default
LOUDEST, NOISIEST = 200.0, 1e6  # dB, and a share of the deviation: float32 does not overflow below
WAVEFORM, SPECTROGRAM = 0, 1  # folded into a row's key, so that the two stages draw independently


@dataclasses.dataclass(frozen=True)
class Spectrogram:
    """int16 {"samples": [B, S], "length": [B]} -> spectrogram, float32 [B, T, F]: what all definitions share.

    A definition says what frames there are, which of them are valid for a row of given length, and the spectrum of
    each: the logarithm of something that is `floor` or more. Valid frames are normalised, the others are blank.
    Nothing beyond a row's length is looked at.

    Attributes:
      sample_rate: Hz.
      win_length: samples in a frame.
      hop_length: samples from frame to frame.
      floor: what the logarithm is taken of is no less.
      normalise: "example": mean 0 and deviation 1 over a row's valid frames and all bins;
        "fixed": `(x - mean) / std`.
      mean: for "fixed", of the spectrogram's values.
      std: for "fixed", likewise.
      speed: largest relative change of speed (and pitch) either way.
      gain: largest change of level either way, dB.
      noise: largest deviation of added white noise, as a share of the row's own.
      shift: largest delay, as a share of T; never so far that the end of the row is lost.
      time_mask: most consecutive frames blanked, as a share of T.
      freq_mask: most consecutive bins blanked, as a share of F.
    """

    sample_rate: int
    win_length: int
    hop_length: int
    floor: float
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
        check_positive(self, "sample_rate", "win_length", "hop_length", "floor", "std")
        check_not_negative(self, "speed", "gain", "noise", "shift", "time_mask", "freq_mask")
        check_at_most(self, gain=LOUDEST, noise=NOISIEST, time_mask=1, freq_mask=1)
        if self.win_length < 2:
            raise ValueError(f"win_length: a window of {self.win_length} sample is 0, use 2 or more")
        check_memory("win_length", 4 * FLOAT64 * self.win_length)  # a window, with what it is made of
        if self.normalise not in ("example", "fixed"):
            raise ValueError(f"normalise: '{self.normalise}' is neither 'example' nor 'fixed'")
        if self.speed >= 1:
            raise ValueError(f"speed: must be below 1, got {self.speed}")

    def _spectrum(self, samples: jax.Array) -> jax.Array:
        """Waveforms [B, S] -> [B, T, F], less `log(floor)`, so that silence is exactly 0."""
        raise NotImplementedError

    def _valid_frames(self, length: jax.Array) -> jax.Array:
        """How many frames of a row are valid, the first ones; given its length, int of any shape."""
        raise NotImplementedError

    @property
    def _blank(self) -> float:
        """What frames that are not valid are, and the stretches that `time_mask` and `freq_mask` blank."""
        return 0.0

    def __call__(self, raw: Mapping[str, jax.Array], keys: jax.Array | None = None, train: bool = False) -> jax.Array:
        """Raw int16 samples and lengths -> float32 [B, T, F]; finite for any row, length 0 included."""
        samples, length = _scaled(raw), raw["length"]
        if train and (self.speed or self.gain or self.noise):
            samples, length = jax.vmap(self._augment_waveform)(samples, length, keys)
        spectrum = self._normalised(self._spectrum(samples), length)
        if train and (self.shift or self.time_mask or self.freq_mask):
            spectrum = jax.vmap(self._augment_spectrogram)(spectrum, length, keys)
        return spectrum

    def _normalised(self, spectrum: jax.Array, length: jax.Array) -> jax.Array:
        """[B, T, F], blank in the frames that are not valid."""
        _, frames, bins = spectrum.shape
        valid = (jnp.arange(frames)[None] < self._valid_frames(length)[:, None])[..., None]
        if self.normalise == "fixed":
            return jnp.where(valid, (spectrum + (math.log(self.floor) - self.mean)) / self.std, self._blank)
        values = jnp.maximum(valid.sum(axis=(1, 2), keepdims=True) * bins, 1)
        mean = jnp.where(valid, spectrum, 0).sum(axis=(1, 2), keepdims=True) / values
        centred = jnp.where(valid, spectrum - mean, 0)
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

    def _augment_spectrogram(self, spectrum: jax.Array, length: jax.Array, key: jax.Array) -> jax.Array:
        """Delay, then one blank stretch of time and one of frequency, on one spectrogram [T, F].

        The blanks are those of SpecAugment (Park et al., 2019, arXiv 1904.08779).
        """
        frames, bins = spectrum.shape
        delay, *draws = jax.random.uniform(jax.random.fold_in(key, SPECTROGRAM), (5,))
        spare = frames - self._valid_frames(length)
        delay = jnp.round(delay * jnp.clip(self.shift * frames, 0, spare)).astype(jnp.int32)
        spectrum = jnp.roll(spectrum, delay, axis=0)  # what comes round the end is blank
        spectrum = jnp.where(_stretch(frames, self.time_mask, *draws[:2])[:, None], self._blank, spectrum)
        return jnp.where(_stretch(bins, self.freq_mask, *draws[2:])[None], self._blank, spectrum)


@dataclasses.dataclass(frozen=True)
class LogMel(Spectrogram):
    """Log-mel spectrogram of T = ceil(S / hop_length) frames.

    Frame t holds `win_length` samples from `t * hop_length` on, zeros past the end, under a periodic Hann window. Its
    power spectrum `|rfft|^2 / sum(window)^2`, of samples scaled to [-1, 1), goes through `n_mels` triangular filters
    and `log(x + floor)`. Frames that start before the row's `length` are valid, the others are 0.

    Attributes:
      sample_rate, win_length, hop_length, normalise, mean, std, speed, gain, noise, shift, time_mask, freq_mask: as in
        `Spectrogram`.
      floor: smallest power, 1 being full scale squared.
      n_fft: points of the Fourier transform, frames are zero-padded to it; 0 means `win_length`.
      n_mels: F.
      f_min: lower edge of the first filter, Hz.
      f_max: upper edge of the last filter, Hz; 0 means half the sample rate.
    """

    win_length: int = 256
    hop_length: int = 80
    floor: float = 1e-8
    n_fft: int = 0
    n_mels: int = 40
    f_min: float = 0.0
    f_max: float = 0.0

    def __post_init__(self) -> None:
        """Checks ranges; messages start with the field, as `build` expects."""
        super().__post_init__()
        check_positive(self, "n_mels")
        check_not_negative(self, "f_min", "n_fft")
        if self.n_fft and self.n_fft < self.win_length:
            raise ValueError(f"n_fft: {self.n_fft} points are fewer than win_length {self.win_length}")
        _check_band(self.f_min, self.top, self.sample_rate)
        _check_filters(self.n_mels, self.n_fft or self.win_length)
        if not self._filters().any(axis=0).all():
            raise ValueError(f"n_mels: {self.n_mels} filters are narrower than the spectrum's bins, raise n_fft")

    @property
    def top(self) -> float:
        """Upper edge of the last filter, Hz."""
        return self.f_max or self.sample_rate / 2

    def _filters(self) -> np.ndarray:
        return mel_filters(self.n_mels, self.n_fft or self.win_length, self.sample_rate, self.f_min, self.top)

    def _spectrum(self, samples: jax.Array) -> jax.Array:
        window = hann_window(self.win_length)
        window = jnp.array(window / window.sum(), jnp.float32)
        frames = -(-samples.shape[1] // self.hop_length)
        cut = _cut(samples, self.win_length, self.hop_length, frames) * window[None, None]
        power = power_spectrum(cut, self.n_fft or self.win_length)
        return jnp.log1p(jnp.matmul(power, self._filters(), precision="highest") / self.floor)

    def _valid_frames(self, length: jax.Array) -> jax.Array:
        return -(-length // self.hop_length)


@dataclasses.dataclass(frozen=True)
class Fbank(Spectrogram):
    """Kaldi's log-mel filter bank, as `torchaudio.compliance.kaldi.fbank` computes it without dither; AST's input.

    Frame t holds `win_length` samples from `t * hop_length` on, scaled to [-1, 1). Their mean is subtracted and they
    are pre-emphasised, each by 0.97 of the one before it, under a symmetric window. The power spectrum `|rfft|^2`, of
    as many points as the next power of two, goes through `n_mels` filters, triangles on the mel scale, and
    `log(max(x, floor))`. Frames that lie within the row's `length` are valid. As in AST's feature extractor the others
    are 0 before they are normalised.

    The fields' defaults are AST's, for 16 kHz (Gong et al., 2021, arXiv 2104.01778). OGM-GE's code (Peng et al., 2022,
    arXiv 2203.15332) has the same but for `mean=-4.503877, std=2 * 5.141276`.

    Attributes:
      sample_rate, win_length, hop_length, floor, normalise, mean, std, speed, gain, noise, shift, time_mask, freq_mask:
        as in `Spectrogram`; AST and OGM-GE divide by two deviations.
      window: `hann`, or Kaldi's own `povey`, its power of 0.85.
      n_mels: F.
      f_min: lower edge of the first filter, Hz.
      f_max: upper edge of the last filter, Hz; 0 means half the sample rate.
      frames: T, whatever S; 0 means as many as lie within S.
    """

    win_length: int = 400
    hop_length: int = 160
    floor: float = float(np.finfo(np.float32).eps)
    normalise: str = "fixed"
    mean: float = -4.2677393
    std: float = 2 * 4.5689974
    window: str = "hann"
    n_mels: int = 128
    f_min: float = 20.0
    f_max: float = 0.0
    frames: int = 1024

    def __post_init__(self) -> None:
        """Checks ranges; messages start with the field, as `build` expects."""
        super().__post_init__()
        check_positive(self, "n_mels")
        check_not_negative(self, "f_min", "frames")
        _check_band(self.f_min, self.top, self.sample_rate)
        _check_filters(self.n_mels, self.n_fft)
        if self.window not in ("hann", "povey"):
            raise ValueError(f"window: '{self.window}' is neither 'hann' nor 'povey'")

    @property
    def top(self) -> float:
        """Upper edge of the last filter, Hz."""
        return self.f_max or self.sample_rate / 2

    @property
    def n_fft(self) -> int:
        """Points of the Fourier transform."""
        return 1 << (self.win_length - 1).bit_length()

    @property
    def _blank(self) -> float:
        return -self.mean / self.std if self.normalise == "fixed" else 0.0

    def _spectrum(self, samples: jax.Array) -> jax.Array:
        inside = _frames_within(samples.shape[1], self.win_length, self.hop_length)
        frames = min(inside, self.frames or inside)
        cut = _cut(samples, self.win_length, self.hop_length, frames)
        cut = cut - cut.mean(axis=2, keepdims=True)
        cut = cut - PREEMPHASIS * jnp.concatenate([cut[..., :1], cut[..., :-1]], axis=2)
        window = symmetric_hann_window(self.win_length) ** (0.85 if self.window == "povey" else 1)
        power = power_spectrum(cut * jnp.array(window, jnp.float32)[None, None], self.n_fft)
        filters = kaldi_filters(self.n_mels, self.n_fft, self.sample_rate, self.f_min, self.top)
        mels = jnp.log(jnp.maximum(jnp.matmul(power, filters, precision="highest") / self.floor, 1))
        return jnp.pad(mels, ((0, 0), (0, (self.frames or frames) - frames), (0, 0)))

    def _valid_frames(self, length: jax.Array) -> jax.Array:
        valid = jnp.maximum(1 + (length - self.win_length) // self.hop_length, 0)
        return jnp.minimum(valid, self.frames) if self.frames else valid


@dataclasses.dataclass(frozen=True)
class Stft(Spectrogram):
    """Logarithm of the magnitudes of a short-time Fourier transform; F = win_length // 2 + 1.

    As `np.log(np.abs(librosa.stft(x, n_fft=win_length, hop_length=hop_length)) + floor)` of samples in [-1, 1): frame t
    is centred at sample `t * hop_length` under a periodic Hann window, there are zeros before the start and past the
    end (librosa's default from 0.10 on), and T = 1 + S // hop_length for an even win_length. Without `centre`, frame t
    starts at that sample, and all lie within S: T = 1 + (S - win_length) // hop_length. As many frames of a row are
    valid as its `length` samples alone would give, and the others are 0.

    The fields' defaults are those of OGM-GE's code (Peng et al., 2022, arXiv 2203.15332), there at 22,050 Hz and not
    normalised. Where it lets frames overlap by 353 samples, it is `hop_length=159, centre=False`: of 3 s at 16 kHz,
    257 bins and 299 frames.

    Attributes:
      sample_rate, win_length, hop_length, floor, normalise, mean, std, speed, gain, noise, shift, time_mask, freq_mask:
        as in `Spectrogram`.
      centre: whether frames are centred.
    """

    win_length: int = 512
    hop_length: int = 353
    floor: float = 1e-7
    normalise: str = "fixed"
    centre: bool = True

    def _spectrum(self, samples: jax.Array) -> jax.Array:
        if self.centre:
            samples = jnp.pad(samples, ((0, 0), (self.win_length // 2,) * 2))
        frames = _frames_within(samples.shape[1], self.win_length, self.hop_length)
        window = jnp.array(hann_window(self.win_length), jnp.float32)
        cut = _cut(samples, self.win_length, self.hop_length, frames) * window[None, None]
        return jnp.log1p(jnp.sqrt(power_spectrum(cut, self.win_length)) / self.floor)

    def _valid_frames(self, length: jax.Array) -> jax.Array:
        padded = length + 2 * (self.win_length // 2) if self.centre else length
        return jnp.where(length > 0, jnp.maximum(1 + (padded - self.win_length) // self.hop_length, 0), 0)


def _check_band(low: float, high: float, sample_rate: int) -> None:
    if not low < high <= sample_rate / 2:
        raise ValueError(f"f_max: {high:g} Hz is not between f_min and half of {sample_rate} Hz")


def _check_filters(n_mels: int, n_fft: int) -> None:
    check_memory("n_mels" if n_mels > n_fft else "n_fft", 4 * FLOAT64 * n_mels * (n_fft // 2 + 1))


def _scaled(raw: Mapping[str, jax.Array]) -> jax.Array:
    """Samples [B, S] in [-1, 1), 0 after each row's length."""
    samples = raw["samples"].astype(jnp.float32) / INT16_FULL_SCALE
    return jnp.where(jnp.arange(samples.shape[1])[None] < raw["length"][:, None], samples, 0)


def _frames_within(size: int, win_length: int, hop_length: int) -> int:
    """How many frames lie within `size` samples. Raises UserError if none does."""
    if size < win_length:
        raise UserError(
            f"preprocess.win_length: frames of {win_length} samples are longer than the input's {size}: "
            "lower it, or raise the input's length"
        )
    return 1 + (size - win_length) // hop_length


def _cut(samples: jax.Array, win_length: int, hop_length: int, frames: int) -> jax.Array:
    """Waveforms [B, S] -> frames [B, T, win_length], zeros past the end."""
    # Each sample's place, and the frames of a row.
    if reason := memory.excess((FLOAT64 + 2 * FLOAT32) * frames * win_length):
        raise UserError(f"preprocess.hop_length: {frames} frames of {win_length} samples: {reason}")
    covered = (frames - 1) * hop_length + win_length
    samples = jnp.pad(samples, ((0, 0), (0, max(covered - samples.shape[1], 0))))
    return samples[:, np.arange(frames)[:, None] * hop_length + np.arange(win_length)]


def _stretch(size: int, share: float, width: jax.Array, start: jax.Array) -> jax.Array:
    """bool [size], True on a stretch of up to `share` of it; width and start are draws in [0, 1)."""
    width = jnp.floor(width * (share * size + 1))
    start = jnp.floor(start * (size - width + 1))
    position = jnp.arange(size)
    return (start <= position) & (position < start + width)


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
        check_not_negative(self, "gain", "shift", "noise")
        check_at_most(self, gain=LOUDEST, noise=NOISIEST)

    def __call__(self, raw: Mapping[str, jax.Array], keys: jax.Array | None = None, train: bool = False) -> jax.Array:
        """Raw int16 samples and lengths -> float32 [B, S]."""
        samples, length = _scaled(raw), raw["length"]
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
