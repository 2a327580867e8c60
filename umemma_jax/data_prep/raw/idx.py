"""The IDX file format of MNIST: http://yann.lecun.com/exdb/mnist/, "FILE FORMATS FOR THE MNIST DATABASE"."""

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from umemma_jax.data import bounds, files
from umemma_jax.errors import UserError

_GZIP = b"\x1f\x8b"
_UINT8 = 0x08  # the element type, third byte of the magic number


def read_idx(path: Path, rank: int) -> np.ndarray:
    """Reads an IDX file of unsigned bytes, gzip-compressed or not.

    Args:
      path: the file.
      rank: number of axes that it must have: 1 for labels, 3 for images.

    Returns:
      uint8 array of that rank, read-only.

    Raises:
      UserError: the file cannot be read, is of another kind, truncated, or longer than it says.
    """
    magic, header = bytes([0, 0, _UINT8, rank]), 4 + 4 * rank
    try:
        with _opened(path) as file:
            start = file.read(header)
            shape = [int.from_bytes(start[at : at + 4], "big") for at in range(4, header, 4)]
            expected = header + math.prod(shape)
            if start[:4] != magic:
                raise UserError(
                    f"{path}: not the expected idx file: it starts with {start[:4].hex() or 'nothing'} instead of "
                    f"{magic.hex()}: download it again, or check that it is not another file renamed"
                )
            bounds.check("bytes", expected, bounds.FILE_BYTES)
            data = file.read(expected - header + 1)  # the one too many tells a file that is longer
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: truncated or damaged gzip file ({error}): download it again") from error
    except ValueError as error:
        raise UserError(f"{path}: {error}: download it again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    found = len(start) + len(data)
    if found != expected:
        fault = f"truncated: {found} instead of" if found < expected else "too long: more than"
        raise UserError(f"{path}: {fault} {expected} bytes: download it again")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _opened(path: Path) -> BinaryIO:
    """The file's content, unpacked as it is read."""
    file = open(files.regular(path), "rb")  # noqa: SIM115  closed by who reads it
    return gzip.open(file) if file.peek(len(_GZIP)).startswith(_GZIP) else file
