"""Columns of a table as modalities: the one table, by kind, of what the fields of a column become."""

import argparse
import dataclasses
import fnmatch
import functools
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from umemma_jax.data.dataset import Modality
from umemma_jax.data.info import check_name
from umemma_jax.data_prep.build import console
from umemma_jax.data_prep.build.prep_report import Report
from umemma_jax.data_prep.build.rows import MISSING_MARKS, Row, is_missing, short, text_of
from umemma_jax.data_prep.build.tasks import ContentTask, Conversion, FileTask, Task
from umemma_jax.data_prep.raw import media
from umemma_jax.data_prep.raw.clips import ToFrames, ToFramesAndSound, ToSound
from umemma_jax.data_prep.raw.near import below, near
from umemma_jax.data_prep.raw.photos import ToJpeg, ToPixels
from umemma_jax.data_prep.raw.pictures import PicturesTask
from umemma_jax.data_prep.raw.tabular import TYPES, Tabular, learned
from umemma_jax.errors import UserError

RESERVED = ("self", "split", "id", "label", "file")  # no names for modalities: arguments of DatasetWriter.write
LONGEST_NAME = 100  # characters of a modality's
SHOWN = 3  # paths, where none exists
NO_FILE = "file does not exist (left out)"
_TYPED = re.compile(rf"(.*?)(?::({'|'.join(TYPES)}))?", re.DOTALL)
_ARGUMENT = re.compile(r"(?:(?P<name>[A-Za-z0-9_]+)=)?(?P<columns>.+)", re.DOTALL)


@dataclass(frozen=True)
class Column:
    """Where a modality comes from.

    Attributes:
      kind: a key of `KINDS`.
      name: of the modality.
      columns: of the table; only "tabular" can have more than one.
      types: of "tabular" columns that are no numbers: "category" or "date".
      strays: of "tabular" columns, what else counts as missing in them.
    """

    kind: str
    name: str
    columns: tuple[str, ...]
    types: Mapping[str, str] = field(default_factory=dict)
    strays: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """What columns depend on besides the table.

    Attributes:
      folder: that paths count from.
      size: longest shorter side of an image, pixels.
      rate: sample rate of sound, Hz.
      fps: frames of a second of a video.
      seconds: longest part of a video or of sound, from its beginning.
      missing: what stands for a missing number, category or date, beside nothing at all.
      max_pixels: of an image or a frame; None: as `limits` says.
    """

    folder: Path
    size: int
    rate: int
    fps: float
    seconds: float
    missing: tuple[str, ...] = MISSING_MARKS
    max_pixels: int | None = None


class Source(Protocol):
    """A modality's values, row by row."""

    modality: Modality

    def take(self, row: Row, report: Report) -> Task | str | np.ndarray | None:
        """The row's value, or how it is read; None where it is missing. Raises UserError if it is no value."""


class _Files:
    """Files that a conversion reads, by path or in memory."""

    def __init__(self, column: Column, settings: Settings, modality: Modality, conversion: Conversion) -> None:
        (self._column,) = column.columns
        self._folder = settings.folder
        self._marks = settings.missing
        self._conversion = conversion
        self.modality = modality

    def take(self, row: Row, report: Report) -> Task | None:
        value = _known(row, self._column, self._marks, report)
        return None if value is None else self._task(value, row, report)

    def _task(self, value: Any, row: Row, report: Report) -> Task | None:
        content = _content(value, row, self._column)
        if isinstance(content, list):
            raise UserError(
                f"{row.where}: column {self._column!r} is a list: give one value, only a video takes several pictures"
            )
        return self._file_task(content, self._conversion, row, report)

    def _file_task(
        self, content: str | bytes, conversion: Conversion, row: Row, report: Report
    ) -> FileTask | ContentTask | None:
        if isinstance(content, bytes):
            return ContentTask(conversion, content, f"{row.where}, column {self._column!r}")
        path = self._folder / content
        if not os.path.exists(path):  # unlike Path.exists, it takes a text that is too long for a path
            meant = near(self._folder, content)
            report.add(NO_FILE, f"{path} ({row.where})" + (f": there is {meant}" if meant else ""))
            return None
        return FileTask(conversion, path)


class _Images(_Files):
    def __init__(
        self, column: Column, rows: Sequence[Row], settings: Settings, trained: Modality | None = None
    ) -> None:
        if trained is not None and trained.encoding == "raw":
            super().__init__(column, settings, trained, ToPixels(trained.shape))
            return
        to_jpeg = ToJpeg(settings.size, settings.max_pixels)
        super().__init__(column, settings, Modality(kind="image", encoding="jpeg"), to_jpeg)


class _Sounds(_Files):
    def __init__(
        self, column: Column, rows: Sequence[Row], settings: Settings, trained: Modality | None = None
    ) -> None:
        modality = Modality(kind="audio", encoding="pcm_s16le", sample_rate=settings.rate)
        to_sound = ToSound(0, settings.seconds, sample_rate=settings.rate)
        super().__init__(column, settings, modality, to_sound)


class _Videos(_Files):
    def __init__(
        self, column: Column, rows: Sequence[Row], settings: Settings, trained: Modality | None = None
    ) -> None:
        modality = Modality(kind="video", encoding="jpeg", frame_rate=settings.fps)
        to_frames = ToFrames(0, settings.seconds, settings.fps, settings.size, max_pixels=settings.max_pixels)
        super().__init__(column, settings, modality, to_frames)
        self._to_jpeg = ToJpeg(settings.size, settings.max_pixels)

    def _task(self, value: Any, row: Row, report: Report) -> Task | None:
        content = _content(value, row, self._column)
        if not isinstance(content, list):
            return self._file_task(content, self._conversion, row, report)
        pictures = [_content(picture, row, self._column) for picture in content]
        tasks = [self._file_task(picture, self._to_jpeg, row, report) for picture in pictures]
        found = tuple(task for task in tasks if task is not None)
        return PicturesTask(found, f"{row.where}, column {self._column!r}") if found else None


class _Texts:
    def __init__(
        self, column: Column, rows: Sequence[Row], settings: Settings, trained: Modality | None = None
    ) -> None:
        (self._column,) = column.columns
        self._marks = settings.missing
        self.modality = Modality(kind="text", encoding="utf-8")

    def take(self, row: Row, report: Report) -> str | None:
        return None if _known(row, self._column, self._marks, report) is None else text_of(row, self._column)


class _Table(Tabular):
    def __init__(
        self, column: Column, rows: Sequence[Row], settings: Settings, trained: Modality | None = None
    ) -> None:
        reading = settings.missing, column.strays
        modality = trained or learned(column.columns, column.types, rows, *reading)
        super().__init__(column.columns, column.types, modality, *reading)


def _known(row: Row, column: str, marks: Sequence[str], report: Report) -> Any:
    """A field that is one value, None where it is missing."""
    value = row.values.get(column)
    if isinstance(value, list | tuple) and not value:
        return None
    if value is not None and is_missing(value, marks):
        report.add(f"mark of a missing value in column {column!r} (left out)", f"{row.where}: {short(value)}")
        return None
    return value


def _content(value: Any, row: Row, column: str) -> str | bytes | list[Any]:
    """As `content_of` says."""
    if media.is_url(value):
        raise UserError(
            f"{row.where}: {short(value)} in column {column!r} is a URL, and nothing is downloaded: give a file"
        )
    try:
        return media.content_of(value)
    except ValueError as error:
        raise UserError(f"{row.where}: column {column!r} {error}") from error


KINDS = {"image": _Images, "video": _Videos, "audio": _Sounds, "text": _Texts, "tabular": _Table}


def sources(
    columns: Sequence[Column],
    rows: Sequence[Row],
    settings: Settings,
    trained: Mapping[str, Modality] = MappingProxyType({}),
) -> dict[str, Source]:
    """The modalities of a table, by name.

    Args:
      columns: where they come from.
      rows: those of the training, of which there is something to learn.
      settings: what columns depend on besides.
      trained: what has been learned already, by name.
    """
    return {column.name: KINDS[column.kind](column, rows, settings, trained.get(column.name)) for column in columns}


def check_inputs(columns: Sequence[Column], labels: Sequence[str]) -> None:
    """Raises UserError if a column of labels is an input as well."""
    for column in columns:
        for name in column.columns:
            if name in labels:
                raise UserError(
                    f"--{column.kind}={name}: is the label: it cannot be an input as well, it would tell the answer"
                )


def check_values(columns: Sequence[Column], rows: Sequence[Row], missing: Sequence[str]) -> None:
    """Raises UserError if no row has any value of a modality."""
    for column in columns:
        if not any(not is_missing(row.values.get(name), missing) for row in rows for name in column.columns):
            raise UserError(
                f"--{column.kind}={','.join(column.columns)}: none of the {len(rows)} rows has a value: leave it out"
            )


def check_files(columns: Sequence[Column], rows: Sequence[Row], folder: Path) -> None:
    """Raises UserError if a column names files, and not one of them is there; says what is like the first ones."""
    for column in columns:
        if not issubclass(KINDS[column.kind], _Files):
            continue
        given = [path for row in rows if (path := media.path_of(row.values.get(column.columns[0]))) is not None]
        if given and not any(os.path.isfile(folder / path) for path in given):
            if media.is_url(given[0]):
                continue  # which is said of its row
            first = (f"{short(str(folder / path))}{_alike(folder, path)}" for path in given[:SHOWN])
            raise UserError(
                f"--{column.kind}={column.columns[0]}: none of the {len(given)} files exists: {', '.join(first)}"
            )


def _alike(folder: Path, given: str) -> str:
    found = near(folder, given) or below(folder, given)
    return f" (there is {found})" if found else ""


def read_once(found: Mapping[str, Task | str | np.ndarray | None]) -> dict[str, Any]:
    """A row's values; frames and sound of the same file become one task, which gives what there is of both."""
    joined = dict(found)
    tasks = {name: task for name, task in found.items() if isinstance(task, FileTask | ContentTask)}
    videos = {task.source: name for name, task in tasks.items() if isinstance(task.convert, ToFrames)}
    for name, task in tasks.items():
        if isinstance(task.convert, ToSound) and (video := videos.pop(task.source, None)):
            frames, sound = joined.pop(video).convert, joined.pop(name).convert
            both = ToFramesAndSound(**vars(frames) | {"sample_rate": sound.sample_rate, "names": (video, name)})
            joined[f"{video} and {name}"] = dataclasses.replace(task, convert=both)
    return joined


# --- the command line -------------------------------------------------------------------------------------------------


_ARGUMENTS = {  # kind -> metavar and help, of all preparations that take columns
    "image": ("[NAME=]COLUMN", "image files"),
    "audio": ("[NAME=]COLUMN", "sound"),
    "text": ("[NAME=]COLUMN", "texts"),
    "tabular": ("[NAME=]COLUMN,...", "numbers, or lists of them; COLUMN:category, COLUMN:date; lab_* for several"),
}


def add_column_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --image, --audio, --text and --tabular, all of which go into a list `modalities`, and --rate."""
    for kind, (metavar, help) in _ARGUMENTS.items():
        _add_column_argument(parser, kind, metavar, help)
    console.add_sample_rate_argument(parser)


def add_video_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --video, which goes into `modalities` too, --fps and --seconds."""
    _add_column_argument(parser, "video", "[NAME=]COLUMN", "video files")
    console.add_frame_rate_argument(parser)
    parser.add_argument(
        "--seconds",
        type=console.count,
        default=10,
        metavar="S",
        help="most of a video or of sound that is read (default: 10)",
    )


def _add_column_argument(parser: argparse.ArgumentParser, kind: str, metavar: str, help: str) -> None:
    parse = functools.partial(parse_column, kind)
    parser.add_argument(f"--{kind}", dest="modalities", action="append", type=parse, metavar=metavar, help=help)


def parse_column(kind: str, text: str) -> Column:
    """What --image and its likes are given: COLUMN or NAME=COLUMN.

    For "tabular" there may be several columns with commas between them, each as COLUMN:TYPE if it holds no numbers.
    """
    match = _ARGUMENT.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError("name a column")
    if kind != "tabular":
        return Column(kind, match["name"] or kind, (match["columns"],))
    typed = [_TYPED.fullmatch(column).groups() for column in match["columns"].split(",")]
    types = {column: type for column, type in typed if type is not None}
    return Column(kind, match["name"] or kind, tuple(column for column, _ in typed), types)


def has_pattern(column: Column) -> bool:
    """Whether a name of its columns may be a pattern of several, as `lab_*`."""
    return any(set("*?[") & set(name) for name in column.columns)


def matched(column: Column, names: Sequence[str]) -> Column:
    """With the columns that its patterns match, of those of a table; what is a name, or matches nothing, stays."""
    found = {name: [name] if name in names else fnmatch.filter(names, name) or [name] for name in column.columns}
    columns = tuple(dict.fromkeys(name for of_pattern in found.values() for name in of_pattern))
    types = {name: column.types[pattern] for pattern in column.types for name in found[pattern]}
    return dataclasses.replace(column, columns=columns, types=types)


def check_names(modalities: Sequence[Column] | None) -> None:
    """Raises UserError unless there are modalities, and their names are different and possible."""
    if not modalities:
        raise UserError(f"no modality: name a column with one of --{', --'.join(_ARGUMENTS)}")
    for name, times in Counter(modality.name for modality in modalities).items():
        if times > 1:
            raise UserError(f"--{name}: {times} modalities of this name: name them, as in --{name}=NAME=COLUMN")
        if name in RESERVED or len(name) > LONGEST_NAME:
            raise UserError(f"{name}=COLUMN: a modality cannot be called {name!r}: choose another name")
        try:
            check_name("modality", name)
        except ValueError as error:
            raise UserError(f"{error}: choose another name") from error
    for modality in modalities:
        for column, times in Counter(modality.columns).items():
            if times > 1:
                raise UserError(f"--{modality.kind}: column {column!r} stands {times} times: name it once")
