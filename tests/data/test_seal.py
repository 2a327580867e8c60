"""What a dataset states of itself is verified: nothing damaged, replaced or hostile is read without a word."""

import json
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks.faults import datasets as trial
from benchmarks.faults.trial import REFUSED, SAME
from tests.data.conftest import MODALITIES, edit, make_examples, unsealed, write_dataset
from umemma_jax import checksums
from umemma_jax.data import bounds, tfrecord
from umemma_jax.data.dataset import Dataset, DatasetWriter, open_dataset
from umemma_jax.errors import UserError

NAMES = list(MODALITIES)


@pytest.fixture
def small(tmp_path: Path) -> Dataset:
    return write_dataset(tmp_path / "small", train=make_examples(30, missing=True), test=make_examples(20))


def content(path: Path) -> dict:
    return json.loads((path / "dataset.json").read_text())


def refusal(path: Path, split: str = "train") -> str:
    """The line in which reading all of a split is refused."""
    with pytest.raises(UserError) as caught:
        dataset = open_dataset(path)
        dataset.source(split).examples(range(len(dataset.source(split))))
        _ = dataset.statistics
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Damage


def test_a_flipped_bit_is_harmless_or_refused_in_one_line(tmp_path: Path):
    outcomes = Counter(outcome for _, outcome, _ in trial.run(np.random.default_rng(1), 200, tmp_path))
    assert set(outcomes) == {SAME, REFUSED}, outcomes
    assert outcomes[SAME] < outcomes[REFUSED]  # indexes are made again


def test_every_file_but_dataset_json_is_stated(small: Dataset):
    stated = {name: tuple(entry) for name, entry in content(small.path)["files"].items()}
    for split in small.info.splits.values():
        for shard in split.shards:
            stated[shard.file] = (shard.bytes, shard.crc32c)
            stated[f"{shard.file}.index"] = ((shard.examples + 1) * 8, shard.index_crc32c)
    found = {
        path.name: (path.stat().st_size, checksums.of_bytes(path.read_bytes()))
        for path in small.path.iterdir()
        if path.name != "dataset.json"
    }
    assert stated == found


def test_a_file_of_the_preparation_is_stated_and_verified(tmp_path: Path):
    with DatasetWriter(tmp_path / "a", name="n", description="", classes=["0"], modalities=MODALITIES) as writer:
        writer.write("train", **make_examples(1)[0])
        writer.add_file("words.txt", b"red blue")
    dataset = open_dataset(tmp_path / "a")
    dataset.check_file("words.txt")
    dataset.check_file("others.txt")  # which is not there
    (dataset.path / "words.txt").write_bytes(b"red blur")
    with pytest.raises(UserError, match=r"words\.txt: does not match the checksum in dataset\.json: copy it, or"):
        dataset.check_file("words.txt")


def test_edited_json_is_refused_whatever_version_it_claims(small: Dataset):
    data = content(small.path)
    file = small.path / "dataset.json"
    file.write_text(json.dumps(data | {"classes": data["classes"][::-1]}))
    assert "does not match its checksum, so it was damaged or edited" in refusal(small.path)
    file.write_text(json.dumps({name: value for name, value in data.items() if name != "crc32c"}))
    assert "does not match its checksum" in refusal(small.path)
    file.write_text(json.dumps(data | {"format_version": 1}))
    assert "field 'files' is unknown" in refusal(small.path)


@pytest.mark.parametrize("damage", [None, b"", b"other"], ids=["missing", "empty", "other"])
def test_an_index_is_made_again_and_is_what_it_was(small: Dataset, damage: bytes | None):
    shard = small.info.splits["train"].shards[1]
    index = tfrecord.index_path(small.path / shard.file)
    before = index.read_bytes()
    index.unlink() if damage is None else index.write_bytes(damage)
    assert len(open_dataset(small.path).source("train")) == 30
    assert index.read_bytes() == before


def test_an_index_that_cuts_records_elsewhere_is_made_again(small: Dataset):
    index = tfrecord.index_path(small.path / small.info.splits["train"].shards[0].file)
    offsets = np.frombuffer(index.read_bytes(), "<u8").copy()
    offsets[1] += 1
    index.write_bytes(offsets.tobytes())
    assert len(open_dataset(small.path).source("train").records(range(30))) == 30


def test_what_a_clone_without_lfs_leaves(small: Dataset):
    (small.path / "dataset.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "dataset.json: is a Git-LFS pointer and not the file itself" in refusal(small.path)


# Another dataset in its place


@pytest.fixture
def equal_shards(tmp_path: Path) -> Dataset:
    """Several shards of the same length, whose indexes are the same."""
    image = {"image": MODALITIES["image"]}
    with DatasetWriter(
        tmp_path / "equal", name="n", description="", classes=["0", "1"], modalities=image, shard_bytes=500
    ) as writer:
        for i in range(40):
            pixels = np.full((3, 4, 2), i, np.uint8)
            writer.write("train" if i < 20 else "test", id=f"{i:02d}", label=i % 2, image=pixels)
    dataset = open_dataset(tmp_path / "equal")
    first, second = dataset.info.splits["train"].shards[:2]
    assert (first.bytes, first.index_crc32c) == (second.bytes, second.index_crc32c)
    return dataset


@pytest.mark.parametrize("other", ["train-00000", "test-00000"])
def test_a_shard_copied_over_another_is_found_when_the_dataset_is_opened(equal_shards: Dataset, other: str):
    source, target = (next(equal_shards.path.glob(f"{name}-*.tfrecord")) for name in (other, "train-00001"))
    shutil.copy(source, target)
    with pytest.raises(UserError, match=rf"{target}: does not end as dataset\.json says: copy the file again"):
        open_dataset(equal_shards.path)


def test_shards_that_changed_places(equal_shards: Dataset):
    first, second = (equal_shards.path / shard.file for shard in equal_shards.info.splits["train"].shards[:2])
    first.rename(first.with_suffix(".aside"))
    second.rename(first)
    first.with_suffix(".aside").rename(second)
    assert "does not end as dataset.json says" in refusal(equal_shards.path)


def test_a_shard_copied_over_another_of_version_1(equal_shards: Dataset):
    dataset = unsealed(equal_shards)
    first, second = (dataset.path / shard.file for shard in dataset.info.splits["train"].shards[:2])
    shutil.copy(first, second)
    with pytest.raises(UserError, match=rf"{second}: ends as {first.name} does, of which it seems a copy"):
        open_dataset(dataset.path)


def test_shards_of_version_1_that_change_places_make_another_dataset(equal_shards: Dataset):
    dataset = unsealed(equal_shards)
    assert open_dataset(dataset.path).is_as(dataset)
    first, second = (dataset.path / shard.file for shard in dataset.info.splits["train"].shards[:2])
    shutil.move(first, dataset.path / "aside")
    shutil.move(second, first)
    shutil.move(dataset.path / "aside", second)
    assert not open_dataset(dataset.path).is_as(dataset)


def test_labels_of_version_1_are_those_of_rows_npz(equal_shards: Dataset):
    dataset = unsealed(equal_shards)
    rows = dict(np.load(dataset.path / "rows.npz"))
    rows["train/labels"] = rows["train/labels"][::-1]  # as many of each class
    np.savez(dataset.path / "rows.npz", **rows)
    source = open_dataset(dataset.path).source("train")
    with pytest.raises(UserError, match=r"record 0: another label than rows\.npz says: prepare the dataset again"):
        source.label_array([0, 1], [[0], [1]])


def prepared_anew(path: Path, seed: int) -> Dataset:
    """As many examples, with the same ids, labels and lengths, but other pixels."""
    image = {"image": MODALITIES["image"]}
    rng = np.random.default_rng(seed)
    with DatasetWriter(
        path, name="n", description="", classes=["0", "1"], modalities=image, shard_bytes=500, overwrite=True
    ) as writer:
        for i in range(20):
            writer.write("train", id=f"{i:02d}", label=i % 2, image=rng.integers(0, 256, (3, 4, 2), np.uint8))
    return open_dataset(path)


def test_a_dataset_that_is_replaced_while_it_is_open(tmp_path: Path):
    dataset = prepared_anew(tmp_path / "data", 0)
    source, fingerprint = dataset.source("train"), dataset.fingerprint
    source.records([0])  # of the first shard, which stays open
    other = prepared_anew(tmp_path / "data", 1)
    assert source.records([0]) == prepared_anew(tmp_path / "again", 0).source("train").records([0])
    with pytest.raises(UserError, match=r"record \d is another than the dataset was written with: was the file repl"):
        source.records([19])
    with pytest.raises(UserError, match="another than the dataset was written with"):
        dataset.source("train").records(range(20))  # as the next stage would
    with pytest.raises(UserError, match="does not match the checksum"):
        _ = dataset.statistics
    assert dataset.fingerprint == fingerprint != other.fingerprint


def test_the_fingerprint_is_of_all_content(tmp_path: Path):
    same = [prepared_anew(tmp_path / name, 0).fingerprint for name in "ab"]
    assert same[0] == same[1] != prepared_anew(tmp_path / "c", 1).fingerprint


# Names


@pytest.mark.parametrize("name", ["../../x", "a/b", "a\\b", "..", ".", "", "a\nb", "\x1b[31m", "x" * 121, "é" * 61])
def test_names_that_are_none_are_neither_written_nor_read(small: Dataset, tmp_path: Path, name: str):
    edit(small.path, name=name)
    with pytest.raises(UserError, match=r"dataset\.json: name .*: up to 120 bytes of printable characters"):
        open_dataset(small.path)
    with pytest.raises(UserError, match=r"the dataset's name .*: up to 120 bytes"):
        DatasetWriter(tmp_path / "new", name=name, description="", classes=["0"], modalities=MODALITIES)


@pytest.mark.parametrize("name", ["Café 日本", "av_mnist:3.0 (50 %)", "x" * 120])
def test_names_may_be_words(tmp_path: Path, name: str):
    with DatasetWriter(tmp_path / "new", name=name, description="", classes=["0"], modalities=MODALITIES) as writer:
        writer.write("train", **make_examples(1)[0])
    assert open_dataset(tmp_path / "new").info.name == name


@pytest.mark.parametrize("file", ["../small/x.tfrecord", "/etc/passwd", "..", "a/b", "a\0b", "", ".hidden", "x" * 241])
def test_shards_and_other_files_are_in_the_folder(small: Dataset, file: str):
    data = content(small.path)
    edit(small.path, files=data["files"] | {file: [1, "00000000"]})
    assert "is no name of a file in this folder" in refusal(small.path)
    data["splits"]["train"]["shards"][0]["file"] = file
    edit(small.path, **data)
    assert "is no name of a file in this folder" in refusal(small.path)


@pytest.mark.parametrize("name", ["../x", "a b", "", "x" * 101])
def test_splits_and_modalities_have_names(small: Dataset, tmp_path: Path, name: str):
    data = content(small.path)
    edit(small.path, splits=data["splits"] | {name: data["splits"]["test"]})
    assert "up to 100 letters, digits and underscores only" in refusal(small.path)
    with pytest.raises(ValueError, match="letters, digits and underscores only"):
        DatasetWriter(tmp_path / "new", name="n", description="", classes=[], modalities={name: MODALITIES["image"]})


def test_a_preparation_adds_no_file_elsewhere(tmp_path: Path):
    with (
        pytest.raises(ValueError, match="is no name of a file in this folder"),
        DatasetWriter(tmp_path / "a", name="n", description="", classes=["0"], modalities=MODALITIES) as writer,
    ):
        writer.add_file("../b", b"")
    assert os.listdir(tmp_path) == []


# What dataset.json states


def changed(data: dict, *path: str | int, value: object) -> dict:
    """The content with another value at a path of keys."""
    here = data
    for key in path[:-1]:
        here = here[key]
    here[path[-1]] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("modalities", "image", "shape"), [10**5, 10**5, 2], "field 'shape' is .*, more than the shards hold"),
        (("modalities", "image", "shape"), [2**40, 2**40, 2], "field 'shape' is .*, more than the shards hold"),
        (("modalities", "image", "shape"), [-3, -4, 2], "field 'shape' holds elements of a wrong type"),
        (("modalities", "audio", "max_samples"), 10**12, "field 'max_samples' is .*, more than the shards hold"),
        (("modalities", "audio", "max_samples"), 0, "field 'max_samples' is 0 instead of a number above 0"),
        (("modalities", "audio", "sample_rate"), 0, "field 'sample_rate' is 0 instead of a number above 0"),
        (("modalities", "audio", "sample_rate"), 10**7, "10000000 is more than 1000000, which UMEMMA_BOUNDS=off"),
        (("modalities", "audio", "sample_rate"), 8e3, "field 'sample_rate' is 8000.0 instead of a whole number"),
        (("modalities", "image", "mean"), [float("nan")] * 2, "NaN is no number"),
        (("modalities", "image", "mean"), [1e308 * 10] * 2, "Infinity is no number"),
        (("modalities", "image", "mean"), [10**400] * 2, "field 'mean' holds elements of a wrong type"),
        (("modalities", "image", "mean"), [1.0], "field 'mean' has 1 values, of another number of channels"),
        (("modalities", "image", "std"), [1.0, -1.0], "field 'std' holds what is no std"),
        (("modalities", "image", "means"), [1.0, 1.0], "modalities.image: field 'means' is unknown"),
        (("modalities", "table", "quantiles"), [[0.0, 1.0]], "field 'quantiles' has 1 values, of another number"),
        (("modalities", "table", "quantiles"), [[1.0, 0.0]], "field 'quantiles' holds what is not ascending"),
        (("modalities", "table", "quantiles"), [["a"]], "field 'quantiles' holds elements of a wrong type"),
        (("modalities", "table", "levels"), {"a": {"x": 1}}, "levels are of columns that are not named"),
        (("modalities", "table", "levels"), {"a": {"x": -1}}, "field 'x' is -1 instead of a whole number from 0 on"),
        (("modalities", "table", "levels"), {"a": ["x"]}, "field 'a' is .* instead of dict"),
        (("modalities", "table", "levels"), {"a": {"\ud800": 1}}, "field 'levels' holds what is no Unicode"),
        (("splits", "train", "examples"), -1, "field 'examples' is -1 instead of a whole number from 0 on"),
        (("splits", "train", "examples"), 10**30, "field 'examples' is .* instead of a whole number"),
        (("splits", "train", "present", "image"), 31, "30 examples, but a modality or class has more"),
        (("splits", "train", "classes"), [10**8, 0, 0], "30 examples, but a modality or class has more"),
        (("splits", "train", "classes"), [10, 10, 9], "30 examples, but the classes have another number"),
        (("splits", "train", "shards", 0, "bytes"), 10, "examples in 10 bytes"),
        (("splits", "train", "shards", 0, "crc32c"), None, "field 'crc32c' is None instead of str"),
        (("files", "rows.npz"), [-1, "00000000"], "files.rows.npz: not a length and a checksum"),
        (("files", "rows.npz"), "00000000", "files.rows.npz: not a length and a checksum"),
        (("notes",), "mine", "field 'notes' is unknown"),
        (("classes",), ["a", "a", "b"], "field 'classes' names one twice"),
        (("classes",), ["a", "b", "\ud800"], "field 'classes' holds what is no Unicode"),
        (("description",), "\ud800", "field 'description' holds what is no Unicode"),
        (("splits", "train", "shards", 0, "crc32c"), "x", "a checksum that is none"),
        (("modalities", "image", "kind"), "x" * 10_000, "kind 'x{5,20}\\.\\.\\.x+' with encoding"),
    ],
)
def test_what_cannot_be(small: Dataset, path: tuple, value: object, message: str):
    edit(small.path, **changed(content(small.path), *path, value=value))
    with pytest.raises(UserError, match=rf"dataset\.json: .*{message}.*: make the dataset again with"):
        open_dataset(small.path)


def test_a_shard_that_is_named_twice(small: Dataset):
    data = content(small.path)
    data["splits"]["test"] = data["splits"]["train"]
    edit(small.path, **data)
    assert "field 'shards' names a file twice" in refusal(small.path)


@pytest.mark.parametrize("text", ['{"a":' * 100_000, "[" * 100_000, '{"format_version": 1, "source": ' + "[" * 100_000])
def test_deeply_nested_json(small: Dataset, text: str):
    (small.path / "dataset.json").write_text(text)
    assert "dataset.json: nested too deeply: make the dataset again" in refusal(small.path)


def test_bounds_can_be_lifted(small: Dataset, monkeypatch):
    monkeypatch.setattr(bounds, "JSON_BYTES", 100)
    assert "bytes: " in (line := refusal(small.path)) and "is more than 100, which UMEMMA_BOUNDS=off allows" in line
    monkeypatch.setattr(bounds, "CLASSES", 2)
    monkeypatch.setenv("UMEMMA_BOUNDS", "off")
    assert len(open_dataset(small.path).info.classes) == 3


# What is no file of this folder


def replace(path: Path, kind: str) -> None:
    """Puts something else in a file's place."""
    path.rename(path.parent.parent / "outside")
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")
        case "link out of the folder":
            path.symlink_to(path.parent.parent / "outside")
        case "link to itself":
            path.symlink_to(path.name)


KINDS = ["pipe", "folder", "device", "link out of the folder", "link to itself"]


@pytest.mark.parametrize("name", ["dataset.json", "rows.npz", "statistics.npz", "train-00000-of-00003.tfrecord"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_of_the_folder_is_refused_at_once(small: Dataset, name: str, kind: str):
    name = next(small.path.glob(name.replace("00003", "*"))).name
    replace(small.path / name, kind)
    assert refusal(small.path).startswith(f"{small.path / name}: ")


@pytest.mark.parametrize("name", ["rows.npz", "statistics.npz"])
@pytest.mark.parametrize("kind", KINDS)
def test_likewise_in_version_1(small: Dataset, name: str, kind: str):
    replace(unsealed(small).path / name, kind)
    assert refusal(small.path).startswith(f"{small.path / name}: cannot be read")


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_that_is_no_file_is_made_again_and_not_through_a_link(small: Dataset, kind: str):
    index = next(small.path.glob("*.index"))
    replace(index, kind)
    outside = (small.path.parent / "outside").read_bytes()
    assert len(open_dataset(small.path).source("train")) == 30
    assert (small.path.parent / "outside").read_bytes() == outside


def test_a_folder_may_be_a_link_and_files_may_be_links_within_it(small: Dataset, tmp_path: Path):
    for path in list(small.path.glob("*.tfrecord")):
        path.rename(path.with_suffix(".blob"))
        path.symlink_to(path.with_suffix(".blob").name)
    (tmp_path / "link").symlink_to(small.path.name)
    assert len(open_dataset(tmp_path / "link").source("train").records(range(30))) == 30


def test_nothing_is_written_into_a_folder_that_is_for_reading(small: Dataset):
    index = next(small.path.glob("train*.index"))
    index.unlink()
    small.path.chmod(0o555)
    try:
        assert len(open_dataset(small.path).source("train")) == 30
        assert not index.exists()
    finally:
        small.path.chmod(0o755)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_folders_that_cannot_be(tmp_path: Path, name: str):
    with pytest.raises(UserError, match=r"make .* with the dataset's command") as caught:
        open_dataset(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_a_link_to_itself(tmp_path: Path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError, match="loop"):
        open_dataset(tmp_path / "loop")
    with (
        pytest.raises(UserError, match="loop: cannot be written"),
        DatasetWriter(tmp_path / "loop", name="n", description="", classes=["0"], modalities=MODALITIES) as writer,
    ):
        writer.write("train", **make_examples(1)[0])
    assert os.listdir(tmp_path) == ["loop"]


def test_names_that_are_no_unicode(tmp_path: Path):
    odd = os.fsdecode(b"caf\xe9")
    with DatasetWriter(
        tmp_path / odd, name="n", description=odd, classes=["0"], modalities=MODALITIES, source={"argv": [odd]}
    ) as writer:
        writer.write("train", **make_examples(1)[0] | {"id": odd})
    dataset = open_dataset(tmp_path / odd)
    assert (dataset.info.description, dataset.info.source) == ("caf\\udce9", {"argv": [odd]})
    assert dataset.source("train").ids() == ["caf\\udce9"]
