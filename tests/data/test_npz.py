"""Arrays are read as NumPy writes them, and whatever is wrong with a file is one kind of error."""

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest

from umemma_jax.data import npz

ARRAYS = {
    "a/b": np.arange(12, dtype=np.int32).reshape(3, 4),
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "bool": np.array([True, False]),
    "empty": np.zeros((0, 3), np.float32),
    "scalar": np.array(3.5),
}


def test_what_is_written_is_read_as_numpy_reads_it():
    data = npz.encode(ARRAYS)
    found, expected = npz.decode(io.BytesIO(data)), dict(np.load(io.BytesIO(data)))
    assert found.keys() == expected.keys() == ARRAYS.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name])
        assert array.dtype == expected[name].dtype


def archive(content: bytes, name: str = "a.npy", compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        file.writestr(name, content)
    return buffer.getvalue()


def array_file(header: str, data: bytes = b"", version: bytes = b"\1\0") -> bytes:
    """An .npy file with any header."""
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header.encode() + data


def pickled() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], object), allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no archive",
        npz.encode(ARRAYS)[:-30],
        npz.encode(ARRAYS)[30:],
        archive(b"no array"),
        archive(pickled()),
        archive(pickle.dumps([1])),
        archive(array_file("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }\n")),
        archive(array_file("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }\n", bytes(8))),
        archive(array_file("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }\n", bytes(9))),
        archive(array_file("{'descr': '<f8'}\n", bytes(8))),
        archive(array_file("(" * 5000 + "\n")),
        archive(array_file("{}\n", version=b"\7\0")),
        archive(bytes(10**7), compression=zipfile.ZIP_DEFLATED),
    ],
    ids=[
        "empty",
        "other",
        "cut",
        "beheaded",
        "no array",
        "objects",
        "pickle",
        "huge",
        "negative",
        "longer",
        "no shape",
        "nested",
        "version",
        "packed",
    ],
)
def test_what_is_no_such_file_is_a_value_error_of_one_line(data: bytes):
    with pytest.raises(ValueError, match=r"^damaged, ") as caught:
        npz.decode(io.BytesIO(data))
    assert "\n" not in str(caught.value)


def test_every_flipped_bit_is_found_or_harmless():
    data = npz.encode({"a": np.arange(3), "b": np.zeros(2)})
    expected = {name: array.tobytes() for name, array in npz.decode(io.BytesIO(data)).items()}
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            found = npz.decode(io.BytesIO(damaged))
        except ValueError:
            continue
        if found.keys() == expected.keys():  # names are not in the archive's checksums
            assert {name: array.tobytes() for name, array in found.items()} == expected
