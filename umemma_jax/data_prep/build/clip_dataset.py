"""A prepared dataset of clips: finding video files, reading each once for its frames and its sound, what is left."""

import argparse
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path

from umemma_jax.data.dataset import DatasetWriter, Modality
from umemma_jax.data_prep.build import console
from umemma_jax.data_prep.build.assemble import RawExample, content_of, reading_files
from umemma_jax.data_prep.build.prep_report import Report
from umemma_jax.data_prep.build.results import Result
from umemma_jax.data_prep.build.tasks import FileTask
from umemma_jax.data_prep.raw.clips import NO_PICTURE, NO_SOUND, Clip, ToClip
from umemma_jax.errors import UserError

SUFFIXES = {
    ".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".vob",
    ".webm", ".wmv",
}  # fmt: skip

ABSENT = "listed clip without file (dropped)"
NOT_A_VIDEO = "not a video file, by its name (passed over)"
FILE_TWICE = "another file of the same clip (the first by name counts)"
NOT_REACHED = "second that its clip does not reach (dropped)"
LEFT = "class, and how many of its listed examples are left"

_CHUNK = 16  # clips that are finished together; many seconds of work
_CLIP = "clip"  # the one task of a raw example, which gives both modalities


def find_videos(folder: Path, report: Report, key: Callable[[str], Hashable] = str) -> dict[Hashable, Path]:
    """Video files in a folder and in all folders inside it, sorted by path.

    Args:
      folder: where to look; what is hidden is passed over.
      report: gets other files, and those whose key an earlier file has.
      key: of a file, from its name without suffix.
    """
    found: dict[Hashable, Path] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        if path.suffix.lower() not in SUFFIXES:
            report.add(NOT_A_VIDEO, str(path))
        elif (first := found.setdefault(key(path.stem), path)) != path:
            report.add(FILE_TWICE, f"{path}: {first}")
    return found


def read_lines(path: Path) -> list[str]:
    """Lines of a list. Raises UserError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason}): convert it") from error


def modalities(frame_rate: float, sample_rate: int) -> dict[str, Modality]:
    """The modalities of clips."""
    return {
        "video": Modality(kind="video", encoding="jpeg", frame_rate=frame_rate),
        "audio": Modality(kind="audio", encoding="pcm_s16le", sample_rate=sample_rate),
    }


def raw_clip(split: str, id: str, label: int | tuple[int, ...], path: Path, to_clip: ToClip) -> RawExample:
    """A clip of a file.

    Args:
      split: its split.
      id: of the example.
      label: its class index. With one for each second, the seconds are examples of their own, `<id>@0`, `<id>@1`, ...
      path: of the file.
      to_clip: how it is read.
    """
    return RawExample(split, id, label, {_CLIP: FileTask(to_clip, path)})


def write_clips(
    writer: DatasetWriter,
    out: str,
    examples: Sequence[RawExample],
    listed: Mapping[str, int],
    report: Report,
    processes: int | str,
    max_unreadable: float = console.MAX_UNREADABLE,
) -> None:
    """Reads the files of clips and writes everything, in order, and prints a summary.

    Args:
      writer: not entered yet, with `modalities`.
      out: its folder.
      examples: made by `raw_clip`.
      listed: name of each class, in order, -> how many examples the raw data list, absent ones included.
      report: what is noted so far; problems with files, and what is left of each class if not all is, are added.
      processes: how many read files; or HOST:PORT of a Dask scheduler whose workers do.
      max_unreadable: share of the files that may be unreadable.

    Raises:
      UserError: more files are unreadable, or something cannot be written.
    """
    left: Counter[int] = Counter()
    with reading_files(writer, out, examples, report, processes, max_unreadable, _CHUNK) as results:
        pairs = zip(examples, results, strict=True)
        for example, result in console.progress(pairs, "reading and writing", len(examples)):
            left.update(_write(writer, example, result, report))
        if sum(left.values()) < sum(listed.values()):
            _report_what_is_left(listed, left, report)


def _write(writer: DatasetWriter, example: RawExample, result: Result, report: Report) -> list[int]:
    """Writes what could be read of a file as one example or several, and returns their classes."""
    task = example.tasks[_CLIP]
    content = content_of(task, result, report)
    if content is None:
        return []
    clip, written = task.value(content), []
    for id, label, part, where in _parts(example, clip):
        has_picture, has_sound = bool(part.frames), len(part.samples) > 0
        if not has_picture and not has_sound:
            report.add(NOT_REACHED, where)
            continue
        if not has_picture:
            report.add(NO_PICTURE, where)
        if not has_sound:
            report.add(NO_SOUND, where)
        video, audio = part.frames if has_picture else None, part.samples if has_sound else None
        writer.write(example.split, id=id, label=label, video=video, audio=audio)
        written.append(label)
    return written


def _parts(example: RawExample, clip: Clip) -> Iterator[tuple[str, int, Clip, str]]:
    """Id, class and clip of each example, and where it is from, for people."""
    task = example.tasks[_CLIP]
    if isinstance(example.label, int):
        yield example.id, example.label, clip, str(task)
        return
    for number, (label, second) in enumerate(zip(example.label, task.convert.seconds(clip), strict=True)):
        id = f"{example.id}@{number}"
        yield id, label, second, f"{id} ({task})"


def _report_what_is_left(listed: Mapping[str, int], left: Mapping[int, int], report: Report) -> None:
    """Adds a line for each class of which there were clips, the one that has lost most first."""
    shares = [(left[label] / count, name, count) for label, (name, count) in enumerate(listed.items()) if count]
    for share, name, count in sorted(shares):
        report.add(LEFT, f"{name}: {round(share * count)} of {count} ({share:.1%})")


# --- the command line -------------------------------------------------------------------------------------------------


def add_clip_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --fps and --rate, and the arguments for images."""
    console.add_frame_rate_argument(parser)
    console.add_sample_rate_argument(parser)
    console.add_image_arguments(parser)
