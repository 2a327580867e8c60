"""Any video file as the frames and the sound of a clip. PyAV reads what FFmpeg reads.

A clip is a part of a file, from `start` to `end` in seconds since the file's first picture or sound. Of it there are

- frames: at the middle of each interval of 1 / `frame_rate` seconds the one on display, by the timestamps of the
  file, so that a variable frame rate changes nothing. The first frame counts as on display before its time as well.
  Frames are turned upright, get square pixels, are scaled down where they are too large, and become JPEG files;
- sound: one channel, int16, in time with the picture: silence stands where it begins later or pauses. It may end
  earlier. libswresample resamples, with a filter of four times the usual length, which keeps what is below 15/16 of
  the Nyquist frequency and removes what is above it by 100 dB (PyAV's packages have no soxr).

Of several streams libavformat's best one counts: marked as default, else of the highest bit rate, else the first. What
has no timestamps is counted from the beginning. Reading a stream ends where it is damaged: what came before counts.
"""

import contextlib
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
from av.audio.resampler import AudioResampler
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

from data_prep.build.parallel import Damaged, Unreadable
from data_prep.raw.photos import MAX_PIXELS, QUALITY
from umemma_jax.data import jpeg

_GAP = 0.05  # s by which a timestamp of sound may differ from the count of samples; more is a pause, or a jump
_SLACK = 0.5  # s by which a stream may be shorter than the file says
_PREROLL = 1.0  # s that are decoded before a clip: what sound decoders need to settle, with room
# Titles and the like need not be UTF-8; from PyAV 19 on that is no error.
_OPENING = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
_RESAMPLING = {"filter_size": 128, "cutoff": 0.98}  # of libswresample, whose defaults are 32 and 0.97
# These tell in their header how long they are; of others FFmpeg guesses it from what is there.
_TELL_DURATION = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "flv", "asf", "avi"}
_STREAMED = 1 << 30  # pictures, by the header of an AVI file that FFmpeg sends while it is made


@dataclass(frozen=True)
class Clip:
    """What could be read of a clip.

    Attributes:
      frames: JPEG files in order of time, empty without picture.
      samples: int16 [S], little-endian, empty without sound.
      damage: why not all of it could be read; None if it could.
    """

    frames: list[bytes]
    samples: np.ndarray
    damage: str | None = None

    def pack(self) -> bytes:
        """One value: a line of JSON with the sizes of the frames and the damage, the frames, the samples."""
        header = json.dumps([[len(frame) for frame in self.frames], self.damage]).encode()
        return header + b"\n" + b"".join(self.frames) + self.samples.astype("<i2").tobytes()

    @staticmethod
    def unpack(data: bytes) -> "Clip":
        """The clip that `pack` made `data` of."""
        end = data.index(b"\n") + 1
        sizes, damage = json.loads(data[:end])
        frames = []
        for size in sizes:
            start, end = end, end + size
            frames.append(data[start:end])
        return Clip(frames, np.frombuffer(data[end:], "<i2"), damage)


@dataclass(frozen=True)
class ToClip:
    """Turns a video file into a packed `Clip`.

    Attributes:
      start: s.
      end: s, after `start`.
      frame_rate: frames in a second; there is at least one frame wherever there is a picture. None: no frames.
      size: longest allowed shorter side of a frame, pixels.
      sample_rate: of the sound, Hz. None: no sound.
    """

    start: float
    end: float
    frame_rate: float | None = 1.0
    size: int = 256
    sample_rate: int | None = 16000

    def __call__(self, path: Path) -> bytes:
        """Reads a file.

        Raises:
          Unreadable: it is no video file, or nothing of what is wanted can be read in the clip's time.
        """
        return self.read(path).pack()

    def value(self, data: bytes) -> Clip:
        """The clip."""
        return Clip.unpack(data)

    def read(self, path: Path) -> Clip:
        """Reads a file, and raises, as above."""
        clip = self._read(path, seek=True) if self.start > _PREROLL else None
        return clip or self._read(path, seek=False)

    def seconds(self, clip: Clip) -> list[Clip]:
        """What was read, in clips of 1 s: the frames whose instants lie in it, and its sound.

        Less than half of a second, as at the end of a file, does not count.

        Args:
          clip: a whole number of seconds, with frames and sound.
        """
        edges = np.arange(round(self.end - self.start) + 1)
        frames = np.ceil(edges * self.frame_rate - 0.5).astype(int)  # frame i is at (i + 0.5) / frame_rate
        samples = edges * self.sample_rate
        return [
            Clip(_at_least_half(clip.frames, *of_frames), _at_least_half(clip.samples, *of_samples))
            for of_frames, of_samples in zip(itertools.pairwise(frames), itertools.pairwise(samples), strict=True)
        ]

    def _read(self, path: Path, seek: bool) -> Clip | None:
        """The clip; None if seeking did not lead to a place before it."""
        length = self.end - self.start
        frames = _Frames(length, self.frame_rate, self.size) if self.frame_rate else None
        sound = _Sound(length, self.sample_rate) if self.sample_rate else None
        with _open(path) as file:
            zero = self.start + (file.start_time or 0) / av.time_base
            tracks, damage = _tracks(file, frames, sound, zero, None if seek else -self.start)
            if seek:
                try:
                    file.seek(round((zero - _PREROLL) * av.time_base))
                except av.FFmpegError:
                    return None
            damage += _decode(file, tracks)
            if any(track.starts_late for track in tracks):
                return None
            damage = damage or _cut_short(file, tracks, self.start, self.end)
        samples = sound.samples() if sound else np.zeros(0, np.int16)
        clip = Clip(frames.files if frames else [], samples, "; ".join(damage) or None)
        if not clip.frames and not len(clip.samples):
            when = f" from {self.start:g} s to {self.end:g} s" if tracks else " in it"
            raise Unreadable(clip.damage or f"{self._nothing}{when}")
        return clip

    @property
    def _nothing(self) -> str:
        if self.frame_rate and self.sample_rate:
            return "neither picture nor sound"
        return "no picture" if self.frame_rate else "no sound"


@dataclass(frozen=True)
class ToFrames(ToClip):
    """Turns a video file into a clip's frames."""

    sample_rate: None = None

    def value(self, data: bytes) -> list[bytes] | Damaged:
        """JPEG files in order of time."""
        clip = super().value(data)
        return Damaged(clip.frames, clip.damage) if clip.damage else clip.frames


@dataclass(frozen=True)
class ToSound(ToClip):
    """Turns a file with sound, a video or not, into a clip's samples."""

    frame_rate: None = None

    def value(self, data: bytes) -> np.ndarray | Damaged:
        """int16 [S]."""
        clip = super().value(data)
        return Damaged(clip.samples, clip.damage) if clip.damage else clip.samples


def _open(path: Path) -> av.container.InputContainer:
    """Raises Unreadable."""
    try:
        if not path.stat().st_size:
            raise Unreadable("empty file")
        return av.open(str(path), **_OPENING)
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from error
    except (av.FFmpegError, ValueError) as error:  # the latter of names that cannot be encoded
        raise Unreadable(f"not a video file: {_reason(error)}") from error


def _tracks(
    file: av.container.InputContainer,
    frames: "_Frames | None",
    sound: "_Sound | None",
    zero: float,
    position: float | None,
) -> tuple[list["_Track"], list[str]]:
    """The streams to read, and what keeps others from being read."""
    tracks, damage = [], []
    picture, heard = file.streams.best("video"), file.streams.best("audio")
    if picture and not picture.disposition & Disposition.attached_pic:  # the cover of an album
        tracks.append(_Track("picture", picture, frames, zero, position))
    if heard:
        tracks.append(_Track("sound", heard, sound, zero, position))
    elif file.streams.audio and sound:
        damage.append("sound: no sample rate, or no channels")
    return tracks, damage


def _decode(file: av.container.InputContainer, tracks: Sequence["_Track"]) -> list[str]:
    """Reads until every track has all it wants; returns what went wrong."""
    by_index = {track.stream.index: track for track in tracks}
    damage = []
    try:
        for packet in file.demux([track.stream for track in tracks]) if tracks else ():
            by_index[packet.stream.index].decode(packet)  # its own index is wrong where it ends a stream
            if all(track.ended for track in tracks if track.collector):
                break
    except av.FFmpegError as error:
        damage.append(_reason(error))
    for track in tracks:
        track.finish()
    return [f"{track.name}: {track.damage}" for track in tracks if track.damage] + damage


def _cut_short(file: av.container.InputContainer, tracks: Sequence["_Track"], start: float, end: float) -> list[str]:
    """Says which stream ends before the time that the file's header gives, as in a truncated file."""
    if file.format.name not in _TELL_DURATION or all(track.ended for track in tracks if track.collector):
        return []
    known = [track for track in tracks if track.position is not None]
    last = max(known, key=lambda track: track.position, default=None)
    damage = []
    for track in known:
        told = _told_end(file, track, track is last)
        if told is None or track.ended:
            continue
        told -= track.zero
        if track.position < min(told, end - start) - _SLACK:
            damage.append(f"{track.name}: ends at {track.position + start:.2f} s, not at {told + start:.2f} s")
    return damage


def _told_end(file: av.container.InputContainer, track: "_Track", is_last: bool) -> float | None:
    """When the header says that a stream ends, s on the file's clock; None if it does not say.

    Where it only says how long all of the file is, that counts for the stream that ends last.
    """
    stream = track.stream
    if file.format.name == "avi":  # of a file that is too short FFmpeg lowers the durations, not the number of pictures
        picture = file.streams.best("video")
        is_cut = picture and (picture.duration or 0) < picture.frames < _STREAMED
        return float(picture.frames * picture.time_base) if is_cut and is_last else None
    if stream.duration is not None:
        return float((stream.duration + (stream.start_time or 0)) * stream.time_base) if track.collector else None
    if file.duration is not None and is_last:
        return (file.duration + (file.start_time or 0)) / av.time_base
    return None


class _Collector(Protocol):
    """Makes of the frames of a stream what a clip has of it. Times count from the start of the clip, in seconds."""

    done: bool  # whether it wants no more frames

    def prepare(self, stream: av.VideoStream | av.AudioStream) -> None:
        """Says which stream's frames will come."""

    def duration(self, frame: av.VideoFrame | av.AudioFrame) -> float:
        """Of a frame, s."""

    def take(self, frame: av.VideoFrame | av.AudioFrame, time: float) -> None:
        """Takes the next frame."""

    def finish(self, end: float) -> None:
        """Nothing more comes; `end` is where the last frame ends."""


class _Track:
    """A stream, what collects its frames, and how far it has been read.

    Times count from the start of the clip.

    Attributes:
      collector: None if the stream is not wanted: it is not decoded, and tells only where it ends.
      position: s, where the next frame is expected; None if it is not known.
      ended: whether no more packets are wanted.
      damage: what ended it too early.
      starts_late: whether the first frame comes after the start of the clip although the file was to be read from
        before it, or nobody knows.
    """

    def __init__(
        self,
        name: str,
        stream: av.VideoStream | av.AudioStream,
        collector: _Collector | None,
        zero: float,
        position: float | None,
    ) -> None:
        self.name = name
        self.stream = stream
        self.collector = collector
        self.zero = zero  # s on the file's clock
        self.position = position
        self.ended = False
        self.damage: str | None = None
        self.starts_late = False
        if collector is None:
            return
        if stream.codec_context is None:
            self.ended, self.damage = True, "no decoder for it"
        else:
            stream.codec_context.thread_count = 1  # each process has a core
            collector.prepare(stream)

    def decode(self, packet: av.Packet) -> None:
        """Passes on what is in a packet, unless the stream has ended."""
        if self.ended:
            return
        if self.collector is None:
            if packet.pts is not None:
                self.position = float((packet.pts + (packet.duration or 0)) * packet.time_base) - self.zero
            return
        if packet.is_corrupt:
            self._stop("a damaged packet")
            return
        try:
            for frame in self.stream.decode(packet):
                self._pass_on(frame)
        except (av.FFmpegError, ValueError) as error:
            self._stop(_reason(error))

    def finish(self) -> None:
        """Takes what the decoder holds back; nothing more will come."""
        if self.collector is None:
            return
        if not self.ended:
            with contextlib.suppress(av.FFmpegError):  # it is at its end already
                for frame in self.stream.decode(None):
                    self._pass_on(frame)
        if self.position is not None:
            self.collector.finish(self.position)

    def _pass_on(self, frame: av.VideoFrame | av.AudioFrame) -> None:
        stamp = frame.pts if frame.pts is not None else frame.dts
        time = self.position if stamp is None else float(stamp * frame.time_base) - self.zero
        if self.position is None and (time is None or time > 0):
            self.starts_late = self.ended = True
        if self.ended:
            return
        if frame.is_corrupt and time >= 0:
            self._stop("a damaged frame")
            return
        self.collector.take(frame, time)
        self.position = time + self.collector.duration(frame)
        self.ended = self.collector.done
        self.damage = None

    def _stop(self, damage: str) -> None:
        """Damage ends the stream, unless it lies before the clip, as what is cut in two by seeking does."""
        self.ended = self.position is not None and self.position >= 0
        self.damage = damage


class _Frames:
    """Collects pictures: chooses those on display at the instants wanted and turns them into JPEG files."""

    def __init__(self, length: float, frame_rate: float, size: int) -> None:
        count = max(1, math.ceil(length * frame_rate - 0.5))
        self._instants = np.minimum((np.arange(count) + 0.5) / frame_rate, length / 2 if count == 1 else np.inf)
        self._size = size
        self._pixel_aspect = 1.0
        self._interval = 0.0  # s from frame to frame, where frames do not tell
        self._reformatter = VideoReformatter()
        self._shown: av.VideoFrame | None = None  # since the latest timestamp
        self.files: list[bytes] = []

    def prepare(self, stream: av.VideoStream) -> None:
        self._pixel_aspect = float(stream.sample_aspect_ratio or 1)
        self._interval = float(1 / (stream.average_rate or np.inf))

    def duration(self, frame: av.VideoFrame) -> float:
        return float(frame.duration * frame.time_base) if frame.duration else self._interval

    @property
    def done(self) -> bool:
        return len(self.files) == len(self._instants)

    def take(self, frame: av.VideoFrame, time: float) -> None:
        if frame.width * frame.height > MAX_PIXELS:
            raise Unreadable(f"{frame.width}x{frame.height} pixels, more than {MAX_PIXELS:,}")
        self._shown = self._shown or frame
        self._show_until(time)
        self._shown = frame

    def finish(self, end: float) -> None:
        if self._shown is not None and end > 0:
            self._show_until(end)
            if not self.files:
                self.files.append(self._encode(self._shown))

    def _show_until(self, time: float) -> None:
        start = len(self.files)
        count = int(np.searchsorted(self._instants, time)) - start
        if count > 0:
            self.files += [self._encode(self._shown)] * count

    def _encode(self, frame: av.VideoFrame) -> bytes:
        width, height = self._displayed_size(frame)
        pixels = self._reformatter.reformat(
            frame, width, height, "rgb24", interpolation="LANCZOS", threads=1
        ).to_ndarray()
        return jpeg.encode(np.rot90(pixels, round(frame.rotation / 90)), QUALITY)

    def _displayed_size(self, frame: av.VideoFrame) -> tuple[int, int]:
        """Width and height with square pixels, before it is turned upright."""
        width, height = frame.width * max(self._pixel_aspect, 1), frame.height / min(self._pixel_aspect, 1)
        scale = min(1, self._size / min(width, height))
        return max(1, round(width * scale)), max(1, round(height * scale))


class _Sound:
    """Collects sound: runs of frames without gap, each resampled by itself and put where its time is."""

    def __init__(self, length: float, sample_rate: int) -> None:
        self._length = length
        self._rate = sample_rate
        self._runs: list[tuple[float, list[np.ndarray]]] = []  # start, s; parts of int16 [S]
        self._resampler: AudioResampler | None = None  # of the last run
        self._form: Any = None  # of its frames
        self._next = -math.inf  # s, where the last run goes on
        self.done = False

    def prepare(self, stream: av.AudioStream) -> None:
        pass

    def duration(self, frame: av.AudioFrame) -> float:
        if not frame.sample_rate:
            raise ValueError("sample rate 0")
        return frame.samples / frame.sample_rate

    def take(self, frame: av.AudioFrame, time: float) -> None:
        self.done = time >= self._length
        if self.done or time < -_PREROLL:
            return
        form = frame.format.name, frame.layout.name, frame.sample_rate
        if form != self._form or abs(time - self._next) > _GAP:
            self._end_run()
            self._resampler = AudioResampler("s16", "mono", self._rate, options=_RESAMPLING)
            self._runs.append((time, []))
            self._form, self._next = form, time
        self._next += self.duration(frame)
        frame.pts = None  # a run has no gaps
        self._add(frame)

    def finish(self, end: float) -> None:
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
        if self._resampler is not None:
            self._add(None)

    def _add(self, frame: av.AudioFrame | None) -> None:
        self._runs[-1][1].extend(part.to_ndarray()[0] for part in self._resampler.resample(frame))


def _at_least_half(values: Sequence, start: int, stop: int) -> Sequence:
    """What there is of `values[start:stop]`, nothing if it is less than half."""
    part = values[start:stop]
    return part if 2 * len(part) >= stop - start else part[:0]


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
