import numpy as np
import pytest

from data_prep.assemble import RawExample, check_ids, sorted_classes, stratified, write_dataset
from data_prep.prep_report import Report
from tests.data_prep.prepared import read_features
from umemma_jax.data.dataset import DatasetWriter, Modality
from umemma_jax.errors import UserError


@pytest.mark.parametrize("shares", [[0.1], [0.1, 0.1], [0.3, 0.2], [0.0, 0.25]])
def test_every_class_in_proportion(shares):
    classes = np.repeat(np.arange(4), [1000, 40, 7, 1])
    parts = stratified(np.random.default_rng(1).permutation(classes), shares, np.random.default_rng(0))
    shuffled = np.random.default_rng(1).permutation(classes)
    for label, size in enumerate([1000, 40, 7, 1]):
        counts = np.bincount(parts[shuffled == label], minlength=len(shares) + 1)
        assert counts[0] >= 1
        np.testing.assert_allclose(counts[1:], np.multiply(shares, size), atol=1)


def test_the_draw_is_random_and_seeded():
    draws = [stratified(np.zeros(100), [0.5], np.random.default_rng(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_almost_everything_in_other_parts():
    parts = stratified(np.zeros(5), [0.5, 0.5], np.random.default_rng(0))
    assert np.bincount(parts).tolist()[0] == 1
    assert len(parts) == 5


def test_class_order():
    assert sorted_classes({"10", "9", "2"}) == ["2", "9", "10"]
    assert sorted_classes({"10", "9", "b"}) == ["10", "9", "b"]


def test_ids_are_unique():
    with pytest.raises(UserError, match=r"table\.csv: id 'x' comes 2 times"):
        check_ids([RawExample("train", "x", 0), RawExample("test", "x", 0)], "table.csv")


def test_without_any_file(tmp_path):
    """Nothing to read: no process is started, and what is at hand is written in order."""
    writer = DatasetWriter(
        tmp_path / "out",
        name="texts",
        description="",
        classes=["a", "b"],
        modalities={"text": Modality(kind="text", encoding="utf-8")},
    )
    examples = [RawExample("train", str(n), n % 2, values={"text": f"text {n}"}) for n in range(5)]
    write_dataset(writer, str(tmp_path / "out"), examples, Report(), processes=4)
    read = read_features(tmp_path / "out", "train")
    assert [example["text"] for example in read] == [f"text {n}" for n in range(5)]
