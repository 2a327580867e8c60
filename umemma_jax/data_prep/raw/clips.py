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

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from umemma_jax import extras
from umemma_jax.data_prep.build.prep_report import DAMAGED
from umemma_jax.data_prep.build.results import Noted
from umemma_jax.data_prep.raw import limits
from umemma_jax.data_prep.raw.files import open_content, open_file
from umemma_jax.data_prep.raw.wav import read_plain

CUT = "longer than --seconds (its beginning is kept)"
_SLACK = 0.5  # s that a file may be longer without a word
NO_PICTURE = "clip without picture (kept, sound only)"
NO_SOUND = "clip without sound (kept, picture only)"


@dataclass(frozen=True)
class Clip:
    """What could be read of a clip.

    Attributes:
      frames: JPEG files in order of time, empty without picture.
      samples: int16 [S], little-endian, empty without sound.
      damage: why not all of it could be read; None if it could.
      file_duration: of all the file, s; None if it does not tell.
    """

    frames: list[bytes]
    samples: np.ndarray
    damage: str | None = None
    file_duration: float | None = None

    def pack(self) -> bytes:
        """One value: a line of JSON with the sizes of the frames, then the frames and the samples, and nothing else."""
        header = json.dumps([len(frame) for frame in self.frames]).encode()
        return header + b"\n" + b"".join(self.frames) + self.samples.astype("<i2").tobytes()

    @staticmethod
    def unpack(data: bytes) -> "Clip":
        """The clip that `pack` made `data` of."""
        end = data.index(b"\n") + 1
        frames = []
        for size in json.loads(data[:end]):
            start, end = end, end + size
            frames.append(data[start:end])
        return Clip(frames, np.frombuffer(data[end:], "<i2"))


@dataclass(frozen=True)
class ToClip:
    """Turns a video file into a packed `Clip`.

    Attributes:
      start: s.
      end: s, after `start`.
      frame_rate: frames in a second; there is at least one frame wherever there is a picture. None: no frames.
      size: longest allowed shorter side of a frame, pixels.
      sample_rate: of the sound, Hz. None: no sound.
      max_pixels: larger pictures are not read; None: `limits.FRAME_PIXELS`.
    """

    start: float
    end: float
    frame_rate: float | None = 1.0
    size: int = 256
    sample_rate: int | None = 16000
    max_pixels: int | None = None

    def __call__(self, path: Path) -> bytes | Noted:
        """Reads a file; what is damaged in it is noted.

        Raises:
          Unreadable: it is no video file, beyond `limits`, or has nothing of what is wanted in the clip's time.
        """
        return self._packed(self.read(path))

    def convert(self, data: bytes) -> bytes | Noted:
        """Turns the content of a file into a packed clip; raises Unreadable as above."""
        with open_content(data) as file:
            return self._packed(self._read(file))

    def notes(self, clip: Clip) -> dict[str, str]:
        """What the report shall say of a clip, by kind."""
        return {DAMAGED: clip.damage} if clip.damage else {}

    def value(self, data: bytes) -> Clip:
        """The clip."""
        return Clip.unpack(data)

    def read(self, path: Path) -> Clip:
        """Reads a file, and raises, as above."""
        with open_file(path) as file:
            return self._read(file)

    def _read(self, file: BinaryIO) -> Clip:
        if self.sample_rate and self.start == 0:
            plain = read_plain(file, self.sample_rate, round(self.end * self.sample_rate))
            if plain is not None:
                return Clip([], plain.samples, None, plain.duration)
        with extras.needed("clips", "video, or sound that is no plain WAV file"):
            from umemma_jax.data_prep.raw import ffmpeg  # slow, and sound is often plain

        pixels = self.max_pixels or limits.FRAME_PIXELS
        wanted = self.start, self.end, self.frame_rate, self.size, self.sample_rate, pixels
        return Clip(*ffmpeg.read_part(file, *wanted))

    def _packed(self, clip: Clip) -> bytes | Noted:
        notes = self.notes(clip)
        return Noted(clip.pack(), notes) if notes else clip.pack()

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


@dataclass(frozen=True)
class ToBeginning(ToClip):
    """Turns the beginning of a file into a packed `Clip`, and says if that is not all of it."""

    def notes(self, clip: Clip) -> dict[str, str]:
        """Says also how much is left out."""
        is_cut = (clip.file_duration or 0) > self.end + _SLACK
        return super().notes(clip) | ({CUT: f"{clip.file_duration:.1f} s"} if is_cut else {})


@dataclass(frozen=True)
class ToFrames(ToBeginning):
    """Turns a video file into a clip's frames."""

    sample_rate: None = None

    def value(self, data: bytes) -> list[bytes]:
        """JPEG files in order of time."""
        return super().value(data).frames


@dataclass(frozen=True)
class ToSound(ToBeginning):
    """Turns a file with sound, a video or not, into a clip's samples."""

    frame_rate: None = None

    def value(self, data: bytes) -> np.ndarray:
        """int16 [S]."""
        return super().value(data).samples


@dataclass(frozen=True)
class ToFramesAndSound(ToBeginning):
    """Turns a video file into two modalities, of which it may lack one.

    Attributes:
      names: of the frames and of the sound.
    """

    names: tuple[str, str] = ("video", "audio")

    def notes(self, clip: Clip) -> dict[str, str]:
        """Says also what the clip lacks."""
        when = f"from {self.start:g} s to {self.end:g} s"
        absent = {NO_PICTURE: clip.frames, NO_SOUND: clip.samples}
        return super().notes(clip) | {kind: when for kind, found in absent.items() if not len(found)}

    def value(self, data: bytes) -> dict[str, Any]:
        """What there is, by name."""
        clip = super().value(data)
        return {name: found for name, found in zip(self.names, (clip.frames, clip.samples), strict=True) if len(found)}


def _at_least_half(values: Sequence, start: int, stop: int) -> Sequence:
    """What there is of `values[start:stop]`, nothing if it is less than half."""
    part = values[start:stop]
    return part if 2 * len(part) >= stop - start else part[:0]
