import gzip
import os
import tracemalloc

import numpy as np
import pytest

from tests.data_prep.raw_files import idx_bytes
from umemma_jax.data_prep.raw.idx import read_idx
from umemma_jax.errors import UserError

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("array", [IMAGES, IMAGES[0, 0], IMAGES[:0]])
def test_reads_what_was_packed(tmp_path, pack, array):
    path = tmp_path / "file"
    path.write_bytes(pack(idx_bytes(array)))
    read = read_idx(path, rank=array.ndim)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not the expected idx file: it starts with nothing instead of 00000803"),
        (b"PK\3\4rest of a zip file", "not the expected idx file: it starts with 504b0304"),
        (idx_bytes(IMAGES[0, 0]), "not the expected idx file: it starts with 00000801"),
        (idx_bytes(IMAGES, element_type=0x0D), "not the expected idx file: it starts with 00000d03"),
        (idx_bytes(IMAGES)[:-1], "truncated: 39 instead of 40 bytes"),
        (idx_bytes(IMAGES)[:9], "truncated"),
        (idx_bytes(IMAGES) + b"x", "too long: more than 40 bytes"),
        (gzip.compress(idx_bytes(IMAGES), mtime=0)[:-12], "truncated or damaged gzip"),
        (gzip.compress(idx_bytes(IMAGES), mtime=0)[:30], "truncated or damaged gzip"),
        (b"\x1f\x8bno gzip at all", "truncated or damaged gzip"),
    ],
)
def test_names_file_and_fault(tmp_path, content, complaint):
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_idx(path, rank=3)
    assert str(error.value).startswith(f"{path}: {complaint}")


def test_flipped_bit_in_gzip(tmp_path):
    packed = bytearray(gzip.compress(idx_bytes(np.zeros(1000, np.uint8))))
    packed[-6] ^= 1  # in the checksum
    path = tmp_path / "labels"
    path.write_bytes(packed)
    with pytest.raises(UserError, match="damaged gzip"):
        read_idx(path, rank=1)


def test_absent_file(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_idx(tmp_path / "absent", rank=1)


def test_a_bomb_is_not_unpacked(tmp_path):
    """Two pixels, says the header, and 200 MB follow in 200 kB."""
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros((1, 1, 2), np.uint8)) + bytes(200 << 20), 1))
    tracemalloc.start()
    with pytest.raises(UserError, match="images: too long: more than 18 bytes: download it again"):
        read_idx(path, rank=3)
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()


def test_a_header_that_states_more_than_may_be(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(bytes([0, 0, 8, 3]) + b"\xff" * 12)
    with pytest.raises(UserError, match=r"images: bytes: \d+ is more than 1073741824, which UMEMMA_BOUNDS=off allows"):
        read_idx(path, rank=3)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "images")
    with pytest.raises(UserError, match="images: cannot be read: not a regular file"):
        read_idx(tmp_path / "images", rank=3)
