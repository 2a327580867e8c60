"""Pictures, sound and videos whose headers are damaged, through the conversions of preparations, in their processes."""

import functools
import io
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from benchmarks.faults.trial import REFUSED, SAME, SILENT, TRACEBACK
from umemma_jax.data import jpeg
from umemma_jax.data_prep.build.parallel import run_tasks
from umemma_jax.data_prep.build.results import Failure, Noted, Result
from umemma_jax.data_prep.build.tasks import FileTask
from umemma_jax.data_prep.raw.clips import ToClip, ToSound
from umemma_jax.data_prep.raw.photos import ToJpeg

COUNT = 400  # of each kind
HEADER = 400  # bytes in which bits are flipped
PROCESSES = 2
TIMEOUT = 20.0  # s for one file
SIDE, SECONDS, RATE, FRAME_RATE = 32, 1, 16000, 4
_UNEXPECTED = re.compile(r"\(\w+\.py, line \d+\)$")  # the end of a reason that is an exception nobody foresaw


def run(rng: np.random.Generator, count: int, folder: Path) -> Iterator[tuple[str, str, str]]:
    """Damages `count` files of each kind and converts them. "same": what came of it is within what was asked for."""
    for kind, (make, conversion) in KINDS.items():
        files = folder / kind
        (files / "work").mkdir(parents=True)
        whole, tasks = make(), []
        for number in range(count):
            path = files / f"{number}.{kind}"
            path.write_bytes(damaged(whole, rng))
            tasks.append(FileTask(conversion, path))
        results = run_tasks(tasks, files / "work", PROCESSES, TIMEOUT)
        for task, result in zip(tasks, results, strict=True):
            yield kind, *judged(task, result)


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """One to four bits or bytes of the header are others; of one file in four the end is missing."""
    changed = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        position = rng.integers(min(HEADER, len(content)))
        changed[position] ^= rng.integers(1, 256) if rng.random() < 0.5 else 1 << rng.integers(8)
    return bytes(changed[: rng.integers(len(content))] if rng.random() < 0.25 else changed)


def judged(task: FileTask, result: Result) -> tuple[str, str]:
    """The outcome of a file, and what is said of it."""
    if isinstance(result, Failure):
        foreseen = "\n" not in result.reason and not _UNEXPECTED.search(result.reason)
        return REFUSED if foreseen else TRACEBACK, f"{task}: {result.reason}"
    data = result.data if isinstance(result, Noted) else result
    return (SAME, "") if _within_bounds(task.value(data)) else (SILENT, f"{task}: more than was asked for")


def _within_bounds(value: object) -> bool:
    """Whether a conversion's value is no more than was asked for, and such as training reads."""
    if isinstance(value, bytes):
        jpeg.check(value)
        return min(Image.open(io.BytesIO(value)).size) <= SIDE
    if isinstance(value, np.ndarray):
        return 0 < len(value) <= SECONDS * RATE
    frames_fit = len(value.frames) <= SECONDS * FRAME_RATE and all(map(_within_bounds, value.frames))
    return frames_fit and len(value.samples) <= SECONDS * RATE


# --- whole files ------------------------------------------------------------------------------------------------------


def picture(form: str, **options: object) -> bytes:
    """48 x 40 pixels of smooth noise."""
    pixels = np.random.default_rng(0).integers(256, size=(5, 6, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((48, 40)).save(file, form, **options)
    return file.getvalue()


def recording(form: str, picture_codec: str | None, sound_codec: str | None, rate: int = RATE) -> bytes:
    """A second and a half of a moving picture of 64 x 48 pixels and of a tone, or of one of them."""
    file = io.BytesIO()
    with av.open(file, "w", format=form) as output:
        frames = []
        if picture_codec:
            video = output.add_stream(picture_codec, 10)
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            rng = np.random.default_rng(0)
            for _ in range(15):
                pixels = rng.integers(256, size=(48, 64, 3), dtype=np.uint8)
                frames.append((video, av.VideoFrame.from_ndarray(pixels, "rgb24")))
        if sound_codec:
            audio = output.add_stream(sound_codec, rate, layout="mono")
            tone = np.rint(9000 * np.sin(np.arange(3 * rate // 2) / 9)).astype(np.int16)[np.newaxis]
            frame = av.AudioFrame.from_ndarray(tone, "s16", "mono")
            frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
            frames.append((audio, frame))
        for stream, frame in frames:
            output.mux(stream.encode(frame))
        for stream in output.streams:
            output.mux(stream.encode(None))
    return file.getvalue()


_TO_JPEG = ToJpeg(SIDE)
_TO_SOUND = ToSound(0, SECONDS, sample_rate=RATE)
_TO_CLIP = ToClip(0, SECONDS, FRAME_RATE, SIDE, RATE)

KINDS: dict[str, tuple[Callable[[], bytes], ToJpeg | ToClip]] = {
    "jpg": (functools.partial(picture, "JPEG"), _TO_JPEG),
    "png": (functools.partial(picture, "PNG"), _TO_JPEG),
    "tif": (functools.partial(picture, "TIFF", compression="tiff_lzw"), _TO_JPEG),
    "gif": (functools.partial(picture, "GIF"), _TO_JPEG),
    "webp": (functools.partial(picture, "WEBP"), _TO_JPEG),
    "bmp": (functools.partial(picture, "BMP"), _TO_JPEG),
    "wav": (functools.partial(recording, "wav", None, "pcm_s16le"), _TO_SOUND),
    "flac": (functools.partial(recording, "flac", None, "flac"), _TO_SOUND),
    "ogg": (functools.partial(recording, "ogg", None, "libopus", 48000), _TO_SOUND),
    "mp3": (functools.partial(recording, "mp3", None, "libmp3lame"), _TO_SOUND),
    "mp4": (functools.partial(recording, "mp4", "libx264", "aac"), _TO_CLIP),
    "ts": (functools.partial(recording, "mpegts", "libx264", "mp2"), _TO_CLIP),
    "mkv": (functools.partial(recording, "matroska", "libx264", "flac"), _TO_CLIP),
    "webm": (functools.partial(recording, "webm", "libvpx-vp9", "libopus", 48000), _TO_CLIP),
    "avi": (functools.partial(recording, "avi", "mpeg4", "mp2"), _TO_CLIP),
}
