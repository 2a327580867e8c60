"""WAV files that need not be decoded: their samples are already what is stored."""

import os
import struct
from typing import BinaryIO, NamedTuple

import numpy as np

from umemma_jax.data_prep.build.tasks import Unreadable

_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
_PCM = 1  # WAVE_FORMAT_PCM
_SIZES = range(2, (1 << 32) - _HEADER.size, 2)  # bytes of samples


class Plain(NamedTuple):
    """What was read of such a file.

    Attributes:
      samples: int16 [S].
      duration: of all the file, s.
    """

    samples: np.ndarray
    duration: float


def read_plain(file: BinaryIO, rate: int, most: int | None = None) -> Plain | None:
    """Reads a file whose header is, byte by byte, that of its length of int16 in one channel at a rate.

    Args:
      file: at its start.
      rate: Hz.
      most: samples that are wanted; None for all.

    Returns:
      None if the header has any other byte, which is for FFmpeg to judge.
    """
    size = os.fstat(file.fileno()).st_size - _HEADER.size
    if size not in _SIZES:
        return None
    form = (b"fmt ", 16, _PCM, 1, rate, 2 * rate, 2, 16)
    if file.read(_HEADER.size) != _HEADER.pack(b"RIFF", _HEADER.size - 8 + size, b"WAVE", *form, b"data", size):
        return None
    return Plain(np.frombuffer(file.read(size if most is None else 2 * most), "<i2"), size / 2 / rate)


def samples(data: bytes, rate: int) -> np.ndarray:
    """The samples of a WAV file of int16 in one channel at a rate, whatever other chunks it has.

    Args:
      data: the whole file.
      rate: Hz.

    Returns:
      int16 [S], little-endian.

    Raises:
      Unreadable: it is cut, empty, or of another form: which.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise Unreadable("not a WAV file")
    chunks, at = {}, 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        chunks[name] = data[at + 8 : at + 8 + size]
        if len(chunks[name]) < size:
            raise Unreadable(f"truncated: its last part has {len(chunks[name])} bytes instead of {size}")
        at += 8 + size + size % 2
    if len(data) < 8 + int.from_bytes(data[4:8], "little") or len(chunks.get(b"fmt ", b"")) < 16:
        raise Unreadable("truncated, or its header is damaged")
    kind, channels, found_rate, _, _, bits = struct.unpack_from("<HHIIHH", chunks[b"fmt "])
    if (kind, channels, found_rate, bits) != (_PCM, 1, rate, 16):
        raise Unreadable(f"format {kind}, channels: {channels}, {found_rate} Hz, {bits} bits")
    found = chunks.get(b"data", b"")
    if not found or len(found) % 2:
        raise Unreadable(f"{len(found)} bytes of samples")
    return np.frombuffer(found, "<i2")
