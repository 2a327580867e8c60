"""TFRecord files: framing, masked CRC32C, and the offset index that gives random access.

One record is a little-endian uint64 length, the length's masked CRC32C (uint32), the payload, and the payload's
masked CRC32C (uint32), as TensorFlow's `tensorflow/core/lib/io/record_writer.h` defines it. Beside `<file>` lies
`<file>.index`: little-endian uint64 offsets of all record starts, and the file's length at the end.
"""

import contextlib
import os
import struct
from pathlib import Path
from typing import BinaryIO

import google_crc32c
import numpy as np

from umemma_jax import checksums
from umemma_jax.data import files
from umemma_jax.data.remote import Location
from umemma_jax.errors import UserError

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
CHECKSUM = _FOOTER.size  # bytes at the end of a record
FRAME = _HEADER.size + _FOOTER.size  # bytes of a record besides its payload
_OFFSET = np.dtype("<u8")
_REMEDY = "copy the file again, or prepare the dataset again"


def masked_crc32c(data: bytes) -> int:
    """CRC32C (Castagnoli, RFC 3720), rotated and offset as TFRecord stores it."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def index_path(path: Location) -> Location:
    """Where the index of the TFRecord file `path` lies."""
    return path.with_name(path.name + ".index")


def index_size(records: int) -> int:
    """Bytes of the index of so many records."""
    return (records + 1) * _OFFSET.itemsize


class RecordWriter:
    """Writes one TFRecord file and, on `close`, its index. Not atomic: the caller renames the folder.

    Attributes:
      path: of the file.
      checksums: of the records so far, masked as they are stored.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checksums: list[int] = []
        self._crc32c = google_crc32c.Checksum()
        self._offsets = [0]
        self._file: BinaryIO = open(path, "wb")  # noqa: SIM115  closed by close()

    @property
    def records(self) -> int:
        """Number of records written so far."""
        return len(self._offsets) - 1

    @property
    def bytes(self) -> int:
        """Length of the file so far."""
        return self._offsets[-1]

    @property
    def crc32c(self) -> str:
        """Checksum of the file so far, eight hexadecimal digits."""
        return self._crc32c.hexdigest().decode()

    @property
    def index_crc32c(self) -> str:
        """Checksum of the index, likewise."""
        return checksums.of_bytes(self._index().tobytes())

    def write(self, record: bytes) -> None:
        """Appends one record."""
        length = struct.pack("<Q", len(record))
        self.checksums.append(masked_crc32c(record))
        parts = (length + _FOOTER.pack(masked_crc32c(length)), record, _FOOTER.pack(self.checksums[-1]))
        for part in parts:
            self._file.write(part)
            self._crc32c.update(part)
        self._offsets.append(self.bytes + FRAME + len(record))

    def close(self) -> None:
        """Brings records and index to the disk: only then is it known that they fitted on it."""
        with self._file:
            _flush(self._file)
        _write_index(index_path(self.path), self._index())

    def _index(self) -> np.ndarray:
        return np.array(self._offsets, _OFFSET)

    def abandon(self) -> None:
        """Closes the file without caring whether its last bytes still fit on the disk."""
        with contextlib.suppress(OSError):  # the reason for abandoning is already under way to the user
            self._file.close()


def read_record(file: int, path: Path, number: int, start: int, end: int, checksum: int | None = None) -> bytes:
    """Reads one record and checks it as `payload` does.

    Args:
      file: file descriptor of `path`.
      path: named in errors.
      number: the record's position in the file, from 0, named in errors.
      start: offset of the record's first byte.
      end: offset just behind its last byte.
      checksum: as of `payload`.

    Raises:
      UserError: as `payload`, or the disk fails.
    """
    try:
        frame = os.pread(file, end - start, start)
    except OSError as error:
        raise UserError(f"{path}: record {number} cannot be read ({error.strerror})") from error
    return payload(frame, path, number, end - start, checksum)


def payload(frame: bytes, path: Location, number: int, size: int, checksum: int | None = None) -> bytes:
    """The record in a frame, once both its checksums are found right.

    Args:
      frame: what was read.
      path: of the file, named in errors.
      number: the record's position in the file, likewise.
      size: bytes that the frame should have.
      checksum: that it must have besides, masked; None for whichever it has.

    Raises:
      UserError: the record is truncated, or a byte of it has changed, or it is another record.
    """
    if len(frame) < size or len(frame) < FRAME:
        raise UserError(f"{path}: record {number} is truncated: {_REMEDY}")
    length, length_crc = _HEADER.unpack_from(frame)
    if masked_crc32c(frame[:8]) != length_crc or length != len(frame) - FRAME:
        raise UserError(f"{path}: the length of record {number} is corrupted: {_REMEDY}")
    record = frame[_HEADER.size : -_FOOTER.size]
    (record_crc,) = _FOOTER.unpack_from(frame, len(frame) - _FOOTER.size)
    if masked_crc32c(record) != record_crc:
        raise UserError(f"{path}: record {number} is corrupted (checksum mismatch): {_REMEDY}")
    if checksum is not None and record_crc != checksum:
        raise UserError(
            f"{path}: record {number} is another than the dataset was written with: was the file replaced? {_REMEDY}"
        )
    return record


def stored_checksum(checksum: int) -> str:
    """The four bytes in which a masked checksum is stored, as eight hexadecimal digits."""
    return _FOOTER.pack(checksum).hex()


def last_checksum(file: int, size: int) -> str:
    """The `stored_checksum` of the last record of a TFRecord file.

    Args:
      file: its descriptor.
      size: its length.
    """
    return os.pread(file, CHECKSUM, size - CHECKSUM).hex()


def load_index(path: Path, size: int | None = None, crc32c: str | None = None) -> np.ndarray:
    """Offsets of the records of `path`, from its index file; made, and kept if it can be, where absent or stale.

    Args:
      path: of the records.
      size: length that it must have; None for whichever it has.
      crc32c: checksum that the content of an index must have, likewise.

    Returns:
      int64 [records + 1]: every record's start, and the file's length.

    Raises:
      UserError: the file cannot be read, or is truncated, corrupted (found while indexing) or another than stated.
    """
    try:
        found = files.size(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}): {_REMEDY}") from error
    if size not in (None, found):
        raise UserError(f"{path}: has {found} bytes, but dataset.json says {size}: {_REMEDY}")
    offsets = _read_index(index_path(path), crc32c)
    if offsets is not None and offsets[-1] == found:
        return offsets
    offsets = _scan(path, found)
    if crc32c not in (None, checksums.of_bytes(offsets.astype(_OFFSET).tobytes())):
        raise UserError(f"{path}: its records are others than dataset.json says: {_REMEDY}")
    _keep_index(index_path(path), offsets)
    return offsets


def _read_index(path: Path, crc32c: str | None) -> np.ndarray | None:
    """The offsets in an index file, or None if there is none or it is none, or of another checksum."""
    try:
        data = files.read(path)
    except (OSError, ValueError):
        return None
    return parse_index(data) if crc32c in (None, checksums.of_bytes(data)) else None


def parse_index(data: bytes) -> np.ndarray | None:
    """The offsets that an index file's bytes hold, int64 [records + 1], or None if they are no index."""
    if not data or len(data) % _OFFSET.itemsize:
        return None
    offsets = np.frombuffer(data, _OFFSET).astype(np.int64)
    if offsets[0] != 0 or np.any(np.diff(offsets) < FRAME):
        return None
    return offsets


def _scan(path: Path, size: int) -> np.ndarray:
    """Finds the records of a file by walking over their (checked) headers."""
    offsets = [0]
    with open(files.opened(path), "rb", buffering=0) as file:
        while offsets[-1] < size:
            header = os.pread(file.fileno(), _HEADER.size, offsets[-1])
            number = len(offsets) - 1
            if len(header) < _HEADER.size:
                raise UserError(f"{path}: record {number} is truncated: {_REMEDY}")
            length, length_crc = _HEADER.unpack(header)
            if masked_crc32c(header[:8]) != length_crc:
                raise UserError(f"{path}: the length of record {number} is corrupted: {_REMEDY}")
            offsets.append(offsets[-1] + FRAME + length)
            if offsets[-1] > size:
                raise UserError(f"{path}: record {number} is truncated: {_REMEDY}")
    return np.array(offsets, np.int64)


def _keep_index(path: Path, offsets: np.ndarray) -> None:
    """Writes an index by rename; in a folder that cannot be written to, the index stays in memory only."""
    if not path.parent.stat().st_mode & 0o222:
        return  # though whoever may do all, could
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        _write_index(partial, offsets.astype(_OFFSET))
        os.replace(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()


def _write_index(path: Path, offsets: np.ndarray) -> None:
    with open(path, "wb") as file:
        file.write(offsets.tobytes())
        _flush(file)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
