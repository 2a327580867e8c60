"""What one request may ask for, and the check of it before anything large is done."""

import io
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from umemma_jax import extras
from umemma_jax.errors import UserError

NO_OTHER_FILES = {"protocol_whitelist": "fd"}  # a playlist leads nowhere


@dataclass(frozen=True)
class Limits:
    """Bounds on requests.

    Attributes:
      megabytes: of a body.
      megapixels: of a picture, or of a frame of a video.
      sound_seconds: of sound or video.
      rows: of one request.
      fields: of one form.
      characters: of one text.
      queue: requests that are at work or waiting; one more is turned away.
      seconds: from the first byte of a request to its answer.
    """

    megabytes: float = 32.0
    megapixels: float = 25.0
    sound_seconds: float = 600.0
    rows: int = 64
    fields: int = 1000
    characters: int = 100_000
    queue: int = 256
    seconds: float = 30.0


@dataclass(frozen=True)
class Batching:
    """How requests are computed together.

    Attributes:
      rows: at most; 1: each by itself.
      milliseconds: that the first waits for others.
    """

    rows: int = 32
    milliseconds: float = 2.0


def check_picture(data: bytes, limits: Limits) -> None:
    """Raises UserError if a picture has too many pixels, by its header. What is no picture is refused later."""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            width, height = picture.size
    except Exception:  # nobody knows all that decoders raise
        return
    _check_pixels(width, height, limits)


def check_recording(data: bytes, limits: Limits) -> None:
    """Raises UserError if sound or video is too long or has too many pixels, by its header."""
    with extras.needed("clips", "sound or video"):
        import av
    try:
        with av.open(io.BytesIO(data), options=NO_OTHER_FILES) as container:
            seconds = (container.duration or 0) / av.time_base
            sizes = [(stream.width, stream.height) for stream in container.streams.video]
    except Exception:  # nobody knows all that decoders raise
        return check_picture(data, limits)  # which a field of videos may hold, too
    if seconds > limits.sound_seconds:
        raise UserError(f"{seconds:.0f} s of sound or video, more than {limits.sound_seconds:g}")
    for width, height in sizes:
        _check_pixels(width, height, limits)


CHECKS: dict[str, Callable[[bytes, Limits], None]] = {  # by the kind of modality, of those that files make
    "image": check_picture,
    "audio": check_recording,
    "video": check_recording,
}


def _check_pixels(width: int, height: int, limits: Limits) -> None:
    if width * height > limits.megapixels * 1e6:
        raise UserError(f"{width}x{height} pixels, more than {limits.megapixels:g} million")
