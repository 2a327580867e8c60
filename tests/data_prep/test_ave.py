import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.data_prep.prepared import contents
from tests.data_prep.raw_clips import (
    AVE_CLASSES,
    clock,
    numbers_of,
    read_clips,
    time_of,
    tone,
    write_ave,
    write_ave_lists,
    write_clip,
    write_video,
)
from umemma_jax.data.dataset import open_dataset
from umemma_jax.data_prep import ave
from umemma_jax.data_prep.build import clip_dataset
from umemma_jax.data_prep.build.prep_report import DAMAGED, FILE_NAME, UNREADABLE
from umemma_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """The raw folder, not to be changed, and its rows."""
    folder = tmp_path_factory.mktemp("ave") / "raw"
    return folder, write_ave(folder)


def prepare(raw, out=None, **options):
    out = out or raw.parent / "out"
    ave.prepare(str(out), raw=str(raw), **{"max_unreadable": 0.5} | options)
    return out


def report(out):
    return json.loads((out / FILE_NAME).read_text())


def ids(out, split):
    return [example["id"] for example in read_clips(out, split)]


# --- whole data -------------------------------------------------------------------------------------------------------


def test_every_row_arrives(raw, rows):
    out = prepare(raw)
    info = open_dataset(out).info
    assert (info.name, info.classes) == ("ave", AVE_CLASSES)
    assert (info.modalities["video"].frame_rate, info.modalities["audio"].sample_rate) == (1.0, 16000)
    number = 0
    for split, of_split in rows.items():
        examples = read_clips(out, split)
        assert [example["id"] for example in examples] == [video for _, video, _, _ in of_split]
        assert [AVE_CLASSES[example["label"]] for example in examples] == [category for category, _, _, _ in of_split]
        for example in examples:
            assert numbers_of(example) == (number, number)
            number += 1
    assert report(out) == {}
    assert sorted(path.name for path in raw.parent.iterdir()) == ["out", "raw"]


def test_lists_with_a_header_and_windows_line_ends(raw, rows):
    for name in ave.LISTS.values():
        path = raw / name
        path.write_bytes(
            b"\xef\xbb\xbfCategory&VideoID&Quality&Start&End\r\n" + path.read_bytes().replace(b"\n", b"\r\n")
        )
    out = prepare(raw)
    assert ids(out, "train") == [video for _, video, _, _ in rows["train"]]


@pytest.mark.parametrize("clip", ["whole", "segment"])
def test_number_of_processes_changes_nothing(raw, tmp_path, clip):
    write_seconds(raw / "AVE" / "video000000.mkv")
    one, three = (prepare(raw, tmp_path / str(number), clip=clip, processes=number) for number in (1, 3))
    assert contents(one) == contents(three)


def test_frame_rate_size_and_sample_rate(raw):
    out = prepare(raw, fps=5.0, rate=8000, size=16)
    info = open_dataset(out).info
    assert (info.modalities["video"].frame_rate, info.modalities["audio"].sample_rate) == (5.0, 8000)
    (example, *_) = read_clips(out, "test")
    assert (len(example["video"]), len(example["audio"])) == (2, 3200)  # of 0.4 s


@pytest.mark.parametrize("suffix", [".webm", ".MP4"])
def test_other_suffixes(raw, suffix):
    """A file is known by its name up to the suffix, and in whatever folder inside."""
    path = raw / "AVE" / "video000000.mkv"
    (raw / "AVE" / "Bark").mkdir()
    path.rename(raw / "AVE" / "Bark" / f"video000000{suffix}")
    out = prepare(raw)
    assert report(out) == {}
    assert numbers_of(read_clips(out, "train")[0]) == (0, 0)


# --- the whole clip or the event --------------------------------------------------------------------------------------


def test_whole_and_event(raw, rows, tmp_path):
    category, video, _, _ = rows["train"][0]
    path = raw / "AVE" / f"{video}.mkv"
    write_video(path, clock(np.arange(100) / 25), np.concatenate([tone(2.0, 500), tone(2.0, 900)]))
    rows["train"][0] = category, video, 2, 4
    rows["train"][1] = *rows["train"][1][:2], 0, 0
    write_ave_lists(raw, rows)
    whole, event = (prepare(raw, tmp_path / clip, clip=clip) for clip in ("whole", "event"))

    example, _, *_ = read_clips(whole, "train")
    np.testing.assert_allclose([time_of(frame) for frame in example["video"]], [0.48, 1.48, 2.48, 3.48], atol=0.07)
    assert len(example["audio"]) == 4 * 16000
    example, of_no_duration, *_ = read_clips(event, "train")
    np.testing.assert_allclose([time_of(frame) for frame in example["video"]], [2.48, 3.48], atol=0.07)
    assert len(example["audio"]) == 2 * 16000
    assert numbers_of({"audio": example["audio"]}) == (None, 5)  # 900 Hz
    assert numbers_of(of_no_duration) == (1, 1)
    assert open_dataset(event).info.name == "ave_event"
    assert report(whole) == {}
    assert report(event) == {
        ave.NO_DURATION: {"count": 1, "entries": [f"{rows['train'][1][1]} ({raw}/trainSet.txt, line 2)"]}
    }


# --- second by second -------------------------------------------------------------------------------------------------


def write_seconds(path, seen=10.0, heard=10.0):
    """A video that is seen and heard for so many seconds, and shows the time at half its pace.

    The pitch is that of the numbers from 1 on, another one each second.
    """
    sound = np.concatenate([tone(1.0, 500 + 100 * second) for second in range(10)])
    return write_video(path, clock(np.arange(round(5 * seen)) / 10), sound[: round(48000 * heard)], fps=5)


def labels(out, video):
    """Class names of the seconds that there are of a video of the training split, by id."""
    classes = open_dataset(out).info.classes
    return {e["id"]: classes[e["label"]] for e in read_clips(out, "train") if e["id"].startswith(video)}


def test_every_second_is_an_example(raw, rows):
    write_seconds(raw / "AVE" / "video000000.mkv")
    rows["train"][0] = "Bark", "video000000", 2, 5
    write_ave_lists(raw, rows)
    out = prepare(raw, clip="segment", fps=2.0)
    info = open_dataset(out).info
    assert (info.name, info.classes) == ("ave_segment", (*AVE_CLASSES, "background"))
    assert list(labels(out, "video000000").values()) == 2 * ["background"] + 3 * ["Bark"] + 5 * ["background"]
    for second, example in enumerate(read_clips(out, "train")[:10]):
        assert example["id"] == f"video000000@{second}"
        shown = [2 * time_of(frame) for frame in example["video"]]
        np.testing.assert_allclose(shown, [second + 0.2, second + 0.6], atol=0.13)
        assert len(example["audio"]) == 16000
        assert numbers_of({"audio": example["audio"]}) == (None, second + 1)


def test_seconds_that_a_video_does_not_have(raw, rows):
    """What lasts for half of a second or more counts. The other videos last 0.4 s, and show one frame."""
    path = write_seconds(raw / "AVE" / "video000000.mkv", seen=3.2, heard=4.7)
    out = prepare(raw, clip="segment")
    examples = {example["id"]: example for split in rows for example in read_clips(out, split)}
    others = {f"video{number:06d}@0": {"video"} for number in range(1, 21)}
    of_this = {0: {"video", "audio"}, 1: {"video", "audio"}, 2: {"video", "audio"}, 3: {"audio"}, 4: {"audio"}}
    found = {id: example.keys() - {"id", "label"} for id, example in examples.items()}
    assert found == {f"video000000@{second}": present for second, present in of_this.items()} | others
    assert len(examples["video000000@4"]["audio"]) == 0.7 * 16000
    found = report(out)
    assert found.keys() == {
        clip_dataset.NO_PICTURE, clip_dataset.NO_SOUND, clip_dataset.NOT_REACHED, clip_dataset.LEFT,
    }  # fmt: skip
    assert found[clip_dataset.NO_PICTURE]["entries"] == [f"video000000@{second} ({path})" for second in (3, 4)]
    assert found[clip_dataset.NO_SOUND]["count"] == 20
    not_reached = found[clip_dataset.NOT_REACHED]
    assert not_reached["count"] == 5 + 20 * 9
    assert not_reached["entries"][:5] == [f"video000000@{second} ({path})" for second in range(5, 10)]
    assert found[clip_dataset.LEFT]["entries"] == [
        "Church bell: 7 of 70 (10.0%)",
        "Flute: 7 of 70 (10.0%)",
        "Bark: 11 of 70 (15.7%)",
    ]


def test_seconds_of_videos_that_are_absent_damaged_or_silent(raw, rows):
    path = {number: raw / "AVE" / f"video{number:06d}.mkv" for number in range(4)}
    path[0].unlink()
    path[1].write_bytes(b"")
    write_video(path[2], clock(np.arange(10) / 5), None, fps=5)
    noise = np.random.default_rng(0).integers(0, 256, (100, 64, 96, 3), dtype=np.uint8)
    write_video(path[3], list(noise), tone(4.0))
    os.truncate(path[3], path[3].stat().st_size // 2)
    out = prepare(raw, clip="segment")
    assert not labels(out, "video000000") and not labels(out, "video000001")
    assert labels(out, "video000002") == {f"video000002@{second}": "Flute" for second in range(2)}
    assert "video000003@0" in labels(out, "video000003") and "video000003@3" not in labels(out, "video000003")
    found = report(out)
    assert found[clip_dataset.ABSENT]["entries"] == [f"video000000 ({raw}/trainSet.txt, line 1)"]
    assert found[UNREADABLE]["entries"] == [f"{path[1]}: empty file"]
    assert found[clip_dataset.NO_SOUND]["entries"][:2] == [f"video000002@{second} ({path[2]})" for second in range(2)]
    assert found[DAMAGED]["count"] == 1 and found[DAMAGED]["entries"][0].startswith(f"{path[3]}: ")


def test_seconds_of_several_events(raw, rows):
    """Each row counts its own event alone; one that lasts 0 s, as one of the official ones does, has no second."""
    write_seconds(raw / "AVE" / "video000000.mkv")
    rows["train"][0] = "Bark", "video000000", 0, 0
    rows["train"] += [("Flute", "video000000", 8, 10), ("Church bell", "video000000", 0, 1.4)]
    write_ave_lists(raw, rows)
    out = prepare(raw, clip="segment")
    expected = {
        "video000000": 10 * ["background"],
        "video000000#2": 8 * ["background"] + 2 * ["Flute"],
        "video000000#3": ["Church bell"] + 9 * ["background"],
    }
    assert labels(out, "video000000") == {
        f"{id}@{second}": name for id, names in expected.items() for second, name in enumerate(names)
    }
    found = report(out)
    assert found[ave.NO_SECOND]["entries"] == [f"video000000 ({raw}/trainSet.txt, line 1)"]
    assert found[ave.SEVERAL_LABELS]["entries"] == ["video000000 (Bark; Flute; Church bell)"]


def test_seconds_need_a_frame_each_and_a_name_for_those_without_event(raw, rows):
    with pytest.raises(UserError, match=r"--fps=0\.5: not a frame for each second: give 1 or more"):
        prepare(raw, clip="segment", fps=0.5)
    write_ave_lists(raw, {**rows, "train": [*rows["train"], ("background", "video000000", 0, 10)]})
    with pytest.raises(UserError, match=r"Annotations\.txt: class 'background' is that of seconds without an event"):
        prepare(raw, clip="segment")


# --- several labels ---------------------------------------------------------------------------------------------------


def test_video_with_several_labels(raw, rows):
    """One example for each row; also where the rows are in different splits, as in the official lists."""
    rows["train"] += [("Flute", "video000000", 0, 10), ("Church bell", "video000000", 2, 7)]
    rows["test"].append(("Bark", "video000001", 0, 10))
    write_ave_lists(raw, rows)
    out = prepare(raw)
    train = {example["id"]: example for example in read_clips(out, "train")}
    labels = {id: AVE_CLASSES[train[id]["label"]] for id in train if id.startswith("video000000")}
    assert labels == {"video000000": "Bark", "video000000#2": "Flute", "video000000#3": "Church bell"}
    assert all(numbers_of(train[id]) == (0, 0) for id in labels)
    assert ids(out, "test")[-1] == "video000001#2"
    assert report(out) == {
        ave.SEVERAL_LABELS: {
            "count": 2,
            "entries": ["video000000 (Bark; Flute; Church bell)", "video000001 (Church bell; Bark)"],
        },
        ave.SEVERAL_SPLITS: {"count": 1, "entries": ["video000001 (train, test)"]},
    }


# --- incomplete data --------------------------------------------------------------------------------------------------


def test_what_is_absent_or_damaged(raw, rows):
    videos = raw / "AVE"
    path = {number: videos / f"video{number:06d}.mkv" for number in range(21)}
    path[0].unlink()  # Bark, train
    path[15].unlink()  # Bark, test
    path[1].write_bytes(b"")
    path[2].write_bytes(b"<html>" * 100)
    write_video(path[3], None, tone(0.4, 700))
    write_video(path[4], clock([4 / 6] * 10), None)
    noise = np.random.default_rng(0).integers(0, 256, (100, 64, 96, 3), dtype=np.uint8)
    write_video(path[5], list(noise), tone(4.0))
    os.truncate(path[5], path[5].stat().st_size // 2)
    shutil.copy(path[6], path[6].with_suffix(".mp4"))
    (videos / "video000007.jpg").write_bytes(b"a thumbnail")
    (raw / "Annotations.txt").open("a").write("Flute&unlisted000&good&0&10\n")

    out = prepare(raw)
    examples = {example["id"]: example for split in rows for example in read_clips(out, split)}
    gone = {f"video{number:06d}" for number in (0, 1, 2, 15)}
    assert examples.keys() == {video for of_split in rows.values() for _, video, _, _ in of_split} - gone
    assert "video" not in examples["video000003"] and "audio" in examples["video000003"]
    assert "video" in examples["video000004"] and "audio" not in examples["video000004"]
    assert len(examples["video000005"]["video"]) in (1, 2)
    assert numbers_of(examples["video000006"]) == (6, 6)

    found = report(out)
    (damaged,) = found.pop(DAMAGED)["entries"]
    assert damaged.startswith(f"{path[5]}: ") and "not at 4.00 s" in damaged
    expected = {
        ave.NOT_LISTED: [f"unlisted000 ({raw}/Annotations.txt, line 23)"],
        clip_dataset.FILE_TWICE: [f"{path[6].with_suffix('.mp4')}: {path[6]}"],
        clip_dataset.NOT_A_VIDEO: [f"{videos}/video000007.jpg"],
        clip_dataset.ABSENT: [f"video000000 ({raw}/trainSet.txt, line 1)", f"video000015 ({raw}/testSet.txt, line 1)"],
        UNREADABLE: [
            f"{path[1]}: empty file",
            f"{path[2]}: not a video or sound file: Invalid data found when processing input",
        ],
        clip_dataset.NO_PICTURE: [str(path[3])],
        clip_dataset.NO_SOUND: [str(path[4])],
        clip_dataset.LEFT: ["Bark: 5 of 7 (71.4%)", "Church bell: 6 of 7 (85.7%)", "Flute: 6 of 7 (85.7%)"],
    }
    if path[6].with_suffix(".mp4") < path[6]:
        expected[clip_dataset.FILE_TWICE] = [f"{path[6]}: {path[6].with_suffix('.mp4')}"]
    assert found == {kind: {"count": len(entries), "entries": entries} for kind, entries in expected.items()}


def test_too_many_unreadable_videos(raw):
    for number in range(2):
        (raw / "AVE" / f"video{number:06d}.mkv").write_bytes(b"")
    with pytest.raises(UserError, match=r"2 of 21 files are unreadable, more than 5 %: they are listed in .*out\.work"):
        prepare(raw, max_unreadable=0.05)
    assert not (raw.parent / "out").exists()
    for number in range(2):
        write_clip(raw / "AVE" / f"video{number:06d}.mkv", number)
    assert report(prepare(raw)) == {}


def no_video_at_all(raw, rows):
    shutil.rmtree(raw / "AVE")
    (raw / "AVE").mkdir()


def no_training_video_of_a_class(raw, rows):
    for category, video, _, _ in rows["train"]:
        if category == "Bark":
            (raw / "AVE" / f"{video}.mkv").unlink()


def append(line, encoding="utf-8"):
    def damage(raw, rows):
        with (raw / "testSet.txt").open("a", encoding=encoding) as file:
            file.write(line)

    return damage


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (append("Bark&abc&good&0\n"), "testSet.txt, line 7: 4 fields instead of 5 (category&video&quality&start&end)"),
        (append("Bark&&good&0&10\n"), "line 7: category 'Bark', video '': neither may be empty"),
        (append("Bark&../abc&good&0&10\n"), "nor a path"),
        (append("Bark&abc&good&0&ten\n"), "line 7: start '0', end 'ten': not seconds"),
        (append("Bark&abc&good&7&3\n"), "line 7: an event from 7 s to 3 s in a clip of 10 s"),
        (append("Bark&abc&good&0&11\n"), "line 7: an event from 0 s to 11 s in a clip of 10 s"),
        (append("Dog&abc&good&0&10\n"), "testSet.txt, line 7: class 'Dog' is not in Annotations.txt"),
        (
            append("Bark&video000000&good&0&10\n"),
            "line 7: video000000 is a 'Bark' in {raw}/trainSet.txt, line 1 already",
        ),
        (append("Bark&caf\xe9&good&0&10\n", "latin-1"), "testSet.txt: not UTF-8"),
        (no_video_at_all, "raw/AVE: none of the listed videos is in it"),
        (no_training_video_of_a_class, "valSet.txt, line 1: class 'Bark' is never seen in the train split"),
    ],
)
def test_one_line_and_nothing_left(raw, rows, damage, complaint):
    damage(raw, rows)
    with pytest.raises(UserError) as error:
        prepare(raw)
    assert complaint.format(raw=raw) in str(error.value)
    assert "\n" not in str(error.value)
    assert [path.name for path in raw.parent.iterdir()] == ["raw"]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("raw/AVE", "lies inside the raw data: give the folder above, --raw={tmp_path}/raw"),
        (".", "lies above the raw data: give the folder inside, --raw={tmp_path}/raw"),
        ("elsewhere", "no such folder: point --raw at AVE"),
    ],
)
def test_wrong_folder(raw, tmp_path, given, complaint):
    with pytest.raises(UserError) as error:
        prepare(tmp_path / given, tmp_path / "out")
    assert complaint.format(tmp_path=tmp_path) in str(error.value)


# --- the official lists -----------------------------------------------------------------------------------------------


def official_rows(annotations):
    """Split -> rows, as the order files of the official repository choose them from Annotations.txt.

    A file of HDF5 ends with the numbers of the rows, counted from 0.
    """
    every = list(ave.read_rows(annotations / "Annotations.txt"))
    counts = {"train": 3339, "val": 402, "test": 402}
    numbers = {
        split: np.frombuffer((annotations / f"{split}_order.h5").read_bytes()[-8 * count :], "<i8")
        for split, count in counts.items()
    }
    assert sorted(number for of_split in numbers.values() for number in of_split) == list(range(len(every)))
    return {split: [every[number] for number in of_split] for split, of_split in numbers.items()}


def test_official_lists(tmp_path, shared_data):
    """With a video for one row in forty: the others are listed as absent, and what is left is right."""
    annotations = shared_data / "annotations" / "AVE"
    rows = official_rows(annotations)
    raw = tmp_path / "raw"
    raw.mkdir()
    shutil.copy(annotations / "Annotations.txt", raw)
    lines = annotations.joinpath("Annotations.txt").read_text().splitlines()
    for split, of_split in rows.items():
        chosen = [lines[int(row.where.split()[-1]) - 1] for row in of_split]
        (raw / ave.LISTS[split]).write_text("\n".join(chosen) + "\n")
    clip = write_clip(tmp_path / "clip.mkv", 3)
    (raw / "AVE").mkdir()
    kept = {row.video for of_split in rows.values() for row in of_split[:: 10 if of_split is rows["train"] else 40]}
    for video in kept:
        os.link(clip, raw / "AVE" / f"{video}.mkv")
    out = prepare(raw, processes=2)

    info = open_dataset(out).info
    assert len(info.classes) == 28
    assert (info.classes[0], info.classes[-1]) == ("Accordion", "Violin, fiddle")
    expected = {split: [row for row in of_split if row.video in kept] for split, of_split in rows.items()}
    for split, of_split in expected.items():
        examples = read_clips(out, split)
        assert [example["id"].split("#")[0] for example in examples] == [row.video for row in of_split]
        assert [info.classes[example["label"]] for example in examples] == [row.category for row in of_split]
    found = report(out)
    assert found[ave.SEVERAL_LABELS]["count"] == 45
    assert found[ave.SEVERAL_SPLITS]["count"] == 18
    assert found[clip_dataset.ABSENT]["count"] == 4143 - sum(map(len, expected.values()))
    listed, left = (
        Counter(row.category for of_split in chosen.values() for row in of_split) for chosen in (rows, expected)
    )
    assert sorted(found[clip_dataset.LEFT]["entries"]) == sorted(
        f"{name}: {left[name]} of {count} ({left[name] / count:.1%})" for name, count in listed.items()
    )


# --- the command ------------------------------------------------------------------------------------------------------


def command(raw, *arguments):
    return [sys.executable, "-m", "data_prep.ave", f"--raw={raw}", f"--out={raw.parent}/out", *arguments]


def run(raw, *arguments):
    return subprocess.run(command(raw, *arguments), cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(("kill", "clip"), [(signal.SIGKILL, "segment"), (signal.SIGINT, "whole")])
def test_killed_and_continued(raw, rows, tmp_path, kill, clip):
    write_seconds(raw / "AVE" / "video000000.mkv", seen=2, heard=2)
    for number in range(300):
        category, video, _, _ = rows["train"][number % 12]
        os.link(raw / "AVE" / f"{video}.mkv", raw / "AVE" / f"copy{number:07d}.mkv")
        rows["train"].append((category, f"copy{number:07d}", 0, 10))
    write_ave_lists(raw, rows)
    expected = contents(prepare(raw, tmp_path / "expected", clip=clip))
    process = subprocess.Popen(
        command(raw, f"--clip={clip}"), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not list(tmp_path.glob("out.work/*.chunk")):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(kill)
    process.communicate()
    assert not (tmp_path / "out").exists() and list(tmp_path.glob("out.work/*.chunk"))
    result = run(raw, f"--clip={clip}")
    assert (result.returncode, result.stderr) == (0, "")
    assert contents(tmp_path / "out") == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected", "out", "raw"]


def test_command(raw):
    result = run(raw, "--fps=2.5", "--clip=event", "--processes=1")
    assert (result.returncode, result.stderr) == (0, "")
    assert "ave_event: " in result.stdout
    assert open_dataset(raw.parent / "out").info.modalities["video"].frame_rate == 2.5


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--fps=0"], "--fps: '0' is not a number of frames in a second"),
        (["--fps=nan"], "--fps: 'nan' is not a number"),
        (["--rate=0"], "--rate: '0' is not a whole number of samples in a second"),
        (["--clip=half"], "invalid choice: 'half'"),
    ],
)
def test_bad_arguments(raw, arguments, complaint):
    result = run(raw, *arguments)
    (line,) = result.stderr.splitlines()
    assert result.returncode == 1
    assert line.startswith("error: ") and complaint in line
