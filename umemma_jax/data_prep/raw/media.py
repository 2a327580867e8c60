"""Pictures, videos and sound as a table's field can hold them, besides the path of a file: what they are, and as bytes.

Bytes are those of a file. Pictures in memory become PNG and sound in memory WAV, neither of which loses anything, so
that one and the same code converts what comes from files and what does not.
"""

import base64
import binascii
import io
import os
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps

from umemma_jax.data_prep.build.tasks import Unreadable
from umemma_jax.data_prep.raw import photos
from umemma_jax.data_prep.raw.files import open_file

SUFFIXES = {  # of files' names
    **dict.fromkeys(photos.SUFFIXES, "image"),
    **dict.fromkeys((".wav", ".mp3", ".flac", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".aif", ".aiff"), "audio"),
    **dict.fromkeys((".mp4", ".m4v", ".mkv", ".webm", ".avi", ".mov", ".mpg", ".mpeg", ".flv", ".wmv"), "video"),
}
SIGNATURES = {  # how files of a kind begin; "." stands for any byte
    "image": rb"\xff\xd8\xff|\x89PNG|GIF8[79]a|BM....\0\0\0\0|RIFF....WEBP|II\*\0|MM\0\*|....ftyp(he|mif|msf|avi)",
    "audio": rb"RIFF....WAVE|fLaC|OggS|ID3|\xff[\xf1-\xf3\xf9-\xfb]|FORM....AIF|....ftypM4A",
    "video": rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI |\0\0\x01[\xb3\xba]|FLV\x01|0&\xb2u\x8ef\xcf\x11",
}
_SIGNATURES = {kind: re.compile(pattern, re.DOTALL) for kind, pattern in SIGNATURES.items()}
_SIGNATURE = 16  # bytes that hold one
_URL = re.compile(r"(?!file:)[a-z][a-z0-9+.-]+://", re.IGNORECASE)
DATA_URL = re.compile(r"data:[\w.+/-]*(;[\w.=+-]+)*;base64,", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{64,}=*\s*")
_PATH = 1024  # characters of one, at most
_PCM, _FLOAT = 1, 3  # WAVE_FORMAT_PCM and WAVE_FORMAT_IEEE_FLOAT
_PNG_MODES, _TIFF_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}, {"CMYK", "YCbCr", "LAB", "I", "F"}


def kind_of(value: Any, folder: Path) -> str | None:
    """What a field holds, "image", "audio" or "video"; None if none of these. Paths count from the folder."""
    if isinstance(value, str | os.PathLike):
        return _kind_of_text(os.fspath(value), folder)
    if isinstance(value, bytes):
        return _kind_of_bytes(value)
    if isinstance(value, Image.Image):
        return "image"
    if is_sound(value):
        return "audio"
    if is_file(value):
        return kind_of(_of_file(value), folder)
    if isinstance(value, np.ndarray):
        return {2: "image", 3: "image", 4: "video"}.get(value.ndim) if _is_pixels(value) else None
    if isinstance(value, list | tuple) and value:
        return "video" if all(kind_of(item, folder) == "image" for item in value) else None
    return None


def is_url(value: Any) -> bool:
    """Whether a field names something on the network."""
    return isinstance(value, str) and _URL.match(value) is not None


def is_sound(value: Any) -> bool:
    """Whether a value is sound in memory: {"array": ..., "sampling_rate": ...}, or an array and its rate."""
    if isinstance(value, Mapping):
        return "array" in value and "sampling_rate" in value
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], np.ndarray) and np.ndim(value[1]) == 0


def is_file(value: Any) -> bool:
    """Whether a value is a file as Hugging Face's data sets hold it: {"bytes": ..., "path": ...}, one of them None."""
    return isinstance(value, Mapping) and value.keys() <= {"bytes", "path"} and any(value.values())


def path_of(value: Any) -> str | None:
    """The path of a file that a field holds; None if it holds something else."""
    if isinstance(value, Mapping):
        return path_of(_of_file(value)) if is_file(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value if isinstance(value, str) and _decoded(value) is None else None


def content_of(value: Any) -> str | bytes | list[Any]:
    """What a conversion reads of a field: the path of a file, the bytes of one, or several pictures as a list.

    Args:
      value: a path; bytes of a file, also in base64, as they are or as a data: URL, or in the form of `is_file`; a
        picture of Pillow, whose file counts as long as nothing has loaded it; pixels [H, W] or [H, W, C] of 1, 3 or 4
        channels, uint8, of one channel also uint16, or float from 0 to 1; a list of such, or pixels [T, H, W, C];
        sound in a form of `is_sound`: [S], or with channels on the shorter axis, int16, int32 or float from -1 to 1.

    Raises:
      ValueError: it is none of these; the message is what is wrong with it, a predicate.
    """
    if (path := path_of(value)) is not None:
        return path
    if isinstance(value, str):
        return _decoded(value)
    if isinstance(value, bytes):
        return value
    if isinstance(value, Image.Image):
        return _file_of(value) or _saved(value)
    if is_sound(value):
        return _wav(*((value["array"], value["sampling_rate"]) if isinstance(value, Mapping) else value))
    if is_file(value):
        return content_of(_of_file(value))
    if isinstance(value, np.ndarray) and value.ndim != 4:
        return _saved(Image.fromarray(_pixels(value)))
    if isinstance(value, list | tuple | np.ndarray) and len(value):
        return list(value)
    raise ValueError(f"is {type(value).__name__}, neither the path nor the content of a file")


def _kind_of_text(text: str, folder: Path) -> str | None:
    """By its ending if it has one that is known, else by what it leads to."""
    if (data := _decoded(text)) is not None:
        return _kind_of_bytes(data)
    if len(text) > _PATH or is_url(text):
        return None
    if kind := SUFFIXES.get(Path(text).suffix.lower()):
        return kind
    try:
        with open_file(folder / text) as file:
            return _kind_of_bytes(file.read(_SIGNATURE))
    except Unreadable:
        return None


def _kind_of_bytes(data: bytes) -> str | None:
    return next((kind for kind, signature in _SIGNATURES.items() if signature.match(data)), None)


def _decoded(text: str) -> bytes | None:
    """The file that a text is in base64; None if it is none."""
    data_url = DATA_URL.match(text)
    if not data_url and not _BASE64.fullmatch(text):
        return None
    try:
        data = base64.b64decode("".join(text[data_url.end() if data_url else 0 :].split()), validate=True)
    except binascii.Error:
        return None
    return data if data_url or _kind_of_bytes(data) else None


def _of_file(value: Mapping[str, Any]) -> Any:
    return value.get("bytes") or value["path"]


def _file_of(picture: Image.Image) -> bytes | None:
    """The file that a picture was opened from, as long as it is not loaded, which comes before any change of it."""
    if not isinstance(picture, ImageFile.ImageFile) or not picture.tile or picture.tell() or picture.fp is None:
        return None
    position = picture.fp.tell()
    picture.fp.seek(0)
    data = picture.fp.read()
    picture.fp.seek(position)
    return data


def _saved(picture: Image.Image) -> bytes:
    """The file of a picture, upright."""
    buffer = io.BytesIO()
    try:
        upright = ImageOps.exif_transpose(picture)
        if upright.mode in _TIFF_MODES:
            upright.save(buffer, "TIFF")
        else:
            shown = upright if upright.mode in _PNG_MODES else upright.convert("RGB")
            shown.save(buffer, "PNG", compress_level=0)
    except (OSError, ValueError) as error:
        raise ValueError(f"is a picture that cannot be read ({error})") from error
    return buffer.getvalue()


def _is_pixels(array: np.ndarray) -> bool:
    return array.dtype in (np.uint8, np.uint16) or (array.dtype.kind == "f" and array.size > 0 and _in_unit(array))


def _in_unit(array: np.ndarray) -> bool:
    return bool(array.min() >= 0 and array.max() <= 1)


def _pixels(array: np.ndarray) -> np.ndarray:
    """uint8 or uint16 [H, W], uint8 [H, W, 3] or [H, W, 4]."""
    array = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
    shape = "x".join(map(str, array.shape))
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4) or not array.size:
        raise ValueError(f"is an array of {shape}, and a picture has [H, W], or [H, W, C] with 1, 3 or 4 channels")
    if array.dtype.kind == "f":
        if not _in_unit(array):
            raise ValueError(f"is an array from {array.min():g} to {array.max():g}, and a picture has uint8, or 0 to 1")
        return np.rint(255 * array).astype(np.uint8)
    if array.dtype != np.uint8 and (array.dtype != np.uint16 or array.ndim != 2):
        raise ValueError(f"is an array of {array.dtype}, and a picture has uint8, or float from 0 to 1")
    return array


def _is_sound_type(dtype: np.dtype) -> bool:
    return dtype.kind == "f" or dtype in (np.int16, np.int32)


def _wav(samples: Any, rate: Any) -> bytes:
    """The WAV file of sound."""
    samples = np.asarray(samples)
    if samples.ndim not in (1, 2) or not samples.size or not _is_sound_type(samples.dtype):
        shape = "x".join(map(str, samples.shape))
        raise ValueError(f"is sound of {samples.dtype}, {shape}, instead of int16 or float, [S] or with channels")
    if samples.dtype.kind == "f" and not np.isfinite(samples).all():
        raise ValueError("is sound that is not finite everywhere")
    form, dtype = (_FLOAT, "<f4") if samples.dtype.kind == "f" else (_PCM, f"<i{samples.dtype.itemsize}")
    interleaved = samples if samples.ndim == 1 or samples.shape[0] >= samples.shape[1] else samples.T
    data = np.ascontiguousarray(interleaved, dtype).tobytes()
    channels = 1 if samples.ndim == 1 else interleaved.shape[1]
    width = np.dtype(dtype).itemsize
    try:
        header = (form, channels, int(rate), int(rate) * channels * width, channels * width, 8 * width)
        parts = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, *header)
        return parts + struct.pack("<4sI", b"data", len(data)) + data
    except (struct.error, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"is sound of {rate!r} samples in a second and {channels} channels") from error
