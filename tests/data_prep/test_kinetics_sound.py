import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.data_prep.prepared import contents
from tests.data_prep.raw_clips import clock, numbers_of, read_clips, time_of, tone, write_clip, write_video
from umemma_jax.data.dataset import open_dataset
from umemma_jax.data_prep import kinetics_sound
from umemma_jax.data_prep.build import clip_dataset
from umemma_jax.data_prep.build.prep_report import FILE_NAME
from umemma_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
LABELS = ("bowling", "playing drums", "singing")  # 2, 11 and 25 of the 31
PER_CLASS = {"train": 5, "test": 2}


def clip_name(number):
    return f"-video_{number:04d}_{number:06d}_{number + 10:06d}"  # ids can look like that


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """Class folders, not to be changed, and their rows: split -> (name, label)."""
    folder, rows, number = tmp_path_factory.mktemp("kinetics_sound") / "raw", {}, 0
    for split, count in PER_CLASS.items():
        rows[split] = []
        for label in LABELS:
            for _ in range(count):
                name = clip_name(number)
                write_clip(folder / split / label / f"{name}.mkv", number)
                rows[split].append((name, label))
                number += 1
    return folder, rows


def prepare(raw, out=None, **options):
    out = out or raw.parent / "out"
    kinetics_sound.prepare(str(out), raw=str(raw), **{"max_unreadable": 0.5, "validation_share": 0} | options)
    return out


def report(out):
    return json.loads((out / FILE_NAME).read_text())


def examples(out):
    """Split -> id -> (class name, number that picture and sound tell)."""
    info = open_dataset(out).info
    found = {}
    for split in info.splits:
        found[split] = {e["id"]: (info.classes[e["label"]], *numbers_of(e)) for e in read_clips(out, split)}
    return found


def write_lists(folder, rows, shorten=lambda name: name):
    """Lists like OGM-GE's, with numbers for labels; returns arguments."""
    arguments = {}
    for split, of_split in rows.items():
        lines = [f"{shorten(name)},10,{kinetics_sound.CLASSES.index(label)}\r\n" for name, label in of_split]
        path = folder / f"my_{split}.txt"
        path.write_text("".join(lines), newline="")
        arguments[f"{split}_list"] = str(path)
    return arguments


# --- class folders ----------------------------------------------------------------------------------------------------


def test_every_clip_arrives(raw, rows):
    out = prepare(raw)
    info = open_dataset(out).info
    assert (info.name, info.classes) == ("kinetics_sound_31", kinetics_sound.CLASSES)
    number, expected = 0, {}
    for split, of_split in rows.items():
        expected[split] = {}
        for name, label in of_split:
            expected[split][name] = (label, number, number)
            number += 1
    assert examples(out) == expected
    assert report(out) == {}


def test_validation_is_drawn_class_by_class_by_the_seed(raw, rows, tmp_path):
    first, again, other = (
        prepare(raw, tmp_path / name, seed=seed, validation_share=0.4) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    found = examples(first)
    assert Counter(label for label, _, _ in found["val"].values()) == dict.fromkeys(LABELS, 2)
    assert {*found["train"], *found["val"]} == {name for name, _ in rows["train"]}
    assert list(found["test"]) == [name for name, _ in rows["test"]]
    assert contents(first) == contents(again)
    assert set(found["val"]) != set(examples(other)["val"])


def test_given_validation_stays(raw, tmp_path):
    write_clip(raw / "validate" / "singing" / f"{clip_name(25)}.mkv", 25)
    (raw / "validate").rename(raw / "validation")
    out = prepare(raw, validation_share=0.4)
    assert examples(out)["val"] == {clip_name(25): ("singing", 25, 25)}


def test_other_classes_and_other_spelling(raw):
    (raw / "train" / "playing drums").rename(raw / "train" / "playing_drums")
    write_clip(raw / "train" / "yoga" / f"{clip_name(25)}.mkv", 25)
    (raw / "train" / ".cache").mkdir()
    out = prepare(raw)
    assert Counter(label for label, _, _ in examples(out)["train"].values()) == dict.fromkeys(LABELS, 5)
    assert report(out) == {kinetics_sound.OTHER_CLASS: {"count": 1, "entries": [f"{raw}/train/yoga"]}}


def test_27_classes(raw, rows):
    for split in rows:
        (raw / split / "singing").rename(raw / split / "mowing lawn")
    out = prepare(raw, classes="27")
    info = open_dataset(out).info
    assert len(info.classes) == 27
    assert set(kinetics_sound.CLASSES) - set(info.classes) == {
        "blowing out candles", "dribbling basketball", "mowing lawn", "stomping grapes",
    }  # fmt: skip
    assert {label for label, _, _ in examples(out)["test"].values()} == {"bowling", "playing drums"}
    assert report(out)[kinetics_sound.OTHER_CLASS]["count"] == 2


def test_classes_of_a_file(raw, tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("singing\nplaying_drums\n\n")
    out = prepare(raw, classes=str(path))
    assert open_dataset(out).info.classes == ("singing", "playing drums")
    assert len(examples(out)["train"]) == 10


# --- lists ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shorten", [lambda name: name, lambda name: f"{name[:11]}_{int(name[12:18])}", lambda name: name[:18]]
)
def test_lists(raw, rows, tmp_path, shorten):
    """Names in the list may lack the end and the zeros before the start; the order is the list's."""
    rows = {split: of_split[::-1] for split, of_split in rows.items()}
    out = prepare(raw, **write_lists(tmp_path, rows, shorten))
    found = examples(out)
    numbers = {"train": reversed(range(15)), "test": reversed(range(15, 21))}
    for split, of_split in rows.items():
        of_list = zip(of_split, numbers[split], strict=True)
        expected = [(shorten(name), (label, number, number)) for (name, label), number in of_list]
        assert list(found[split].items()) == expected
    assert report(out) == {}


def test_labels_by_name_in_other_classes(raw, rows, tmp_path):
    arguments = {}
    for split, of_split in rows.items():
        path = tmp_path / f"{split}.txt"
        path.write_text("".join(f"{name},10,{label.replace(' ', '_')}\n" for name, label in of_split))
        arguments[f"{split}_list"] = str(path)
    (tmp_path / "classes.txt").write_text("singing\nbowling\nplaying drums\n")
    out = prepare(raw, classes=str(tmp_path / "classes.txt"), **arguments)
    assert open_dataset(out).info.classes == ("singing", "bowling", "playing drums")
    assert [label for label, _, _ in examples(out)["train"].values()] == [label for _, label in rows["train"]]


def test_rows_of_classes_that_are_left_out(raw, rows, tmp_path):
    rows["train"].append((clip_name(28), "stomping grapes"))
    out = prepare(raw, classes="27", **write_lists(tmp_path, rows))
    assert report(out) == {
        kinetics_sound.OTHER_LABEL: {
            "count": 1,
            "entries": [f"{clip_name(28)} (stomping grapes, {tmp_path}/my_train.txt, line 16)"],
        }
    }


def test_clip_of_a_whole_video(raw, rows, tmp_path):
    """It is cut out where the list says, unless there is a file of the clip itself."""
    number = 3
    name, label = rows["train"][number]
    (raw / "train" / label / f"{name}.mkv").unlink()
    at = np.arange(40 * 5) / 5
    write_video(raw / f"{name[:11]}.mkv", clock(at / 8), tone(40.0), fps=5, times=list(at))
    rows["train"][number] = f"{name[:11]}_{21:06d}_{31:06d}", label
    out = prepare(raw, **write_lists(tmp_path, rows))
    example = read_clips(out, "train")[number]
    shown = [8 * time_of(frame) for frame in example["video"]]
    np.testing.assert_allclose(shown, np.arange(21.4, 31), atol=0.7)  # 5 levels of brightness in a second
    assert len(example["audio"]) == 10 * 16000


def test_absent_and_double_files(raw, rows, tmp_path):
    folder = raw / "train" / "bowling"
    for number in (0, 1):
        (folder / f"{clip_name(number)}.mkv").unlink()
    (raw / "test" / "singing" / f"{clip_name(20)}.mkv").unlink()
    short = folder / "-video_0002_2.mkv"  # what yt-dlp may be told to call it
    shutil.copy(folder / f"{clip_name(2)}.mkv", short)
    out = prepare(raw, **write_lists(tmp_path, rows))
    assert list(examples(out)["train"]) == [name for name, _ in rows["train"][2:]]
    absent = [(0, "my_train.txt, line 1"), (1, "my_train.txt, line 2"), (20, "my_test.txt, line 6")]
    expected = {
        clip_dataset.FILE_TWICE: [f"{short}: {folder}/{clip_name(2)}.mkv"],
        clip_dataset.ABSENT: [f"{clip_name(number)} ({tmp_path}/{place})" for number, place in absent],
        clip_dataset.LEFT: ["bowling: 5 of 7 (71.4%)", "singing: 6 of 7 (85.7%)", "playing drums: 7 of 7 (100.0%)"],
    }
    assert report(out) == {kind: {"count": len(lines), "entries": lines} for kind, lines in expected.items()}


def test_official_lists(tmp_path, shared_data):
    """With a file for every hundredth clip: the others are listed as absent, and what is left is right."""
    lists = shared_data / "annotations" / "KineticSound"
    clip = write_clip(tmp_path / "clip.mkv", 3)
    expected, every = {}, 0
    for split, name in (("train", "my_train.txt"), ("test", "my_test.txt")):
        rows = [line.split(",") for line in (lists / name).read_text().splitlines()]
        every += len(rows)
        expected[split] = {name: int(label) for name, _, label in rows[::40]}
        for name in expected[split]:
            path = tmp_path / "raw" / split / f"{name}.mkv"
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(clip, path)
    out = prepare(
        tmp_path / "raw",
        train_list=str(lists / "my_train.txt"),
        test_list=str(lists / "my_test.txt"),
        processes=2,
    )
    for split, labels in expected.items():
        assert {example["id"]: example["label"] for example in read_clips(out, split)} == labels
    assert every == 14799 + 2597
    assert report(out)[clip_dataset.ABSENT]["count"] == every - sum(map(len, expected.values()))
    assert report(out)[clip_dataset.LEFT]["count"] == 31


# --- what stops it ----------------------------------------------------------------------------------------------------


def append(line):
    def damage(raw, lists):
        with Path(lists["test_list"]).open("a") as file:
            file.write(line)

    return damage


def nothing_in_it(raw, lists):
    shutil.rmtree(raw)
    raw.mkdir()


def only_one_list(raw, lists):
    del lists["test_list"]


def no_such_list(raw, lists):
    Path(lists["test_list"]).unlink()


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (append("abc\n"), "my_test.txt, line 7: 1 fields instead of 3 (clip,seconds,label)"),
        (append("a/b,10,3\n"), "line 7: clip 'a/b': it may not be empty, nor a path"),
        (append("abc,ten,3\n"), "line 7: 'ten' is not a whole number of seconds"),
        (append("abc,10,31\n"), "line 7: label '31' is none of the 31 classes"),
        (append("abc,10,yoga\n"), "line 7: label 'yoga' is none of the 31 classes"),
        (append("-video_0003_3,10,2\n"), "line 7: -video_0003_3 is in {tmp_path}/my_train.txt, line 4 already"),
        (nothing_in_it, "raw: none of the 21 listed clips is in it or in folders inside"),
        (only_one_list, "--train-list and --test-list: give both, or neither"),
        (no_such_list, "my_test.txt: cannot be read: No such file"),
    ],
)
def test_bad_lists(raw, rows, tmp_path, damage, complaint):
    lists = write_lists(tmp_path, rows)
    damage(raw, lists)
    with pytest.raises(UserError) as error:
        prepare(raw, **lists)
    assert complaint.format(tmp_path=tmp_path) in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.work").exists()


def same_clip_twice(raw):
    shutil.copy(raw / "test" / "singing" / f"{clip_name(20)}.mkv", raw / "train" / "bowling")


def class_in_test_only(raw):
    shutil.rmtree(raw / "train" / "singing")


def no_known_class(raw):
    for path in raw.glob("*/*"):
        path.rename(path.with_name(f"my {path.name}"))


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (same_clip_twice, "test/singing/-video_0020_000020_000030.mkv: there is another clip of this name"),
        (class_in_test_only, "class 'singing' is never seen in the train split"),
        (no_known_class, "raw: no video in a folder of one of the 31 classes"),
    ],
)
def test_bad_folders(raw, damage, complaint):
    damage(raw)
    with pytest.raises(UserError) as error:
        prepare(raw)
    assert complaint in str(error.value)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("raw/train", "lies inside the raw data: give the folder above, --raw={tmp_path}/raw"),
        ("raw/train/singing", "lies inside the raw data: give the folder above, --raw={tmp_path}/raw"),
        (".", "lies above the raw data: give the folder inside, --raw={tmp_path}/raw"),
        ("elsewhere", "no such folder: point --raw at Kinetics-Sound"),
    ],
)
def test_wrong_folder(raw, tmp_path, given, complaint):
    with pytest.raises(UserError) as error:
        prepare(tmp_path / given, tmp_path / "out")
    assert complaint.format(tmp_path=tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [("\n\n", "no class in it"), ("singing\nsinging\n", "class 'singing' comes 2 times"), (None, "cannot be read")],
)
def test_bad_class_list(raw, tmp_path, content, complaint):
    path = tmp_path / "classes.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=complaint):
        prepare(raw, classes=str(path))


# --- the command ------------------------------------------------------------------------------------------------------


def test_command(raw, rows, tmp_path):
    lists = [f"--{name.replace('_', '-')}={path}" for name, path in write_lists(tmp_path, rows).items()]
    command = [sys.executable, "-m", "data_prep.kinetics_sound", f"--raw={raw}", f"--out={tmp_path}/out"]
    command += [*lists, "--classes=27", "--fps=5", "--processes=1", "--validation-share=0.2"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    info = open_dataset(tmp_path / "out").info
    assert {split: found.examples for split, found in info.splits.items()} == {"train": 12, "val": 3, "test": 6}
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 1 and "--overwrite" in again.stderr and len(again.stderr.splitlines()) == 1
