"""TFRecord framing, against RFC 3720, TensorFlow's own file (see test_example.py) and grain's reader."""

import errno
import itertools
import os
import struct
from pathlib import Path

import grain
import numpy as np
import pytest

from umemma_jax.data import tfrecord
from umemma_jax.errors import UserError

RECORDS = [b"first", b"", b"the third record", bytes(range(256)) * 40]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    writer = tfrecord.RecordWriter(tmp_path / "file.tfrecord")
    for record in RECORDS:
        writer.write(record)
    writer.close()
    assert writer.records == len(RECORDS)
    assert writer.bytes == writer.path.stat().st_size
    return writer.path


def read(path: Path) -> list[bytes]:
    offsets = tfrecord.load_index(path)
    with open(path, "rb") as file:
        return [
            tfrecord.read_record(file.fileno(), path, number, start, end)
            for number, (start, end) in enumerate(itertools.pairwise(offsets))
        ]


@pytest.mark.parametrize(
    ("data", "crc"),
    [  # RFC 3720, appendix B.4; the last is the check value of CRC-32C in the catalogue of CRC algorithms
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
    ],
)
def test_crc_is_the_published_one(data: bytes, crc: int):
    rotated = (tfrecord.masked_crc32c(data) - 0xA282EAD8) % 2**32
    assert (rotated >> 17 | rotated << 15) % 2**32 == crc


def test_what_is_written_is_read(file: Path):
    assert read(file) == RECORDS


def test_grain_reads_our_framing(file: Path):
    assert list(grain.experimental.TFRecordIterDataset(str(file))) == RECORDS


def test_index_is_offsets_then_length(file: Path):
    offsets = np.frombuffer(tfrecord.index_path(file).read_bytes(), "<u8")
    sizes = [len(record) + 16 for record in RECORDS]
    np.testing.assert_array_equal(offsets, np.cumsum([0, *sizes]))
    assert offsets[-1] == file.stat().st_size


def test_empty_file(tmp_path: Path):
    writer = tfrecord.RecordWriter(tmp_path / "empty.tfrecord")
    writer.close()
    assert read(writer.path) == []
    tfrecord.index_path(writer.path).unlink()
    assert read(writer.path) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda index: index.unlink(),
        lambda index: index.write_bytes(b""),
        lambda index: index.write_bytes(index.read_bytes()[:-8]),  # stale: the file has grown since
        lambda index: index.write_bytes(index.read_bytes()[:-3]),
        lambda index: index.write_bytes(index.read_bytes()[::-1]),
        lambda index: index.write_bytes(b"\xff" * 40),
    ],
    ids=["missing", "empty", "stale", "cut", "reversed", "garbage"],
)
def test_absent_or_useless_index_is_made_again(file: Path, damage):
    index = tfrecord.index_path(file)
    good = index.read_bytes()
    damage(index)
    assert read(file) == RECORDS
    assert index.read_bytes() == good
    assert sorted(os.listdir(file.parent)) == [file.name, index.name]


def test_index_that_cannot_be_written_stays_in_memory(file: Path, monkeypatch):
    tfrecord.index_path(file).unlink()

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    assert read(file) == RECORDS
    assert os.listdir(file.parent) == [file.name]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to read-only folders")
def test_index_in_a_read_only_folder_stays_in_memory(file: Path):
    tfrecord.index_path(file).unlink()
    file.parent.chmod(0o555)
    try:
        assert read(file) == RECORDS
        assert os.listdir(file.parent) == [file.name]
    finally:
        file.parent.chmod(0o755)


@pytest.mark.parametrize("keep_index", [True, False])
def test_every_flipped_byte_is_found(tmp_path: Path, flip_byte, keep_index: bool):
    writer = tfrecord.RecordWriter(tmp_path / "file.tfrecord")
    for record in RECORDS[:3]:
        writer.write(record)
    writer.close()
    starts = tfrecord.load_index(writer.path)
    for position in range(writer.bytes):
        number = np.searchsorted(starts, position, side="right") - 1
        flip_byte(writer.path, position)
        if not keep_index:
            tfrecord.index_path(writer.path).unlink(missing_ok=True)
        with pytest.raises(UserError, match=rf"{writer.path}: .*record {number} .*corrupted"):
            read(writer.path)
        flip_byte(writer.path, position)
    assert read(writer.path) == RECORDS[:3]


def test_every_truncation_is_found(file: Path):
    whole = file.read_bytes()
    starts = tfrecord.load_index(file)
    for size in [*range(1, 70), len(whole) // 2, len(whole) - 1]:
        if size in starts:
            continue  # a file that ends with a record is whole; dataset.json knows the number of records
        number = np.searchsorted(starts, size, side="right") - 1
        file.write_bytes(whole[:size])
        with pytest.raises(UserError, match=rf"{file}: record {number} is truncated"):
            tfrecord.load_index(file)


def test_truncation_after_the_index_was_read_is_found(file: Path):
    start, end = tfrecord.load_index(file)[-2:]
    os.truncate(file, end - 5)
    with open(file, "rb") as opened, pytest.raises(UserError, match="record 3 is truncated"):
        tfrecord.read_record(opened.fileno(), file, 3, start, end)


def test_failing_disk(file: Path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(UserError, match=r"record 0 cannot be read \(Input/output error\)"):
        read(file)


def test_length_beyond_the_file_is_a_truncated_record(tmp_path: Path):
    length = struct.pack("<Q", 2**62)
    path = tmp_path / "file.tfrecord"
    path.write_bytes(length + struct.pack("<I", tfrecord.masked_crc32c(length)) + b"abc")
    with pytest.raises(UserError, match="record 0 is truncated"):
        tfrecord.load_index(path)


def test_absent_file(tmp_path: Path):
    with pytest.raises(UserError, match=r"none\.tfrecord: cannot be read \(No such file"):
        tfrecord.load_index(tmp_path / "none.tfrecord")
