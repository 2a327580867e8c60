import json
from pathlib import Path

import numpy as np
import pytest

from tests.data_prep.conversions import FirstLine, FirstTwoLines
from tests.data_prep.prepared import read_features
from umemma_jax.data.dataset import DatasetWriter, Modality
from umemma_jax.data_prep.build.assemble import (
    UNSEEN,
    RawExample,
    check_ids,
    labelled,
    stratified,
    trained_classes,
    unlabelled,
    write_dataset,
)
from umemma_jax.data_prep.build.prep_report import DAMAGED, FILE_NAME, Report
from umemma_jax.data_prep.build.tasks import FileTask
from umemma_jax.data_prep.raw.photos import ToJpeg
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


def test_classes_that_training_never_sees():
    """Their examples are dropped where that is asked for, and the others' labels name the classes that are left."""
    examples = [
        RawExample("train", "1", 1),
        RawExample("test", "2", 2),
        RawExample("test", "3", (1, 3)),
        RawExample("train", "4", (3,)),
        RawExample("test", "5", ()),
    ]
    report = Report()
    left, classes = trained_classes(examples, "abcd", lambda example: f"line {example.id}", report, drop_unseen=True)
    assert classes == ["a", "b", "d"]  # the first has no example at all, as where classes are listed
    assert [(example.id, example.label) for example in left] == [("1", 1), ("3", (1, 2)), ("4", (2,)), ("5", ())]
    assert json.loads(report.encoded()) == {UNSEEN: {"count": 1, "entries": ["line 2: 'c'"]}}
    with pytest.raises(UserError, match=r"line 2: class 'c' is never seen .*, or drop the 1 examples .*--drop-unseen"):
        trained_classes(examples, "abcd", lambda example: f"line {example.id}", report, drop_unseen=False)
    with pytest.raises(UserError, match="line 2: no example with a class is in the train split"):
        trained_classes(examples[1:3], "abcd", lambda example: f"line {example.id}", report, drop_unseen=True)


def test_ids_are_unique():
    with pytest.raises(UserError, match=r"table\.csv: id 'x' comes 2 times"):
        check_ids([RawExample("train", "x", 0), RawExample("test", "x", 0)], "table.csv")


def test_what_is_found_is_a_task_or_at_hand_or_missing():
    task, vector = FileTask(ToJpeg(8), Path("x.png")), np.zeros(2, np.float32)
    example = unlabelled("train", "x", {"image": task, "audio": None, "text": "", "vector": vector})
    assert example == RawExample("train", "x", None, {"image": task}, {"text": "", "vector": vector})


@pytest.mark.parametrize(
    ("names", "multi_label", "labels"),
    [
        ([("c",), ("a",), ("c",)], False, [2, 0, 2]),
        ([("c", "a"), (), ("b",)], True, [(0, 2), (), (1,)]),
    ],
)
def test_labels_are_indices_of_classes(names, multi_label, labels):
    examples = [unlabelled("train", str(n), {"text": "x"}) for n in range(3)]
    found = labelled(examples, names, ["a", "b", "c"], multi_label)
    assert found == [RawExample("train", str(n), label, {}, {"text": "x"}) for n, label in enumerate(labels)]


@pytest.fixture
def writer(tmp_path):
    return DatasetWriter(
        tmp_path / "out",
        name="texts",
        description="",
        classes=["a", "b"],
        modalities={"text": Modality(kind="text", encoding="utf-8")},
    )


def test_without_any_file(tmp_path, writer):
    """Nothing to read: no process is started, and what is at hand is written in order."""
    examples = [RawExample("train", str(n), n % 2, values={"text": f"text {n}"}) for n in range(5)]
    write_dataset(writer, str(tmp_path / "out"), examples, Report(), processes=4)
    read = read_features(tmp_path / "out", "train")
    assert [example["text"] for example in read] == [f"text {n}" for n in range(5)]


def test_what_is_left_of_a_damaged_file_is_kept_and_said(tmp_path, writer):
    (tmp_path / "whole.txt").write_text("whole")
    (tmp_path / "damaged.txt").write_text("one\ntwo\nthree")
    paths = [tmp_path / "whole.txt", tmp_path / "damaged.txt"]
    examples = [RawExample("train", path.stem, 0, {"text": FileTask(FirstLine(), path)}) for path in paths]
    write_dataset(writer, str(tmp_path / "out"), examples, Report(), processes=1)
    assert [example["text"] for example in read_features(tmp_path / "out", "train")] == ["whole", "one"]
    assert json.loads((tmp_path / "out" / FILE_NAME).read_text()) == {
        DAMAGED: {"count": 1, "entries": [f"{tmp_path}/damaged.txt: 2 more lines"]}
    }


def test_a_file_that_gives_two_modalities_is_read_once(tmp_path):
    """And one that lacks the second is no unreadable file."""
    out, text = tmp_path / "out", Modality(kind="text", encoding="utf-8")
    writer = DatasetWriter(out, name="two", description="", classes=["a"], modalities={"first": text, "second": text})
    (tmp_path / "both.txt").write_text("one\ntwo")
    (tmp_path / "one.txt").write_text("one")
    paths = [tmp_path / "both.txt", tmp_path / "one.txt"]
    examples = [RawExample("train", path.stem, 0, {"both": FileTask(FirstTwoLines(), path)}) for path in paths]
    write_dataset(writer, str(out), examples, Report(), processes=1)
    found = [{name: example.get(name) for name in ("first", "second")} for example in read_features(out, "train")]
    assert found == [{"first": "one", "second": "two"}, {"first": "one", "second": None}]
    assert json.loads((out / FILE_NAME).read_text()) == {}
