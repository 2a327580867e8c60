"""The IDX file format of MNIST: http://yann.lecun.com/exdb/mnist/, "FILE FORMATS FOR THE MNIST DATABASE"."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

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
    data = _read(path)
    magic = bytes([0, 0, _UINT8, rank])
    if data[:4] != magic:
        raise UserError(
            f"{path}: not the expected idx file: it starts with {data[:4].hex() or 'nothing'} instead of "
            f"{magic.hex()}: download it again, or check that it is not another file renamed"
        )
    header = 4 + 4 * rank
    shape = [int.from_bytes(data[at : at + 4], "big") for at in range(4, header, 4)]
    expected = header + math.prod(shape)
    if len(data) != expected:
        kind = "truncated" if len(data) < expected else "too long"
        raise UserError(f"{path}: {kind}: {len(data)} bytes instead of {expected}: download it again")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _read(path: Path) -> bytes:
    """The file's content, unpacked."""
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data.startswith(_GZIP) else data
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: truncated or damaged gzip file ({error}): download it again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
