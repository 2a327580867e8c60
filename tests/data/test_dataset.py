"""Prepared datasets: what is written is read, and everything that can go wrong leaves nothing half-written."""

import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.data.conftest import (
    CLASSES,
    MODALITIES,
    edit,
    make_examples,
    replace_records,
    unsealed,
    write_dataset,
)
from umemma_jax.data import example, jpeg, tfrecord
from umemma_jax.data.dataset import FORMAT_VERSION, Dataset, DatasetWriter, Modality, open_dataset
from umemma_jax.data.incomplete import IncompleteDataset
from umemma_jax.errors import UserError


def writer(path: Path, **changes) -> DatasetWriter:
    arguments = {"name": "n", "description": "d", "classes": CLASSES, "modalities": MODALITIES}
    return DatasetWriter(path, **arguments | changes)


def test_what_is_written_is_read(tmp_path: Path):
    splits = {"train": make_examples(50, missing=True), "test": make_examples(20, missing=True)}
    dataset = write_dataset(tmp_path / "a" / "b" / "small", **splits)
    info = dataset.info
    assert (info.name, info.description, info.source) == ("small", "Random values.", {"seed": 0})
    assert info.classes == CLASSES
    assert not info.multi_label
    assert list(info.modalities) == list(MODALITIES)
    for split, examples in splits.items():
        counts = info.splits[split]
        assert counts.examples == len(examples)
        assert len(counts.shards) > 1
        labels = [e["label"] for e in examples]
        assert counts.classes == tuple(np.bincount(labels, minlength=3))
        assert counts.present == {name: sum(name in e for e in examples) for name in MODALITIES}
        source = dataset.source(split)
        assert len(source) == len(examples)
        for record, expected in zip(source, examples, strict=True):
            features = example.decode(record)
            assert example.bytes_value(features, "id") == expected["id"].encode()
            assert example.int64_values(features, "label") == [expected["label"]]
            for name in MODALITIES:
                value = expected[name].tobytes() if name in expected else None
                assert example.bytes_value(features, name) == value


def test_files_of_a_dataset(tmp_path: Path):
    dataset = write_dataset(tmp_path / "small", train=make_examples(30), test=make_examples(3))
    expected = {"dataset.json", "statistics.npz", "rows.npz"}
    for split in dataset.info.splits.values():
        for number, shard in enumerate(split.shards):
            assert shard.file.endswith(f"-{number:05d}-of-{len(split.shards):05d}.tfrecord")
            assert (dataset.path / shard.file).stat().st_size == shard.bytes
            expected |= {shard.file, shard.file + ".index"}
    assert set(os.listdir(dataset.path)) == expected
    assert os.listdir(tmp_path) == ["small"]
    assert json.loads((dataset.path / "dataset.json").read_text())["format_version"] == FORMAT_VERSION


def test_statistics_are_of_the_train_split(tmp_path: Path):
    train = make_examples(40, missing=True)
    dataset = write_dataset(tmp_path / "small", train=train, test=make_examples(300))
    images = np.stack([e["image"] for e in train if "image" in e]).astype(np.float64)
    waves = [e["audio"].astype(np.float64) for e in train if "audio" in e]
    rows = np.stack([e["table"] for e in train if "table" in e]).astype(np.float64)
    modalities = dataset.info.modalities
    np.testing.assert_allclose(modalities["image"].mean, images.mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(modalities["image"].std, images.std(axis=(0, 1, 2)))
    np.testing.assert_allclose(modalities["audio"].mean, [np.concatenate(waves).mean()])
    np.testing.assert_allclose(modalities["audio"].std, [np.concatenate(waves).std()])
    np.testing.assert_allclose(modalities["table"].mean, rows.mean(axis=0))
    np.testing.assert_allclose(modalities["table"].std, rows.std(axis=0))

    assert modalities["audio"].max_samples == 39  # of all splits: 300 draws from 1..39 hit it
    padded = np.stack([np.pad(wave, (0, 39 - len(wave))) for wave in waves])
    assert all(mean.dtype == np.float32 for mean in dataset.statistics.values())
    np.testing.assert_allclose(dataset.statistics["image"], images.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(dataset.statistics["audio"], padded.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(dataset.statistics["table"], rows.mean(axis=0), rtol=1e-6)


def test_without_train_split_there_are_no_statistics(tmp_path: Path):
    dataset = write_dataset(tmp_path / "small", test=make_examples(40))
    assert dataset.statistics == {}
    assert dataset.info.modalities["image"] == MODALITIES["image"]
    assert dataset.info.modalities["audio"].max_samples == 39


def test_tensorflow_reads_our_shards(tmp_path: Path):
    tf = pytest.importorskip("tensorflow", reason="an independent reader; not needed otherwise")
    examples = make_examples(30, missing=True)
    dataset = write_dataset(tmp_path / "small", train=examples)
    files = [str(dataset.path / shard.file) for shard in dataset.info.splits["train"].shards]
    spec = {name: tf.io.FixedLenFeature([], tf.string, "") for name in ("id", *MODALITIES)}
    spec["label"] = tf.io.FixedLenFeature([], tf.int64)
    parsed = [tf.io.parse_single_example(r, spec) for r in tf.data.TFRecordDataset(files)]
    for got, expected in zip(parsed, examples, strict=True):
        assert got["id"].numpy().decode() == expected["id"]
        assert got["label"].numpy() == expected["label"]
        for name in MODALITIES:
            value = expected[name].tobytes() if name in expected else b""
            assert got[name].numpy() == value


def test_equal_input_gives_equal_records(tmp_path: Path):
    for name in ("a", "b"):
        write_dataset(tmp_path / name, train=make_examples(30))
    for a, b in zip(*(sorted((tmp_path / n).glob("*.tfrecord*")) for n in "ab"), strict=True):
        assert a.read_bytes() == b.read_bytes()


def test_fingerprint_tells_datasets_apart(tmp_path: Path):
    same, again, other = (
        write_dataset(tmp_path / name, train=make_examples(n)).fingerprint
        for name, n in (("a", 30), ("b", 30), ("c", 31))
    )
    assert same == again != other


def test_folder_is_as_open_as_any_other(tmp_path: Path):
    (tmp_path / "plain").mkdir()
    dataset = write_dataset(tmp_path / "small", train=make_examples(30))
    assert dataset.path.stat().st_mode == (tmp_path / "plain").stat().st_mode


# Ids

IDS = ["plain", "Café 日本", "ÿ", "ends in NUL\0", "\0", " two\nlines, and blanks ", "x" * 3000]


@pytest.fixture(params=["rows.npz", "records, rows.npz without ids", "records, no rows.npz"])
def write_ids(request, tmp_path: Path):
    """A function that writes examples with these ids, and leaves them in rows.npz alone or in the records alone."""

    def write_ids(ids: list[str]) -> Dataset:
        examples = [e | {"id": id} for e, id in zip(make_examples(len(ids)), ids, strict=True)]
        dataset = write_dataset(tmp_path / "small", train=examples)
        if request.param == "rows.npz":
            for path in dataset.path.glob("*.tfrecord"):
                path.write_bytes(bytes(path.stat().st_size))
        elif request.param == "records, no rows.npz":
            (dataset.path / "rows.npz").unlink()
            dataset = unsealed(dataset)
        else:
            edit_rows(unsealed(dataset).path, **{"train/ids": None})
            dataset = open_dataset(dataset.path)
        return dataset

    return write_ids


def edit_rows(path: Path, **changes) -> None:
    """Changes arrays of rows.npz; None removes one."""
    arrays = dict(np.load(path / "rows.npz")) | changes
    np.savez(path / "rows.npz", **{name: values for name, values in arrays.items() if values is not None})


@pytest.mark.parametrize("ids", [IDS, IDS[::-1], [f"example {i}" for i in range(300)]], ids=["odd", "reversed", "many"])
def test_any_id_comes_back(write_ids, ids: list[str]):
    source = write_ids(ids).source("train")
    assert source.ids() == ids
    np.testing.assert_array_equal(source.labels(), np.arange(len(ids)) % 3)


def test_ids_of_an_incomplete_dataset(write_ids):
    dataset = IncompleteDataset(write_ids(IDS), {"train": np.zeros((len(IDS), 1), bool)}, ["image"])
    assert dataset.source("train").ids() == IDS


def test_ids_in_rows_are_utf_8_each_with_a_byte_behind_it_that_utf_8_never_has(tmp_path: Path):
    examples = [e | {"id": id} for e, id in zip(make_examples(2), ("é", "b\0"), strict=True)]
    rows = np.load(write_dataset(tmp_path / "small", train=examples).path / "rows.npz")
    assert rows["train/ids"].dtype == np.uint8
    assert rows["train/ids"].tobytes() == b"\xc3\xa9\xffb\0\xff"


def write_weights(path: Path, weights: list[float | None]) -> Dataset:
    return write_dataset(
        path, train=[e | {"sample_weight": w} for e, w in zip(make_examples(len(weights)), weights, strict=True)]
    )


@pytest.mark.parametrize("from_records", [False, True])
def test_weights_of_the_rows_in_training(tmp_path: Path, from_records: bool):
    source = write_weights(tmp_path / "weighted", [0.0, 0.1, 2.5]).source("train")
    if from_records:
        source._columns = None
    assert source.weights().dtype == np.float32
    assert source.weights().tolist() == np.float32([0, 0.1, 2.5]).tolist()
    assert write_weights(tmp_path / "plain", [None, None]).source("train").weights() is None


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf, 1e39])
def test_weights_that_are_none(tmp_path: Path, weight: float):
    with pytest.raises(ValueError, match=r"example 'example 0': weight .* is not a finite number from 0 on"):
        write_weights(tmp_path / "weighted", [weight])


def test_weights_of_some_rows_only(tmp_path: Path):
    with pytest.raises(ValueError, match="example 'example 1' has no weight, unlike those before it"):
        write_weights(tmp_path / "weighted", [1.0, None])


def test_ids_of_another_number_of_rows(tmp_path: Path):
    dataset = unsealed(write_dataset(tmp_path / "small", train=make_examples(3)))
    edit_rows(dataset.path, **{"train/ids": np.frombuffer(b"0\xff1\xff", np.uint8)})
    with pytest.raises(UserError, match=r"rows\.npz: not of these records: remove it, or prepare the dataset again$"):
        dataset.source("train")


def test_record_without_id(tmp_path: Path):
    dataset = replace_records(write_dataset(tmp_path / "small", train=make_examples(2)), {"label": [1]})
    with pytest.raises(UserError, match=r"train-00000-of-00001\.tfrecord: record 1: no id: prepare the dataset again$"):
        dataset.source("train").ids()


# Writing where something is already


def test_empty_folder_is_filled(tmp_path: Path):
    (tmp_path / "small").mkdir()
    write_dataset(tmp_path / "small", train=make_examples(3))


def test_refuses_to_overwrite_before_any_work(tmp_path: Path):
    write_dataset(tmp_path / "small", train=make_examples(3))
    before = (tmp_path / "small" / "dataset.json").read_bytes()
    with pytest.raises(UserError, match=r"small: is not empty: .*--overwrite"):
        writer(tmp_path / "small")
    assert os.listdir(tmp_path) == ["small"]
    assert (tmp_path / "small" / "dataset.json").read_bytes() == before


def test_overwrites_when_told_to(tmp_path: Path):
    write_dataset(tmp_path / "small", train=make_examples(40))
    dataset = write_dataset(tmp_path / "small", overwrite=True, train=make_examples(3))
    assert len(dataset.source("train")) == 3
    assert os.listdir(tmp_path) == ["small"]
    assert len(list(dataset.path.glob("*.tfrecord"))) == len(dataset.info.splits["train"].shards)


def test_never_overwrites_what_is_no_dataset(tmp_path: Path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("precious")
    with pytest.raises(UserError, match="is not a prepared dataset"):
        writer(tmp_path / "thesis", overwrite=True)
    with pytest.raises(UserError, match="is a file"):
        writer(tmp_path / "thesis" / "chapter.tex", overwrite=True)


def test_does_not_overwrite_what_came_meanwhile(tmp_path: Path):
    with pytest.raises(UserError, match="is not empty"), writer(tmp_path / "small") as late:
        write_dataset(tmp_path / "small", train=make_examples(3))
        for e in make_examples(5):
            late.write("train", **e)
    assert len(open_dataset(tmp_path / "small").source("train")) == 3
    assert os.listdir(tmp_path) == ["small"]


# Writing that fails


class Interrupted(BaseException):
    """Stands for KeyboardInterrupt, which would stop pytest itself where it escapes."""


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("error", [RuntimeError, Interrupted])
def test_interrupted_writing_leaves_everything_as_it_was(tmp_path: Path, error, overwrite: bool):
    if overwrite:
        write_dataset(tmp_path / "deep" / "small", train=make_examples(7))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error), writer(tmp_path / "deep" / "small", overwrite=overwrite) as w:
        for e in make_examples(50):
            w.write("train", **e)
        raise error
    assert sorted(tmp_path.rglob("*")) == before
    if overwrite:
        assert len(open_dataset(tmp_path / "deep" / "small").source("train")) == 7


@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.rename", "pathlib.Path.mkdir"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_disk_full(tmp_path: Path, monkeypatch, call: str, overwrite: bool):
    if overwrite:
        write_dataset(tmp_path / "small", train=make_examples(7))
    before = sorted(tmp_path.rglob("*"))

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(call, full)
        message = r"small: cannot be written \(No space left on device\)"
        w = writer(tmp_path / "small", overwrite=overwrite)
        with pytest.raises(UserError, match=message), w:
            for e in make_examples(50):
                w.write("train", **e)
    assert sorted(tmp_path.rglob("*")) == before


def test_old_dataset_comes_back_when_the_new_one_cannot_take_its_place(tmp_path: Path, monkeypatch):
    write_dataset(tmp_path / "small", train=make_examples(7))
    rename = Path.rename

    def fail_once(self, target):
        if ".partial-" in self.name:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_once)
    with pytest.raises(UserError, match="Input/output error"):
        write_dataset(tmp_path / "small", overwrite=True, train=make_examples(3))
    assert os.listdir(tmp_path) == ["small"]
    assert len(open_dataset(tmp_path / "small").source("train")) == 7


LIMITED = """
import sys, numpy as np
from umemma_jax.data.dataset import DatasetWriter, Modality
from umemma_jax.errors import UserError
try:
    with DatasetWriter(
        sys.argv[1], name="n", description="d", classes=["a"],
        modalities={"image": Modality("image", "raw", shape=(100, 100, 3))},
    ) as writer:
        for i in range(10):
            writer.write("train", id=str(i), label=0, image=np.zeros((100, 100, 3), np.uint8))
except UserError as error:
    print(error)
"""


def test_file_that_does_not_fit(tmp_path: Path):
    """The operating system refuses to let a file grow, in the middle of a shard."""
    out = tmp_path / "made" / "small"
    limit = 100_000
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, out],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"{out}: cannot be written (File too large)")
    assert done.stdout.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_text_is_written_as_it_is_and_has_no_statistics(tmp_path: Path):
    modalities = {"image": MODALITIES["image"], "title": Modality("text", "utf-8")}
    image, titles = np.zeros((3, 4, 2), np.uint8), ["Café “Noir”,\n日本", " ", None]
    with writer(tmp_path / "small", modalities=modalities) as w:
        for i, title in enumerate(titles):
            w.write("train", id=str(i), label=0, image=image, title=title)
    dataset = open_dataset(tmp_path / "small")
    assert dataset.info.modalities["title"] == modalities["title"]
    assert list(dataset.statistics) == ["image"]
    assert dataset.info.splits["train"].present == {"image": 3, "title": 2}
    source = dataset.source("train")
    stored = [example.bytes_value(source.features(row), "title") for row in range(3)]
    assert stored == [title and title.encode() for title in titles]
    np.testing.assert_array_equal(source.present(["title"])[:, 0], [True, True, False])


def test_empty_text_is_refused_as_it_would_read_as_absent(tmp_path: Path):
    w = writer(tmp_path / "small", modalities={"title": Modality("text", "utf-8")})
    message = "example '0': title: empty, which reads as absent: leave it out"
    with pytest.raises(ValueError, match=message), w:
        w.write("train", id="0", label=0, title="")


def test_text_that_never_occurs(tmp_path: Path):
    w = writer(tmp_path / "small", modalities=MODALITIES | {"title": Modality("text", "utf-8")})
    with pytest.raises(UserError, match="no example has the modality 'title'"), w:
        for example_ in make_examples(3):
            w.write("train", **example_)


def test_jpeg_images_are_written_as_they_are(tmp_path: Path):
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (20, 3))
    files = [jpeg.encode(np.full((40 + i, 90 - i, 3), colour, np.uint8)) for i, colour in enumerate(colours)]
    modalities = {"image": Modality(kind="image", encoding="jpeg")}
    with writer(tmp_path / "photos", modalities=modalities) as output:
        for i, file in enumerate(files):
            output.write("train" if i < 15 else "test", id=str(i), label=0, image=file)
    dataset = open_dataset(tmp_path / "photos")
    assert [example.bytes_value(dataset.source("test").features(i), "image") for i in range(5)] == files[15:]
    image = dataset.info.modalities["image"]
    np.testing.assert_allclose(image.mean, colours[:15].mean(axis=0), atol=2)  # JPEG is not exact
    np.testing.assert_allclose(image.std, colours[:15].std(axis=0), atol=2)
    assert dataset.statistics["image"].shape == (64, 64, 3)
    np.testing.assert_allclose(dataset.statistics["image"], np.broadcast_to(image.mean, (64, 64, 3)), atol=1e-3)


def test_damaged_jpeg_image_is_refused(tmp_path: Path):
    file = jpeg.encode(np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8))
    modalities = {"image": Modality(kind="image", encoding="jpeg")}
    with (
        pytest.raises(ValueError, match="example '0': image: Premature end of JPEG file"),
        writer(tmp_path / "photos", modalities=modalities) as output,
    ):
        output.write("train", id="0", label=0, image=file[:-200])


def test_videos_are_written_as_their_frames(tmp_path: Path):
    rng = np.random.default_rng(0)
    colours = [rng.integers(0, 256, (1 + i % 4, 3)) for i in range(12)]
    videos = [[jpeg.encode(np.full((40, 60, 3), colour, np.uint8)) for colour in clip] for clip in colours]
    modalities = {"frames": Modality(kind="video", encoding="jpeg", frame_rate=1), "table": MODALITIES["table"]}
    with writer(tmp_path / "clips", modalities=modalities) as output:
        for i, video in enumerate([*videos, None]):
            split = "train" if i < 9 else "test"
            output.write(split, id=str(i), label=0, frames=video, table=np.zeros(5, np.float32))
    dataset = open_dataset(tmp_path / "clips")
    source = dataset.source("test")
    assert [example.bytes_values(source.features(i), "frames") for i in range(4)] == [*videos[9:], None]
    np.testing.assert_array_equal(source.present(["frames"])[:, 0], [True] * 3 + [False])
    frames = dataset.info.modalities["frames"]
    assert (frames.frame_rate, frames.max_frames) == (1, 4)
    seen = np.concatenate(colours[:9])
    np.testing.assert_allclose(frames.mean, seen.mean(axis=0), atol=2)  # JPEG is not exact
    np.testing.assert_allclose(frames.std, seen.std(axis=0), atol=2)
    assert dataset.statistics["frames"].shape == (64, 64, 3)
    np.testing.assert_allclose(dataset.statistics["frames"], np.broadcast_to(frames.mean, (64, 64, 3)), atol=1e-3)


def test_the_most_frames_are_those_of_all_splits(tmp_path: Path):
    frame = jpeg.encode(np.zeros((8, 8, 3), np.uint8))
    modalities = {"frames": Modality(kind="video", encoding="jpeg", frame_rate=25.0)}
    with writer(tmp_path / "clips", modalities=modalities) as output:
        for split, count in (("train", 2), ("test", 5)):
            output.write(split, id="0", label=0, frames=[frame] * count)
    assert open_dataset(tmp_path / "clips").info.modalities["frames"].max_frames == 5


def test_damaged_frame_is_refused(tmp_path: Path):
    file = jpeg.encode(np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8))
    modalities = {"frames": Modality(kind="video", encoding="jpeg", frame_rate=1.0)}
    with (
        pytest.raises(ValueError, match="example '0': frames: frame 1: Premature end of JPEG file"),
        writer(tmp_path / "clips", modalities=modalities) as output,
    ):
        output.write("train", id="0", label=0, frames=[file, file[:-200]])


def test_nothing_to_write(tmp_path: Path):
    with pytest.raises(UserError, match="gave no example"), writer(tmp_path / "small"):
        pass
    assert os.listdir(tmp_path) == []


def test_modality_that_never_occurs(tmp_path: Path):
    w = writer(tmp_path / "small")
    with pytest.raises(UserError, match="no example has the modality 'audio'"), w:
        for e in make_examples(5):
            w.write("train", **e | {"audio": None})
    assert os.listdir(tmp_path) == []


# Programmers' mistakes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": 3}, "label 3 is out of range: there are 3 classes"),
        ({"label": -1}, "label -1 is out of range"),
        ({"label": None}, "no label, but the dataset has classes"),
        ({"id": ""}, "an empty id"),
        ({"image": np.zeros((3, 4, 2))}, "example 'x': image: float64 instead of .* uint8"),
        ({"image": np.zeros((3, 4, 1), np.uint8)}, r"image: shape \(3, 4, 1\) instead of \(3, 4, 2\)"),
        ({"audio": np.zeros((3, 2), np.int16)}, "example 'x': audio: shape"),
        ({"smell": np.zeros(3)}, "no modality 'smell'"),
        ({"image": None, "audio": None, "table": None}, "no modality is present"),
        ({"id": "first"}, "example 'first' is in split 'train' already"),
        ({"split": "../train"}, "letters, digits and underscores"),
    ],
)
def test_wrong_examples(tmp_path: Path, changes, message: str):
    first = make_examples(1)[0]
    with pytest.raises(ValueError, match=message), writer(tmp_path / "small") as w:
        w.write("train", **first | {"id": "first"})
        w.write(**{"split": "train", **first, "id": "x"} | changes)
    assert os.listdir(tmp_path) == []


def test_label_must_be_an_integer(tmp_path: Path):
    with pytest.raises(TypeError), writer(tmp_path / "small") as w:
        w.write("train", **make_examples(1)[0] | {"label": 1.5})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("a", "a")}, "distinct"),
        ({"classes": (), "multi_label": True}, "multi_label, but there are no classes"),
        ({"modalities": {}}, "must be given"),
        ({"modalities": {"label": MODALITIES["image"]}}, "modality 'label'"),
        ({"modalities": {"a/b": MODALITIES["image"]}}, "letters, digits"),
        ({"modalities": {"x": Modality("image", "jpeg2000")}}, "'jpeg2000' is not known"),
    ],
)
def test_wrong_descriptions(tmp_path: Path, changes, message: str):
    with pytest.raises(ValueError, match=message):
        writer(tmp_path / "small", **changes)
    with pytest.raises(TypeError, match="JSON"):
        writer(tmp_path / "small", source={"seed": np.int64(3)})
    assert os.listdir(tmp_path) == []


# Opening what is not right


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "small", train=make_examples(30), test=make_examples(5)).path


def test_absent_folder_names_the_command_that_makes_it(tmp_path: Path):
    with pytest.raises(UserError, match=r"none: the data folder does not exist: .*`python -m x`"):
        open_dataset(tmp_path / "none", prep="python -m x")
    with pytest.raises(UserError, match=r"none: .*python -m data_prep\.<dataset>"):
        open_dataset(tmp_path / "none")


def test_folder_without_a_dataset(tmp_path: Path):
    with pytest.raises(UserError, match="is empty: make the dataset with `python -m x`"):
        open_dataset(tmp_path, prep="python -m x")
    (tmp_path / "other").touch()
    with pytest.raises(UserError, match=r"has no dataset\.json: make the dataset with `python -m x`"):
        open_dataset(tmp_path, prep="python -m x")


@pytest.mark.parametrize("version", [0, FORMAT_VERSION + 1, "1", None])
def test_other_format_version(small: Path, version):
    edit(small, format_version=version)
    with pytest.raises(UserError, match=rf"json: format_version {version!r} instead of {FORMAT_VERSION}: make"):
        open_dataset(small)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '"x"', "null", '{"format_version": 1', "\0", "\ud800".encode("utf-8", "surrogatepass")]
)
def test_broken_json(small: Path, text: str | bytes):
    (small / "dataset.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=r"dataset\.json: ") as caught:
        open_dataset(small)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": None}, "field 'classes' is missing"),
        ({"classes": "abc"}, "field 'classes' is 'abc' instead of list"),
        ({"classes": ["a", "b"]}, "splits.train: counts of other classes or modalities"),
        ({"classes": [1, 2, 3]}, "field 'classes' holds elements of a wrong type"),
        ({"multi_label": 0}, "field 'multi_label' is 0 instead of bool"),
        ({"modalities": {"image": 3}}, "modalities.image: not an object"),
        ({"modalities": {"image": {"kind": "image"}}}, "modalities.image: field 'encoding' is missing"),
        (
            {"modalities": {"image": {"kind": "image", "encoding": "raw"}}},
            "modalities.image: image/raw needs a shape",
        ),
        ({"modalities": {}}, "field 'modalities' is empty"),
        ({"splits": {"train": {"shards": []}}}, "splits.train: field 'examples' is missing"),
    ],
)
def test_wrong_fields(small: Path, changes, message: str):
    edit(small, **changes)
    with pytest.raises(UserError, match=rf"dataset\.json: {message}.*: make the dataset again"):
        open_dataset(small)


def test_missing_shard(small: Path):
    shard = next(small.glob("train-00001*.tfrecord"))
    shard.unlink()
    with pytest.raises(UserError, match=rf"{shard.name}: cannot be read \(No such file or directory\): copy"):
        open_dataset(small)


def test_missing_split(small: Path):
    with pytest.raises(UserError, match="no split 'val'; it has: train, test"):
        open_dataset(small).source("val")


@pytest.mark.parametrize("damage", [lambda _: b"", lambda _: b"no archive", lambda npz: npz[:200]])
def test_damaged_statistics(small: Path, damage):
    unsealed(open_dataset(small))
    file = small / "statistics.npz"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match=r"statistics\.npz: cannot be read") as caught:
        _ = open_dataset(small).statistics
    assert "\n" not in str(caught.value)


def test_missing_statistics(small: Path):
    unsealed(open_dataset(small))
    (small / "statistics.npz").unlink()
    with pytest.raises(UserError, match=r"statistics\.npz: cannot be read .*No such file"):
        _ = open_dataset(small).statistics


def test_shard_that_ends_a_record_early(small: Path):
    shard = sorted(small.glob("train-*.tfrecord"))[1]
    dataset = open_dataset(small)
    os.truncate(shard, tfrecord.load_index(shard)[-2])
    with pytest.raises(UserError, match=rf"{shard.name}: has \d+ bytes, but dataset\.json says \d+"):
        open_dataset(small)
    with pytest.raises(UserError, match=rf"{shard.name}: \d+ records, but dataset\.json says \d+"):
        unsealed(dataset).source("train")


def test_format_needs_neither_jax_nor_tensorflow_nor_grain():
    code = "import sys, umemma_jax.data.dataset as d;assert not {'jax', 'tensorflow', 'grain'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)
