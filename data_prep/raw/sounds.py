"""Any PCM WAV file as a mono waveform of int16 at one sample rate."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.build.parallel import Unreadable
from data_prep.raw.wav import read_pcm
from umemma_jax.errors import UserError

_FULL_SCALE = 32768


@dataclass(frozen=True)
class ToPcm:
    """Turns a WAV file of any sample rate, with any number of channels and bits, into int16 PCM.

    Channels are averaged, another rate is resampled by a polyphase filter.

    Attributes:
      sample_rate: Hz of the result.
    """

    sample_rate: int

    def __call__(self, path: Path) -> bytes:
        """Reads a file; returns little-endian int16 samples. Raises Unreadable."""
        try:
            pcm = read_pcm(path)
        except UserError as error:
            raise Unreadable(str(error).removeprefix(f"{path}: ")) from error
        channels = _to_float(pcm.data, pcm.width).reshape(-1, pcm.channels)
        waveform = _resample(channels.mean(axis=1), pcm.sample_rate, self.sample_rate)
        return np.clip(np.rint(waveform), -_FULL_SCALE, _FULL_SCALE - 1).astype("<i2").tobytes()

    def value(self, data: bytes) -> np.ndarray:
        """What the dataset's writer takes: int16 [S]."""
        return np.frombuffer(data, "<i2")


def _to_float(pcm: bytes, width: int) -> np.ndarray:
    """Samples of `width` bytes as float64, in units of 16 bits."""
    if width == 1:  # the only unsigned one
        return (np.frombuffer(pcm, np.uint8) - 128.0) * 256
    padded = np.zeros((len(pcm) // width, 4), np.uint8)  # little-endian, so the last bytes are the high ones
    padded[:, 4 - width :] = np.frombuffer(pcm, np.uint8).reshape(-1, width)
    return padded.view("<i4")[:, 0] / 65536


def _resample(waveform: np.ndarray, before: int, after: int) -> np.ndarray:
    if before == after:
        return waveform
    import scipy.signal  # slow, and needed only here

    common = math.gcd(before, after)
    return scipy.signal.resample_poly(waveform, after // common, before // common)
