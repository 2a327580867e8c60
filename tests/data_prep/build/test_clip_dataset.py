import json

import pytest

from tests.data_prep.raw_clips import numbers_of, read_clips, write_clip
from umemma_jax.data.dataset import DatasetWriter
from umemma_jax.data_prep.build import clip_dataset
from umemma_jax.data_prep.build.clip_dataset import find_videos, modalities, raw_clip, read_lines, write_clips
from umemma_jax.data_prep.build.prep_report import DAMAGED, FILE_NAME, UNREADABLE, Report
from umemma_jax.data_prep.raw.clips import ToClip
from umemma_jax.errors import UserError

CLASSES = ("a", "b", "c")


def problems(report):
    return {kind: problem["entries"] for kind, problem in json.loads(report.encoded()).items()}


# --- finding ----------------------------------------------------------------------------------------------------------


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_videos_in_all_folders_by_name(tmp_path):
    touch(tmp_path, "b.mp4", "deep/er/a.WEBM", "deep/c.d.mkv", ".hidden.mp4", ".cache/e.mp4")
    report = Report()
    found = find_videos(tmp_path, report)
    assert found == {
        "b": tmp_path / "b.mp4",
        "c.d": tmp_path / "deep/c.d.mkv",
        "a": tmp_path / "deep/er/a.WEBM",
    }
    assert problems(report) == {}


def test_other_files_and_second_files_are_said(tmp_path):
    touch(tmp_path, "a_1.mp4", "a_2.mkv", "a.jpg", "b.part")
    report = Report()
    assert find_videos(tmp_path, report, key=lambda name: name[0]) == {"a": tmp_path / "a_1.mp4"}
    assert problems(report) == {
        clip_dataset.NOT_A_VIDEO: [f"{tmp_path}/a.jpg", f"{tmp_path}/b.part"],
        clip_dataset.FILE_TWICE: [f"{tmp_path}/a_2.mkv: {tmp_path}/a_1.mp4"],
    }


def test_lines_of_a_list(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfone\r\ntw\xc3\xb6\n")
    assert read_lines(tmp_path / "list.txt") == ["one", "twö"]
    (tmp_path / "latin.txt").write_bytes(b"tw\xf6\n")
    with pytest.raises(UserError, match=r"latin\.txt: not UTF-8 .*: convert it"):
        read_lines(tmp_path / "latin.txt")
    with pytest.raises(UserError, match=r"absent\.txt: cannot be read: No such file"):
        read_lines(tmp_path / "absent.txt")


# --- writing ----------------------------------------------------------------------------------------------------------


def write(tmp_path, paths, listed, report=None, **options):
    """A training split of clips whose classes take turns."""
    out = tmp_path / "out"
    writer = DatasetWriter(out, name="clips", description="", classes=CLASSES, modalities=modalities(1.0, 16000))
    examples = [raw_clip("train", path.stem, n % 3, path, ToClip(0, 10)) for n, path in enumerate(paths)]
    write_clips(writer, str(out), examples, listed, report or Report(), processes=1, **options)
    return out


def test_more_clips_than_are_finished_together(tmp_path):
    """In order, and each with its own label."""
    paths = [write_clip(tmp_path / f"{number}.mkv", number) for number in range(clip_dataset._CHUNK + 3)]
    examples = read_clips(write(tmp_path, paths, dict.fromkeys(CLASSES, 6)), "train")
    assert [example["id"] for example in examples] == [path.stem for path in paths]
    assert [example["label"] for example in examples] == [number % 3 for number in range(len(paths))]
    assert [numbers_of(example) for example in examples] == [(number, number) for number in range(len(paths))]


def test_what_is_left_of_each_class(tmp_path):
    """Counted against what was listed, absent clips included; classes that were never listed are not named."""
    paths = [write_clip(tmp_path / f"{number}.mkv", number) for number in range(4)]
    paths[3].write_bytes(b"")
    report = Report()
    report.add(clip_dataset.ABSENT, "somewhere")
    out = write(tmp_path, paths, {"a": 3, "b": 1, "c": 0}, report, max_unreadable=0.5)
    assert {kind: problem["entries"] for kind, problem in json.loads((out / FILE_NAME).read_text()).items()} == {
        clip_dataset.ABSENT: ["somewhere"],
        UNREADABLE: [f"{paths[3]}: empty file"],
        clip_dataset.LEFT: ["a: 1 of 3 (33.3%)", "b: 1 of 1 (100.0%)"],
    }
    assert DAMAGED not in problems(report)


def test_too_many_unreadable_clips(tmp_path):
    paths = [write_clip(tmp_path / f"{number}.mkv", number) for number in range(4)]
    paths[3].write_bytes(b"")
    with pytest.raises(UserError, match="1 of 4 files are unreadable, more than 20 %"):
        write(tmp_path, paths, dict.fromkeys(CLASSES, 2), max_unreadable=0.2)
    assert not (tmp_path / "out").exists()
