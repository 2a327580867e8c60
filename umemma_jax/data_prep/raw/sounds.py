"""Sound as one channel of int16 at one rate, in time; from any format, rate and number of channels.

int16 in one channel at the rate that is wanted stays as it is, bit for bit.
"""

import math
from typing import Any, Protocol

import av
import numpy as np
from av.audio.resampler import AudioResampler

from umemma_jax.data_prep.raw import limits

PREROLL = 1.0  # s that are decoded before a clip: what sound decoders need to settle, with room
_GAP = 0.05  # s by which a timestamp of sound may differ from the count of samples; more is a pause, or a jump
_RESAMPLING = {"filter_size": 128, "cutoff": 0.98}  # of libswresample, whose defaults are 32 and 0.97


class _Resampler(Protocol):
    def resample(self, frame: av.AudioFrame | None) -> list[av.AudioFrame]:
        """What is finished after a frame, or None at the end: int16 [1, S] of one channel each."""


class Sound:
    """Collects sound: runs of frames without gap, each resampled by itself and put where its time is."""

    def __init__(self, length: float, sample_rate: int) -> None:
        self._length = length
        self._rate = sample_rate
        self._runs: list[tuple[float, list[np.ndarray]]] = []  # start, s; parts of int16 [S]
        self._resampler: _Resampler | None = None  # of the last run
        self._form: Any = None  # of its frames
        self._next = -math.inf  # s, where the last run goes on
        self.done = False

    def prepare(self, stream: av.AudioStream) -> None:
        """Raises ValueError if it is beyond `limits`."""
        _check(stream.rate, stream.channels)

    def duration(self, frame: av.AudioFrame) -> float:
        """Of a frame, s."""
        return frame.samples / frame.sample_rate

    def take(self, frame: av.AudioFrame, time: float) -> None:
        """Takes the next frame; raises ValueError if it is beyond `limits`."""
        _check(frame.sample_rate, frame.layout.nb_channels)
        self.done = time >= self._length
        if self.done or time < -PREROLL:
            return
        form = frame.format.name, frame.layout.name, frame.sample_rate
        if form != self._form or abs(time - self._next) > _GAP:
            self._end_run()
            self._resampler = _resampler(frame, self._rate)
            self._runs.append((time, []))
            self._form, self._next = form, time
        self._next += self.duration(frame)
        frame.pts = None  # a run has no gaps
        self._add(frame)

    def finish(self, end: float) -> None:
        """Nothing more comes."""
        self._end_run()

    def samples(self) -> np.ndarray:
        """int16 [S], from the start of the clip to the end of it, or of the sound."""
        total = round(self._length * self._rate)
        placed = [(round(start * self._rate), np.concatenate(parts)) for start, parts in self._runs if parts]
        samples = np.zeros(min(total, max([0, *(first + len(run) for first, run in placed)])), np.int16)
        for first, run in placed:
            run = run[max(0, -first) :]
            first = max(0, first)
            samples[first : first + len(run)] = run[: max(0, len(samples) - first)]
        return samples

    def _end_run(self) -> None:
        if self._resampler is None:
            return
        self._add(None)
        start, parts = self._runs[-1]
        missing = round((self._next - start) * self._rate) - sum(map(len, parts))
        if missing > 0:  # libswresample keeps the end of what is shorter than its filter
            parts.append(np.zeros(missing, np.int16))

    def _add(self, frame: av.AudioFrame | None) -> None:
        for part in self._resampler.resample(frame):
            self._runs[-1][1].append(np.frombuffer(part.planes[0], np.int16, part.samples))


def _check(rate: int, channels: int) -> None:
    """Raises ValueError if a stream's header or a frame asks for more than `limits` allows."""
    if rate not in limits.RATES:
        raise ValueError(f"{rate:,} samples in a second, not {limits.RATES[0]} to {limits.RATES[-1]:,}")
    if not 1 <= channels <= limits.CHANNELS:
        raise ValueError(f"{channels} channels, not 1 to {limits.CHANNELS}")


def _resampler(frame: av.AudioFrame, rate: int) -> _Resampler:
    """For frames like this one."""
    channels = frame.layout.nb_channels
    if frame.format.name in ("s16", "s16p") and channels == 1 and frame.sample_rate == rate:
        return _AsItIs()
    if channels > 2 and frame.layout.name == f"{channels} channels":
        return _MeanOfChannels(rate)
    return AudioResampler("s16", "mono", rate, options=_RESAMPLING)


class _AsItIs:
    def resample(self, frame: av.AudioFrame | None) -> list[av.AudioFrame]:
        return [] if frame is None else [frame]


class _MeanOfChannels:
    """Mixes channels of which nobody knows which is where, as libswresample does not."""

    def __init__(self, rate: int) -> None:
        self._to_float = AudioResampler("flt")  # packed: of planes PyAV reads no more than 8
        self._resampler = AudioResampler("s16", "mono", rate, options=_RESAMPLING)

    def resample(self, frame: av.AudioFrame | None) -> list[av.AudioFrame]:
        means = [_mean(part) for part in self._to_float.resample(frame)]
        if frame is None:
            means.append(None)
        return [part for mean in means for part in self._resampler.resample(mean)]


def _mean(frame: av.AudioFrame) -> av.AudioFrame:
    """Of the channels of float32, which come in turns."""
    channels = frame.to_ndarray().reshape(-1, frame.layout.nb_channels)
    mean = av.AudioFrame.from_ndarray(channels.mean(axis=1)[np.newaxis], "flt", "mono")
    mean.sample_rate = frame.sample_rate
    return mean
