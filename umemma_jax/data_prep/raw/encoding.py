"""Video files written by FFmpeg, in the containers and codecs that clips come in."""

import functools
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from umemma_jax import extras
from umemma_jax.errors import UserError

with extras.needed("clips", "writing video"):
    import av

BIT_RATE = 300_000  # of the picture, per second; noise would take a multiple


@dataclass(frozen=True)
class Form:
    """How a file is made.

    Attributes:
      suffix: of its name; tells FFmpeg the container.
      picture: encoder.
      sound: encoder.
      size: width and height.
      options: of the picture's encoder.
    """

    suffix: str
    picture: str
    sound: str
    size: tuple[int, int]
    options: Mapping[str, str]


_X264 = {"preset": "ultrafast"}
_VP9 = {"deadline": "realtime", "cpu-used": "8"}
FORMS = (
    Form(".mp4", "libx264", "aac", (96, 64), _X264),
    Form(".webm", "libvpx-vp9", "libopus", (97, 65), _VP9),
    Form(".mp4", "libx264", "aac", (72, 96), _X264),
    Form(".mpg", "mpeg1video", "mp2", (96, 64), {}),
)


@functools.cache
def available_forms() -> tuple[Form, ...]:
    """Those of FORMS whose encoders are there. Raises UserError if there are none."""
    found = tuple(form for form in FORMS if _has_encoder(form.picture) and _has_encoder(form.sound))
    if not found:
        raise UserError("PyAV's FFmpeg has none of the encoders for clips: install PyAV from its own packages")
    return found


def _has_encoder(name: str) -> bool:
    try:
        av.Codec(name, "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def write_video(
    path: Path,
    form: Form,
    pictures: Iterator[np.ndarray] | None,
    frame_rate: int,
    sound: np.ndarray | None,
    sample_rate: int,
) -> None:
    """Encodes a file.

    Args:
      path: of the file.
      form: its container and codecs.
      pictures: uint8 [H, W] each, in grey; None for none.
      frame_rate: Hz.
      sound: int16 [S], mono; None for none.
      sample_rate: of the sound, Hz.
    """
    options = {"movflags": "+faststart"} if form.suffix == ".mp4" else {}  # so that half a file can be read
    with av.open(str(path), "w", container_options=options) as file:
        streams = []
        if pictures is not None:
            video = file.add_stream(form.picture, frame_rate, options=dict(form.options))
            video.width, video.height = form.size
            video.pix_fmt = "yuv420p"
            video.bit_rate = BIT_RATE
            video.thread_count = 1
            streams.append((video, _picture_frames(pictures, frame_rate)))
        if sound is not None:
            audio = file.add_stream(form.sound, sample_rate)
            audio.layout = "mono"
            streams.append((audio, _sound_frames(sound, sample_rate)))
        for stream, frames in streams:
            for frame in itertools.chain(frames, [None]):
                file.mux(stream.encode(frame))


def _picture_frames(pictures: Iterator[np.ndarray], frame_rate: int) -> Iterator[av.VideoFrame]:
    for number, picture in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(picture, "gray")
        frame.pts, frame.time_base = number, Fraction(1, frame_rate)
        yield frame


def _sound_frames(sound: np.ndarray, sample_rate: int) -> Iterator[av.AudioFrame]:
    frame = av.AudioFrame.from_ndarray(sound[np.newaxis], "s16", "mono")
    frame.sample_rate, frame.pts, frame.time_base = sample_rate, 0, Fraction(1, sample_rate)
    yield frame
