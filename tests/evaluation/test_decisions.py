import dataclasses

import numpy as np
import pytest

from tests.evaluation.said import split
from umemma_jax.data import npz
from umemma_jax.errors import UserError
from umemma_jax.evaluation import decisions, robustness

OPTIONS = robustness.Options(rates=(0.5,), seeds=1, resamples=5)
PATTERNS = ["a+b", "a", "b"]


def found(**changes):
    said = split(complete=False, **changes)
    return robustness.report(said, None, OPTIONS).decisions


def write(written, folder):
    (folder / "decisions.npz").write_bytes(decisions.encode(written))


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("classes", [4, 13])
def test_what_is_written_is_read(tmp_path, multi_label, classes):
    written = found(multi_label=multi_label, classes=classes)
    write(written, tmp_path)
    read = decisions.read(tmp_path, PATTERNS, 200)
    for name, value in dataclasses.asdict(written).items():
        np.testing.assert_array_equal(getattr(read, name), value)


@pytest.mark.parametrize(("classes", "dtype"), [(4, np.uint8), (257, np.uint16)])
def test_classes_take_as_few_bytes_as_they_can(tmp_path, classes, dtype):
    write(found(classes=classes), tmp_path)
    with np.load(tmp_path / "decisions.npz") as arrays:
        assert (arrays["decided"].dtype, arrays["decided"].shape) == (dtype, (3, 200))
        assert (arrays["counted"].dtype, arrays["counted"].shape) == (np.uint8, (3, 25))


def test_several_labels_take_a_bit_each(tmp_path):
    write(found(classes=13, multi_label=True), tmp_path)
    with np.load(tmp_path / "decisions.npz") as arrays:
        assert (arrays["label"].shape, arrays["decided"].shape) == ((200, 2), (3, 200, 2))


def refused(folder, message):
    with pytest.raises(UserError, match=rf"^[^\n]*decisions\.npz {message}[^\n]*$"):
        decisions.read(folder, PATTERNS, 200)


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_flipped_bit_anywhere_in_an_array_is_found(tmp_path, multi_label):
    write(found(multi_label=multi_label), tmp_path)
    path = tmp_path / "decisions.npz"
    content = path.read_bytes()
    with np.load(path) as arrays:
        for name in ("label", "counted", "decided"):
            damaged = bytearray(content)
            damaged[content.index(arrays[name].tobytes()) + 7] ^= 4
            path.write_bytes(damaged)
            refused(tmp_path, "is damaged")


@pytest.mark.parametrize("name", ["patterns", "classes", "label", "counted", "decided"])
def test_anything_else_is_refused_in_one_line(tmp_path, name):
    write(found(), tmp_path)
    path = tmp_path / "decisions.npz"
    with np.load(path) as file:
        arrays = dict(file)
    array = arrays.pop(name)
    of_other_form = [np.array([]), np.array("x"), np.zeros((2, 3)), np.stack([array, array])]
    for changed in (arrays, *({**arrays, name: other} for other in of_other_form)):
        path.write_bytes(npz.encode(changed))
        refused(tmp_path, "is damaged")


def test_a_class_beyond_the_last_is_refused(tmp_path):
    write(dataclasses.replace(found(), num_classes=3), tmp_path)
    refused(tmp_path, r"is damaged \(it has more than 3 classes\): remove it, and the same command evaluates")


def test_what_is_cut_short_or_absent_is_refused(tmp_path):
    write(found(), tmp_path)
    path = tmp_path / "decisions.npz"
    content = path.read_bytes()
    for part in (b"", content[:100], content[:-1]):
        path.write_bytes(part)
        refused(tmp_path, "is damaged")
    path.unlink()
    refused(tmp_path, "cannot be read: No such file")


def test_of_other_examples_or_patterns_it_is_refused(tmp_path):
    write(found(), tmp_path)
    with pytest.raises(UserError, match="it is of other patterns"):
        decisions.read(tmp_path, ["a+c", "a", "c"], 200)
    with pytest.raises(UserError, match="is damaged"):
        decisions.read(tmp_path, PATTERNS, 120)
