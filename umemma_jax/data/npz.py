"""Arrays in an `.npz` file as `numpy.savez` writes it, read without trust in it: NumPy's own reader would allocate
whatever a damaged header states, and ends in one of many kinds of exception."""

import io
import math
import zipfile
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def encode(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The file's content. No array may be called `file`, as `numpy.savez` has it."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def encode_compressed(arrays: Mapping[str, np.ndarray]) -> bytes:
    """What `np.savez_compressed` writes, with one array at a time in memory; `decode` refuses it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as entry:
                npy.write_array(entry, array, allow_pickle=False)
    return buffer.getvalue()


def decode(file: BinaryIO) -> dict[str, np.ndarray]:
    """The arrays, read-only. Raises ValueError if the file is damaged, compressed, or holds Python objects."""
    try:
        with zipfile.ZipFile(file) as archive:
            return {member.filename.removesuffix(".npy"): _array(archive, member) for member in archive.infolist()}
    except Exception as error:  # whatever a damaged field leads zipfile into: struct.error, KeyError, zlib.error, ...
        raise ValueError(f"damaged, {type(error).__name__}: {' '.join(str(error).split())}") from error


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    if member.compress_type != zipfile.ZIP_STORED:  # so that no array is larger than the file
        raise ValueError(f"{member.filename} is compressed")
    content = archive.read(member)
    stream = io.BytesIO(content)
    shape, in_columns, dtype = _HEADERS[npy.read_magic(stream)](stream)
    if dtype.hasobject or len(content) - stream.tell() != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{member.filename} is no array of {dtype}{list(shape)}")
    return np.ndarray(shape, dtype, content, stream.tell(), order="F" if in_columns else "C")
