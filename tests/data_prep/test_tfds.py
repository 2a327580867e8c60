import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tests.data_prep.prepared import contents, read_features
from tests.data_prep.raw_photos import photo_bytes
from tests.data_prep.tiny_pairs import SIZES, TinyPairs
from umemma_jax.data.dataset import open_dataset
from umemma_jax.data_prep import tfds as prep
from umemma_jax.data_prep.build.prep_report import FILE_NAME, UNREADABLE
from umemma_jax.data_prep.raw.columns import Column
from umemma_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
ALL = (
    Column("image", "image", ("photo",)),
    Column("audio", "audio", ("clip",)),
    Column("text", "text", ("title",)),
    Column("tabular", "tabular", ("box/corners", "number")),
)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The folder of the dataset on disk."""
    builder = TinyPairs(data_dir=tmp_path_factory.mktemp("tfds"), file_format="array_record")
    builder.download_and_prepare()
    return Path(builder.data_dir)


def prepare(stored, out, **options):
    options = {"modalities": ALL, "label": "kind", "max_unreadable": 0.5, **options}
    prep.prepare(str(out), dataset=str(stored), **options)
    return out


def number_of(example):
    return int(np.frombuffer(example["tabular"], "<f4")[4])


def report(out):
    return {kind: problem["entries"] for kind, problem in json.loads((out / FILE_NAME).read_text()).items()}


def test_every_record_arrives(tmp_path, stored):
    out = prepare(stored, tmp_path / "out")
    info = open_dataset(out).info
    assert info.name == "tiny_pairs"
    assert info.classes == ("odd", "even")
    examples = {split: read_features(out, split) for split in ("train", "val", "test")}
    assert {split: sorted(map(number_of, of_split)) for split, of_split in examples.items()} == {
        "train": [number for number in range(20) if number != 5],
        "val": list(range(20, 24)),
        "test": list(range(24, 30)),
    }
    for example in [example for of_split in examples.values() for example in of_split]:
        number = number_of(example)
        assert example["label"] == [(number + 1) % 2]
        assert example.get("image") == (photo_bytes(number) if number != 3 else None)
        assert example.get("text") == (f"Number {number}" if number != 4 else None)
        assert np.frombuffer(example["audio"], "<i2").tolist() == [512 * sample for sample in range(number + 1)]
        assert np.frombuffer(example["tabular"], "<f4").tolist() == [number] * 5
    assert list(report(out)) == [prep.NO_LABEL, UNREADABLE]
    (unreadable,) = report(out)[UNREADABLE]
    assert unreadable.endswith(f"of train in {stored}: UnidentifiedImageError: cannot identify image file")


def test_number_of_processes_changes_nothing(tmp_path, stored):
    one, three = (prepare(stored, tmp_path / str(processes), processes=processes) for processes in (1, 3))
    assert contents(one) == contents(three)


def test_several_labels(tmp_path, stored):
    out = prepare(stored, tmp_path / "out", label="kinds")
    assert open_dataset(out).info.multi_label
    assert {number_of(e): e["label"] for e in read_features(out, "train")} == {n: [0, 1][: n % 3] for n in range(20)}


@pytest.mark.parametrize(("label", "classes"), [("word", ("even", "odd")), ("number", tuple(map(str, range(10))))])
def test_texts_and_numbers_as_labels(tmp_path, stored, label, classes):
    slices = {"train": "train", "val": "train[:25%]", "test": "train[25%:50%]"} if label == "number" else {}
    out = prepare(stored, tmp_path / "out", label=label, **slices)
    assert open_dataset(out).info.classes[: len(classes)] == classes
    for example in read_features(out, "test"):
        expected = str(number_of(example)) if label == "number" else ("even", "odd")[number_of(example) % 2]
        assert open_dataset(out).info.classes[example["label"][0]] == expected


def test_splits_by_choice(tmp_path, stored):
    out = prepare(stored, tmp_path / "out", train="train[:50%]+extra", val="train[50%:]")
    sizes = {name: split.examples for name, split in open_dataset(out).info.splits.items()}
    assert sizes["train"] + sizes["val"] == SIZES["train"] + SIZES["extra"] - 1  # one has no label
    assert {number_of(example) for example in read_features(out, "train")} >= {30, 31}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (
            {"label": "genre"},
            "the dataset has no feature 'genre'; it has: box/corners, clip, kind, kinds, number, photo",
        ),
        ({"label": "clip"}, "--label: feature 'clip' is Tensor"),
        ({"modalities": (Column("image", "image", ("title",)),)}, "--image: feature 'title' is Text, not Image"),
        ({"modalities": (Column("text", "text", ("photo",)),)}, "--text: feature 'photo' is Image, not Text"),
        ({"modalities": (Column("audio", "audio", ("number",)),)}, "'number' is not a sequence of samples"),
        ({"modalities": (Column("tabular", "tabular", ("clip",)),)}, "--tabular: clip: not of a fixed size"),
        ({"train": "trian"}, "--train=trian: no such split"),
        ({"test": "test[:x]"}, r"--test=test\[:x\]: no such split"),
        ({"modalities": None}, "no modality"),
        (
            {"test": "extra", "train": "test", "label": "number"},
            "record .*: class '20' is never seen in the train split",
        ),
    ],
)
def test_one_line(tmp_path, stored, options, complaint):
    with pytest.raises(UserError, match=complaint) as error:
        prepare(stored, tmp_path / "out", **options)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_unknown_dataset(tmp_path):
    with pytest.raises(UserError, match=r"--dataset=no_such_dataset: neither a dataset of tensorflow-datasets nor a"):
        prepare("no_such_dataset", tmp_path / "out")
    with pytest.raises(UserError, match=r"absent: cannot be opened .*: check the name, or give a folder with"):
        prepare(tmp_path / "absent", tmp_path / "out")


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is not None, reason="TensorFlow is installed")
def test_dataset_that_needs_tensorflow(tmp_path):
    with pytest.raises(UserError, match=r"--dataset=spoken_digit: needs .*, which is not installed: install it, or"):
        prepare("spoken_digit", tmp_path / "out", data_dir=str(tmp_path / "data"))


def test_stored_as_tfrecord(tmp_path, stored, monkeypatch):
    monkeypatch.setattr(tfds.core.DatasetInfo, "file_format", tfds.core.FileFormat.TFRECORD)
    with pytest.raises(UserError, match="stored as tfrecord, which needs TensorFlow: convert it to array_record"):
        prepare(stored, tmp_path / "out")


def test_command(tmp_path, stored):
    command = [sys.executable, "-m", "data_prep.tfds", f"--dataset={stored}", "--image=photo", "--text=caption=title"]
    command += ["--label=kind", "--max-unreadable=0.1", f"--out={tmp_path}/out"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert list(open_dataset(tmp_path / "out").info.modalities) == ["image", "caption"]
