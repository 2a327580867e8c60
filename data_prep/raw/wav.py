"""WAV files that need not be decoded: their samples are already what is stored."""

import os
import struct
from typing import BinaryIO, NamedTuple

import numpy as np

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
