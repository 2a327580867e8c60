"""AVE: audio-visual events of 28 classes in clips of 10 s, from the raw download.

python -m data_prep.ave --raw=DIR --out=DIR

The raw folder holds `AVE/<video>.mp4` (or another suffix), and `Annotations.txt`, `trainSet.txt`, `valSet.txt` and
`testSet.txt` with rows `category&video&quality&start&end` (Tian et al., "Audio-visual event localization in
unconstrained videos", ECCV 2018). Each row of the three lists is an example, with one label:

- 45 of the videos have rows of two or three categories. They give as many examples, of the same picture and sound. The
  first row of a video, in the order of the lists, has the video's id; the following ones have `<video>#2` and so on.
- In the official lists 18 of these videos are in train and in val or test as well. They stay there, as in everybody's
  figures.

--clip=whole, the default, takes the 10 s, as the public classifiers do (github.com/YapengTian/AV-Robustness-CVPR21,
GeWu-Lab/OGM-GE_CVPR2022); --clip=event takes the time from start to end; --clip=segment is the paper's supervised event
localisation: each of the 10 seconds is an example, `<id>@0` to `<id>@9`, of the event's class where its middle lies
between start and end, else of a further one, `background`. What happens to incomplete data:

- the video is absent: the row is dropped;
- picture or sound is missing or damaged: the example is kept with what is left of it;
- neither can be read: it is dropped. So is a second of which neither picture nor sound is there for half of it;
- an event lasts 0 s, as one of the official ones does: the whole clip counts, or all of its seconds are background.

Each is counted and listed in `prep_report.json` beside the data, with what is left of each class.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from umemma_jax import command
from umemma_jax.data.dataset import DatasetWriter
from umemma_jax.data_prep.build import console
from umemma_jax.data_prep.build.assemble import trained_classes
from umemma_jax.data_prep.build.clip_dataset import (
    ABSENT,
    add_clip_arguments,
    find_videos,
    modalities,
    raw_clip,
    read_lines,
    write_clips,
)
from umemma_jax.data_prep.build.labels import sorted_classes
from umemma_jax.data_prep.build.layout import check_layout
from umemma_jax.data_prep.build.prep_report import Report
from umemma_jax.data_prep.raw.clips import ToClip
from umemma_jax.errors import UserError

LISTS = {"train": "trainSet.txt", "val": "valSet.txt", "test": "testSet.txt"}
ANNOTATIONS = "Annotations.txt"
VIDEOS = "AVE"
FIELDS = ("category", "video", "quality", "start", "end")
SECONDS = 10.0  # of a clip
CLIPS = {  # name -> of the dataset, and what its examples are
    "whole": ("ave", "10 s each"),
    "event": ("ave_event", "the event alone"),
    "segment": ("ave_segment", "second by second"),
}
BACKGROUND = "background"  # class of seconds without the event

SEVERAL_LABELS = "video with several labels (an example for each)"
SEVERAL_SPLITS = "video in several splits (kept, as the lists say)"
NO_DURATION = "event of 0 s (the whole clip counts)"
NO_SECOND = "event of 0 s (all seconds are background)"
NOT_LISTED = "annotation in none of the lists (dropped)"


@dataclass(frozen=True)
class Row:
    """One row of a list.

    Attributes:
      category: class name.
      video: its id.
      start: of the event, s.
      end: of the event, s.
      where: file and line, for errors.
    """

    category: str
    video: str
    start: float
    end: float
    where: str


def prepare(
    out: str,
    seed: int = 0,
    overwrite: bool = False,
    *,
    raw: str,
    clip: str = "whole",
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
      seed: for provenance only, nothing is random.
      overwrite: whether `out` may be replaced.
      raw: folder with the videos and the lists.
      clip: "whole", "event" or "segment".
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
    folder = Path(raw)
    check_layout(folder, (VIDEOS, ANNOTATIONS, *LISTS.values()), "AVE")
    if clip == "segment" and fps < 1:
        raise UserError(f"--fps={fps:g}: not a frame for each second: give 1 or more with --clip=segment")
    report = Report()
    rows = {split: list(read_rows(folder / name)) for split, name in LISTS.items()}
    classes = _check_annotated(rows, list(read_rows(folder / ANNOTATIONS)), report)
    if clip == "segment":
        classes = _with_background(classes)
    _report_shared_videos(rows, report)
    videos = find_videos(folder / VIDEOS, report)
    examples, places, listed = [], {}, Counter()
    for split, row, id in _with_ids(rows):
        label = _label(row, clip, classes)
        listed.update([label] if isinstance(label, int) else label)
        if row.video not in videos:
            report.add(ABSENT, f"{row.video} ({row.where})")
            continue
        to_clip = ToClip(*_times(row, clip, report), fps, size, rate, max_pixels)
        examples.append(raw_clip(split, id, label, videos[row.video], to_clip))
        places[id] = row.where
    if not examples:
        raise UserError(f"{folder / VIDEOS}: none of the listed videos is in it: bring them, as <video>.mp4")
    listed_classes = classes
    examples, classes = trained_classes(examples, classes, lambda example: places[example.id], report, drop_unseen)
    name, what = CLIPS[clip]
    writer = DatasetWriter(
        out,
        name=name,
        description=f"Videos of audio-visual events (AVE), {what}.",
        classes=classes,
        modalities=modalities(fps, rate),
        source={
            "command": "data_prep.ave",
            "raw": raw,
            "clip": clip,
            "fps": fps,
            "rate": rate,
            "size": size,
            "max_pixels": max_pixels,
        },
        overwrite=overwrite,
    )
    counts = {name: listed[label] for label, name in enumerate(listed_classes) if name in classes}
    write_clips(writer, out, examples, counts, report, processes, max_unreadable)


def read_rows(path: Path) -> Iterator[Row]:
    """Reads a list; a header and empty lines are passed over.

    Raises:
      UserError: it cannot be read, or a row is not of the form `category&video&quality&start&end`.
    """
    for number, line in enumerate(read_lines(path), start=1):
        fields = [field.strip() for field in line.split("&")]
        is_header = number == 1 and fields[0].lower() == FIELDS[0]
        if line.strip() and not is_header:
            yield _row(fields, f"{path}, line {number}")


def _row(fields: Sequence[str], where: str) -> Row:
    if len(fields) != len(FIELDS):
        raise UserError(f"{where}: {len(fields)} fields instead of {len(FIELDS)} ({'&'.join(FIELDS)}): correct it")
    category, video, _, *times = fields
    if not category or not video or "/" in video:
        raise UserError(
            f"{where}: category {category!r}, video {video!r}: neither may be empty, nor a path: correct it"
        )
    try:
        start, end = map(float, times)
    except ValueError as error:
        raise UserError(f"{where}: start {times[0]!r}, end {times[1]!r}: not seconds: correct it") from error
    if not 0 <= start <= end <= SECONDS:
        raise UserError(f"{where}: an event from {start:g} s to {end:g} s in a clip of {SECONDS:g} s: correct it")
    return Row(category, video, start, end, where)


def _check_annotated(rows: Mapping[str, Sequence[Row]], annotations: Sequence[Row], report: Report) -> list[str]:
    """The classes, after checking that the lists have each annotation at most once, and no others' categories."""
    classes = sorted_classes({row.category for row in annotations})
    places: dict[tuple[str, str], str] = {}
    for row in (row for of_split in rows.values() for row in of_split):
        if row.category not in classes:
            raise UserError(f"{row.where}: class {row.category!r} is not in {ANNOTATIONS}: correct it")
        key = row.category, row.video
        if key in places:
            raise UserError(f"{row.where}: {row.video} is a {row.category!r} in {places[key]} already: remove one")
        places[key] = row.where
    for row in annotations:
        if (row.category, row.video) not in places:
            report.add(NOT_LISTED, f"{row.video} ({row.where})")
    return classes


def _with_background(classes: Sequence[str]) -> list[str]:
    if BACKGROUND in classes:
        raise UserError(f"{ANNOTATIONS}: class {BACKGROUND!r} is that of seconds without an event: rename it")
    return [*classes, BACKGROUND]


def _report_shared_videos(rows: Mapping[str, Sequence[Row]], report: Report) -> None:
    labels: dict[str, list[str]] = {}
    splits: dict[str, list[str]] = {}
    for split, of_split in rows.items():
        for row in of_split:
            labels.setdefault(row.video, []).append(row.category)
            splits.setdefault(row.video, []).append(split)
    for video, of_video in labels.items():
        if len(of_video) > 1:
            report.add(SEVERAL_LABELS, f"{video} ({'; '.join(of_video)})")
    for video, of_video in splits.items():
        if len(set(of_video)) > 1:
            report.add(SEVERAL_SPLITS, f"{video} ({', '.join(dict.fromkeys(of_video))})")


def _with_ids(rows: Mapping[str, Sequence[Row]]) -> Iterator[tuple[str, Row, str]]:
    """Split, row and id of each example."""
    times: Counter[str] = Counter()
    for split, of_split in rows.items():
        for row in of_split:
            times[row.video] += 1
            number = times[row.video]
            yield split, row, row.video if number == 1 else f"{row.video}#{number}"


def _times(row: Row, clip: str, report: Report) -> tuple[float, float]:
    """What is read of the video, from when to when, s."""
    if clip == "event" and row.start < row.end:
        return row.start, row.end
    if clip != "whole" and row.start == row.end:
        report.add(NO_DURATION if clip == "event" else NO_SECOND, f"{row.video} ({row.where})")
    return 0.0, SECONDS


def _label(row: Row, clip: str, classes: Sequence[str]) -> int | tuple[int, ...]:
    """Index of the event's class, or that of the class of each second."""
    event = classes.index(row.category)
    if clip != "segment":
        return event
    middles = (second + 0.5 for second in range(round(SECONDS)))
    return tuple(event if row.start <= middle < row.end else classes.index(BACKGROUND) for middle in middles)


def main() -> None:
    """Runs the command line."""
    parser = console.Parser("data_prep.ave", "AVE: videos of audio-visual events.")
    parser.add_argument("--raw", required=True, metavar="DIR", help="folder with AVE/ and the lists")
    parser.add_argument(
        "--clip", choices=CLIPS, default="whole", help="the whole video, its event, or each second (default: whole)"
    )
    add_clip_arguments(parser)
    console.add_drop_unseen_argument(parser)
    console.run(parser, prepare)


if __name__ == "__main__":
    command.run(main)
