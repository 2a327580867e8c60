"""Kinetics-Sound: the classes of Kinetics that can be seen and heard, in clips of 10 s, from class folders or lists.

python -m data_prep.kinetics_sound --raw=DIR --out=DIR
python -m data_prep.kinetics_sound --raw=DIR --train-list=FILE --test-list=FILE --out=DIR

Class folders: the raw folder holds `<split>/<class>/<video>_<start>_<end>.mp4` (or another suffix) for the splits train
and test, and perhaps val. Other classes of Kinetics may be there; they are passed over. `_` in a class name is a space.

Lists, as those of github.com/GeWu-Lab/OGM-GE_CVPR2022: rows `<video>_<start>_<end>,<seconds>,<label>`, where the end
may be left out and the label is a name or a number. Numbers count in the 31 classes by name, from 0. The raw folder, or
folders inside it, hold the files, named as in the list; an end, and zeros before the start, make no difference. Such a
file is the clip. A file `<video>.mp4` is the whole video, of which the seconds from `start` on are taken.

Classes: 31 of today's Kinetics (Arandjelovic and Zisserman, "Look, listen and learn", ICCV 2017, named 34 of an earlier
one), 27 of them (github.com/YapengTian/AV-Robustness-CVPR21), or those of a file, one to a line, which then also says
what the numbers mean. Without a val split one is drawn from train. What happens to incomplete data:

- a listed clip is absent, as many are that have left YouTube: it is dropped;
- picture or sound is missing or damaged: the example is kept with what is left of it;
- neither can be read: it is dropped.

Each is counted and listed in `prep_report.json` beside the data, with what is left of each class.
"""

import re
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from umemma_jax import command
from umemma_jax.data.dataset import DatasetWriter
from umemma_jax.data_prep.build import console
from umemma_jax.data_prep.build.assemble import stratified, trained_classes
from umemma_jax.data_prep.build.clip_dataset import (
    ABSENT,
    add_clip_arguments,
    find_videos,
    modalities,
    raw_clip,
    read_lines,
    write_clips,
)
from umemma_jax.data_prep.build.layout import check_layout
from umemma_jax.data_prep.build.prep_report import Report
from umemma_jax.data_prep.build.splits import SPLIT_NAMES, SPLITS
from umemma_jax.data_prep.raw.clips import ToClip
from umemma_jax.errors import UserError

CLASSES = (
    "blowing nose", "blowing out candles", "bowling", "chopping wood", "dribbling basketball", "laughing",
    "mowing lawn", "playing accordion", "playing bagpipes", "playing bass guitar", "playing clarinet", "playing drums",
    "playing guitar", "playing harmonica", "playing keyboard", "playing organ", "playing piano", "playing saxophone",
    "playing trombone", "playing trumpet", "playing violin", "playing xylophone", "ripping paper", "shoveling snow",
    "shuffling cards", "singing", "stomping grapes", "tap dancing", "tapping guitar", "tapping pen", "tickling",
)  # fmt: skip
_NOT_IN_27 = ("blowing out candles", "dribbling basketball", "mowing lawn", "stomping grapes")
CLASS_LISTS = {"31": CLASSES, "27": tuple(name for name in CLASSES if name not in _NOT_IN_27)}
SECONDS = 10.0  # of a clip
FIELDS = ("clip", "seconds", "label")
_NAME = re.compile(r"(?P<video>[\w-]{11})_(?P<start>\d+)(?:_\d+)?", re.ASCII)  # ids of YouTube have 11 characters

OTHER_CLASS = "folder of a class that is not in the class list (passed over)"
OTHER_LABEL = "row of a class that is not in the class list (dropped)"


@dataclass(frozen=True)
class Row:
    """One clip, found in a class folder or named by a list.

    Attributes:
      split: its split.
      name: of the clip, which is the example's id.
      label: class name.
      seconds: how long it is.
      where: file, and line of a list, for errors.
    """

    split: str
    name: str
    label: str
    seconds: float
    where: str


@dataclass(frozen=True)
class Source:
    """Where a clip is: a file, and when in it the clip starts, s."""

    path: Path
    start: float = 0.0


def prepare(
    out: str,
    seed: int = 0,
    overwrite: bool = False,
    *,
    raw: str,
    train_list: str | None = None,
    val_list: str | None = None,
    test_list: str | None = None,
    classes: str = "31",
    validation_share: float = 0.1,
    fps: float = 1.0,
    rate: int = 16000,
    size: int = 256,
    max_pixels: int | None = None,
    processes: int | str = 1,
    max_unreadable: float = console.MAX_UNREADABLE,
    drop_unseen: bool = False,
) -> None:
    """Prepares the dataset: splits train, val and test.

    Args:
      out: folder to make.
      seed: of the validation split.
      overwrite: whether `out` may be replaced.
      raw: folder with class folders, or with the listed files.
      train_list: file; None, of this and the next two, means class folders.
      val_list: file.
      test_list: file.
      classes: "31", "27", or a file with a name on each line.
      validation_share: share of train to draw, every class in proportion, if there is no val; 0 leaves val out.
      fps: frames of a second to keep.
      rate: of the sound, Hz.
      size: frames keep at most so many pixels on their shorter side.
      max_pixels: files of more are refused; None: as `umemma_jax.data_prep.raw.limits` says.
      processes: how many read videos; or HOST:PORT of a Dask scheduler whose workers do.
      max_unreadable: share of the videos that may be unreadable.
      drop_unseen: whether examples of classes that training never sees are dropped.

    Raises:
      UserError: the raw data are not as described above in a way that cannot be mended, or `out` is in use.
    """
    report, folder = Report(), Path(raw)
    lists = {split: path for split, path in zip(SPLITS, (train_list, val_list, test_list), strict=True) if path}
    names = CLASS_LISTS.get(classes) or read_classes(Path(classes))
    if lists:
        numbered = CLASSES if classes in CLASS_LISTS else names
        rows, sources = _from_lists(folder, lists, names, numbered, report)
    else:
        rows, sources = _from_folders(folder, names, report)
    if all(row.split != "val" for row in rows):
        rows = _draw_validation(rows, validation_share, np.random.default_rng(seed))
    examples, places = [], {row.name: row.where for row in rows}
    for row in sorted(rows, key=lambda row: SPLITS.index(row.split)):
        source = sources.get(row.name)
        if source is None:
            report.add(ABSENT, f"{row.name} ({row.where})")
            continue
        to_clip = ToClip(source.start, source.start + row.seconds, fps, size, rate, max_pixels)
        examples.append(raw_clip(row.split, row.name, names.index(row.label), source.path, to_clip))
    examples, names = trained_classes(examples, names, lambda example: places[example.id], report, drop_unseen)
    writer = DatasetWriter(
        out,
        name=f"kinetics_sound_{len(names)}",
        description=f"Videos of {len(names)} classes that can be seen and heard (Kinetics-Sound).",
        classes=names,
        modalities=modalities(fps, rate),
        source={
            "command": "data_prep.kinetics_sound",
            "raw": raw,
            "lists": lists,
            "classes": classes,
            "validation_share": validation_share,
            "seed": seed,
            "fps": fps,
            "rate": rate,
            "size": size,
            "max_pixels": max_pixels,
        },
        overwrite=overwrite,
    )
    counts = Counter(row.label for row in rows)
    listed = {name: counts[name] for name in names}
    write_clips(writer, out, examples, listed, report, processes, max_unreadable)


def read_classes(path: Path) -> tuple[str, ...]:
    """Reads a class list, a name on each line.

    Raises:
      UserError: it cannot be read, is empty, or has a name twice.
    """
    names = tuple(_class_name(line) for line in read_lines(path) if line.strip())
    if not names:
        raise UserError(f"{path}: no class in it: give a name on each line")
    for name, times in Counter(names).items():
        if times > 1:
            raise UserError(f"{path}: class {name!r} comes {times} times: leave it in once")
    return names


def _class_name(text: str) -> str:
    return text.strip().replace("_", " ")


# --- class folders ----------------------------------------------------------------------------------------------------


def _from_folders(raw: Path, classes: Sequence[str], report: Report) -> tuple[list[Row], dict[str, Source]]:
    """The clips of the classes, and where they are, by name."""
    check_layout(raw, ("train", "test"), "Kinetics-Sound")
    rows: list[Row] = []
    sources: dict[str, Source] = {}
    for split, folder in _split_folders(raw).items():
        for of_class in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
            label = _class_name(of_class.name)
            if label not in classes:
                report.add(OTHER_CLASS, str(of_class))
                continue
            for name, path in find_videos(of_class, report).items():
                if name in sources:
                    raise UserError(f"{path}: there is another clip of this name, {sources[name].path}: remove one")
                sources[name] = Source(path)
                rows.append(Row(split, name, label, SECONDS, str(path)))
    if not rows:
        raise UserError(f"{raw}: no video in a folder of one of the {len(classes)} classes: check --classes")
    return rows, sources


def _split_folders(raw: Path) -> dict[str, Path]:
    """Split -> folder, in the order of `SPLITS`."""
    found = {SPLIT_NAMES[path.name]: path for path in sorted(raw.iterdir()) if path.name in SPLIT_NAMES}
    return {split: found[split] for split in SPLITS if split in found and found[split].is_dir()}


# --- lists ------------------------------------------------------------------------------------------------------------


def _from_lists(
    raw: Path, lists: Mapping[str, str], classes: Sequence[str], numbered: Sequence[str], report: Report
) -> tuple[list[Row], dict[str, Source]]:
    """The listed clips of the classes, and where those are that are there, by name."""
    if "train" not in lists or "test" not in lists:
        raise UserError("--train-list and --test-list: give both, or neither for class folders")
    if not raw.is_dir():
        raise UserError(f"{raw}: no such folder: point --raw at the videos")
    rows: list[Row] = []
    places: dict[Hashable, str] = {}
    for split, path in lists.items():
        for row in read_list(Path(path), split, numbered):
            key = _key(row.name)
            if key in places:
                raise UserError(f"{row.where}: {row.name} is in {places[key]} already: remove one of the two")
            places[key] = row.where
            if row.label in classes:
                rows.append(row)
            else:
                report.add(OTHER_LABEL, f"{row.name} ({row.label}, {row.where})")
    videos = find_videos(raw, report, _key)
    sources = {row.name: source for row in rows if (source := _find(row.name, videos)) is not None}
    if not sources:
        raise UserError(
            f"{raw}: none of the {len(rows)} listed clips is in it or in folders inside: does it lie a level too low, "
            "or is it of another dataset?"
        )
    return rows, sources


def read_list(path: Path, split: str, numbered: Sequence[str]) -> Iterator[Row]:
    """Reads a list.

    Args:
      path: of the file; empty lines are passed over.
      split: of its clips.
      numbered: class names that numbers stand for.

    Raises:
      UserError: it cannot be read, a row is not of the form `clip,seconds,label`, or the label is no class.
    """
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            yield _row(line, f"{path}, line {number}", split, numbered)


def _row(line: str, where: str, split: str, numbered: Sequence[str]) -> Row:
    fields = [field.strip() for field in line.split(",")]
    if len(fields) != len(FIELDS):
        raise UserError(f"{where}: {len(fields)} fields instead of {len(FIELDS)} ({','.join(FIELDS)}): correct it")
    name, seconds, label = fields
    if not name or "/" in name:
        raise UserError(f"{where}: clip {name!r}: it may not be empty, nor a path: correct it")
    if not seconds.isdecimal() or int(seconds) < 1:
        raise UserError(f"{where}: {seconds!r} is not a whole number of seconds from 1 on: correct it")
    if label.isdecimal() and int(label) < len(numbered):
        return Row(split, name, numbered[int(label)], float(seconds), where)
    if _class_name(label) not in numbered:
        raise UserError(
            f"{where}: label {label!r} is none of the {len(numbered)} classes: correct it, or give others by --classes"
        )
    return Row(split, name, _class_name(label), float(seconds), where)


def _key(name: str) -> Hashable:
    """What two names of the same clip have in common."""
    match = _NAME.fullmatch(name)
    return (match["video"], int(match["start"])) if match else name


def _find(name: str, videos: Mapping[Hashable, Path]) -> Source | None:
    key = _key(name)
    if key in videos:
        return Source(videos[key])
    if isinstance(key, tuple) and key[0] in videos:
        video, start = key
        return Source(videos[video], float(start))
    return None


# --- splits -----------------------------------------------------------------------------------------------------------


def _draw_validation(rows: Sequence[Row], share: float, rng: np.random.Generator) -> list[Row]:
    """The same clips, some of train's in val instead."""
    train = [row for row in rows if row.split == "train"]
    _, labels = np.unique([row.label for row in train], return_inverse=True)
    parts = stratified(labels, [share], rng)
    drawn = {row.name for row, part in zip(train, parts, strict=True) if part}
    return [replace(row, split="val") if row.name in drawn else row for row in rows]


def main() -> None:
    """Runs the command line."""
    parser = console.Parser("data_prep.kinetics_sound", "Kinetics-Sound: videos that can be seen and heard.")
    parser.add_argument(
        "--raw", required=True, metavar="DIR", help="folder with <split>/<class>/, or with listed files"
    )
    for split in SPLITS:
        parser.add_argument(f"--{split}-list", metavar="FILE", help=f"rows clip,seconds,label of {split}")
    parser.add_argument(
        "--classes", default="31", metavar="LIST", help="31, 27, or a file with a name on each line (default: 31)"
    )
    parser.add_argument(
        "--validation-share",
        type=console.share,
        default=0.1,
        metavar="SHARE",
        help="of train, where there is no val (default: 0.1)",
    )
    add_clip_arguments(parser)
    console.add_drop_unseen_argument(parser)
    console.run(parser, prepare)


if __name__ == "__main__":
    command.run(main)
