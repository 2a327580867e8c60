"""Pictures of a video at the instants wanted, as JPEG files."""

import math

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from umemma_jax.data import jpeg
from umemma_jax.data_prep.raw import limits
from umemma_jax.data_prep.raw.photos import QUALITY


class Frames:
    """Collects pictures: chooses those on display at the instants wanted and turns them into JPEG files.

    Attributes:
      files: in order of time.
    """

    def __init__(self, length: float, frame_rate: float, size: int, max_pixels: int) -> None:
        count = max(1, math.ceil(length * frame_rate - 0.5))
        self._instants = np.minimum((np.arange(count) + 0.5) / frame_rate, length / 2 if count == 1 else np.inf)
        self._size = size
        self._max_pixels = max_pixels
        self._pixel_aspect = 1.0
        self._interval = 0.0  # s from frame to frame, where frames do not tell
        self._reformatter = VideoReformatter()
        self._shown: av.VideoFrame | None = None  # since the latest timestamp
        self.files: list[bytes] = []

    def prepare(self, stream: av.VideoStream) -> None:
        """Raises ValueError if its pictures are too large."""
        self._check(stream)
        stream.codec_context.options = limits.ffmpeg_options(self._max_pixels)
        self._pixel_aspect = float(stream.sample_aspect_ratio or 1)
        self._interval = float(1 / (stream.average_rate or np.inf))

    def duration(self, frame: av.VideoFrame) -> float:
        """Of a frame, s."""
        return float(frame.duration * frame.time_base) if frame.duration else self._interval

    @property
    def done(self) -> bool:
        """Whether every instant has its picture."""
        return len(self.files) == len(self._instants)

    def take(self, frame: av.VideoFrame, time: float) -> None:
        """Takes the next frame; raises ValueError if it is too large, as one that differs from the header."""
        self._check(frame)
        self._shown = self._shown or frame
        self._show_until(time)
        self._shown = frame

    def finish(self, end: float) -> None:
        """Nothing more comes; the last frame is on display until `end`."""
        if self._shown is not None and end > 0:
            self._show_until(end)
            if not self.files:
                self.files.append(self._encode(self._shown))

    def _check(self, picture: av.VideoStream | av.VideoFrame) -> None:
        if fault := limits.too_many_pixels(picture.width, picture.height, self._max_pixels):
            raise ValueError(fault)

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
