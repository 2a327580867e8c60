"""Columns of a table as modalities: the one table, by kind, of what the fields of a column become."""

import argparse
import functools
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from data_prep.build import console
from data_prep.build.parallel import Conversion, FileTask
from data_prep.build.prep_report import Report
from data_prep.build.rows import MISSING_MARKS, Row, is_missing, short
from data_prep.raw.clips import ToFrames, ToFramesAndSound, ToSound
from data_prep.raw.near import below, near
from data_prep.raw.photos import ToJpeg
from umemma_jax.data.dataset import Modality
from umemma_jax.errors import UserError

RESERVED = ("self", "split", "id", "label", "file")  # no names for modalities: arguments of DatasetWriter.write
LONGEST_NAME = 100  # characters of a modality's
SHOWN = 3  # paths, where none exists
NO_FILE = "file does not exist (left out)"
_ARGUMENT = re.compile(r"(?:(?P<name>[A-Za-z0-9_]+)=)?(?P<columns>.+)", re.DOTALL)


@dataclass(frozen=True)
class Column:
    """Where a modality comes from.

    Attributes:
      kind: a key of `KINDS`.
      name: of the modality.
      columns: of the table; only "tabular" can have more than one.
    """

    kind: str
    name: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Settings:
    """What columns depend on besides the table.

    Attributes:
      folder: that paths count from.
      size: longest shorter side of an image, pixels.
      rate: sample rate of sound, Hz.
      fps: frames of a second of a video.
      seconds: longest part of a video or of sound, from its beginning.
      missing: what stands for a missing number, beside nothing at all.
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

    def take(self, row: Row, report: Report) -> FileTask | str | np.ndarray | None:
        """The row's value, or how it is read; None where it is missing. Raises UserError if it is no value."""


class _Files:
    """Paths of files that a conversion reads."""

    def __init__(self, column: Column, settings: Settings, modality: Modality, conversion: Conversion) -> None:
        (self._column,) = column.columns
        self._folder = settings.folder
        self._conversion = conversion
        self.modality = modality

    def take(self, row: Row, report: Report) -> FileTask | None:
        if self._column not in row.values:
            return None
        given = text_of(row, self._column)
        path = self._folder / given
        if not os.path.exists(path):  # unlike Path.exists, it takes a text that is too long for a path
            meant = near(self._folder, given)
            report.add(NO_FILE, f"{path} ({row.where})" + (f": there is {meant}" if meant else ""))
            return None
        return FileTask(self._conversion, path)


class _Images(_Files):
    def __init__(self, column: Column, rows: Sequence[Row], settings: Settings) -> None:
        to_jpeg = ToJpeg(settings.size, settings.max_pixels)
        super().__init__(column, settings, Modality(kind="image", encoding="jpeg"), to_jpeg)


class _Sounds(_Files):
    def __init__(self, column: Column, rows: Sequence[Row], settings: Settings) -> None:
        modality = Modality(kind="audio", encoding="pcm_s16le", sample_rate=settings.rate)
        to_sound = ToSound(0, settings.seconds, sample_rate=settings.rate)
        super().__init__(column, settings, modality, to_sound)


class _Videos(_Files):
    def __init__(self, column: Column, rows: Sequence[Row], settings: Settings) -> None:
        modality = Modality(kind="video", encoding="jpeg", frame_rate=settings.fps)
        to_frames = ToFrames(0, settings.seconds, settings.fps, settings.size, max_pixels=settings.max_pixels)
        super().__init__(column, settings, modality, to_frames)


class _Texts:
    def __init__(self, column: Column, rows: Sequence[Row], settings: Settings) -> None:
        (self._column,) = column.columns
        self.modality = Modality(kind="text", encoding="utf-8")

    def take(self, row: Row, report: Report) -> str | None:
        return text_of(row, self._column) if self._column in row.values else None


class _Vectors:
    """Numbers, each in its column, or lists of numbers in one column. A number that is missing is NaN.

    A row lacks the modality where all its numbers are missing.
    """

    def __init__(self, column: Column, rows: Sequence[Row], settings: Settings) -> None:
        self._columns = column.columns
        self._marks = settings.missing
        first = next((numbers for row in rows if (numbers := self._numbers(row)) is not None), None)
        if first is None:
            raise UserError(f"--tabular: no row has a number in {', '.join(column.columns)}: leave it out")
        self._size = len(first)
        self._in_lists = any(isinstance(row.values.get(name), list) for name in self._columns for row in rows)
        names = None if self._in_lists else self._columns
        self.modality = Modality(kind="tabular", encoding="float32", shape=(self._size,), columns=names)

    def take(self, row: Row, report: Report) -> np.ndarray | None:
        numbers = self._numbers(row)
        if numbers is None:
            return None
        if len(numbers) != self._size:
            raise UserError(
                f"{row.where}: {len(numbers)} numbers instead of {self._size}: correct it or leave it empty"
            )
        for position in np.flatnonzero(np.isnan(numbers)):
            name = f"{self._columns[0]}[{position}]" if self._in_lists else self._columns[position]
            report.add(f"missing number in column {name!r} (kept as missing)", row.where)
        return numbers

    def _numbers(self, row: Row) -> np.ndarray | None:
        fields = [(column, row.values.get(column)) for column in self._columns]
        if len(fields) == 1 and isinstance(fields[0][1], list):
            fields = [(f"{fields[0][0]}[{position}]", item) for position, item in enumerate(fields[0][1])]
        numbers = np.array([self._number(row, column, field) for column, field in fields], np.float32)
        return None if np.all(np.isnan(numbers)) else numbers

    def _number(self, row: Row, column: str, field: Any) -> float:
        if is_missing(field, self._marks):
            return math.nan
        try:
            number = float(field)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not abs(number) <= float(np.finfo(np.float32).max):
            raise UserError(
                f"{row.where}: {short(field)} in column {column!r} is no finite number: correct it or leave it empty"
            )
        return number


KINDS = {"image": _Images, "video": _Videos, "audio": _Sounds, "text": _Texts, "tabular": _Vectors}


def sources(columns: Sequence[Column], rows: Sequence[Row], settings: Settings) -> dict[str, Source]:
    """The modalities of a table, by name."""
    return {column.name: KINDS[column.kind](column, rows, settings) for column in columns}


def check_files(columns: Sequence[Column], rows: Sequence[Row], folder: Path) -> None:
    """Raises UserError if a column names files, and not one of them is there; says what is like the first ones."""
    for column in columns:
        if not issubclass(KINDS[column.kind], _Files):
            continue
        given = [text_of(row, column.columns[0]) for row in rows if column.columns[0] in row.values]
        if given and not any(os.path.isfile(folder / path) for path in given):
            first = (f"{short(str(folder / path))}{_alike(folder, path)}" for path in given[:SHOWN])
            raise UserError(
                f"--{column.kind}={column.columns[0]}: none of the {len(given)} files exists: {', '.join(first)}"
            )


def _alike(folder: Path, given: str) -> str:
    found = near(folder, given) or below(folder, given)
    return f" (there is {found})" if found else ""


def read_once(found: Mapping[str, FileTask | str | np.ndarray | None]) -> dict[str, Any]:
    """A row's values; frames and sound of the same file become one task, which gives what there is of both."""
    joined = dict(found)
    tasks = {name: task for name, task in found.items() if isinstance(task, FileTask)}
    videos = {task.path: name for name, task in tasks.items() if isinstance(task.convert, ToFrames)}
    for name, task in tasks.items():
        if isinstance(task.convert, ToSound) and (video := videos.pop(task.path, None)):
            frames, sound = joined.pop(video).convert, joined.pop(name).convert
            both = ToFramesAndSound(**vars(frames) | {"sample_rate": sound.sample_rate, "names": (video, name)})
            joined[f"{video} and {name}"] = FileTask(both, task.path)
    return joined


def text_of(row: Row, column: str) -> str:
    """A field as a string. Raises UserError if it is empty or not one value."""
    value = row.values.get(column)
    if value is None or isinstance(value, list | dict | bytes):
        found = "empty" if value is None else f"a {type(value).__name__}"
        raise UserError(f"{row.where}: column {column!r} is {found}: give one value")
    return str(value)


# --- the command line -------------------------------------------------------------------------------------------------


_ARGUMENTS = {  # kind -> metavar and help, of all preparations that take columns
    "image": ("[NAME=]COLUMN", "image files"),
    "audio": ("[NAME=]COLUMN", "sound"),
    "text": ("[NAME=]COLUMN", "texts"),
    "tabular": ("[NAME=]COLUMN,...", "numbers, or lists of numbers"),
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
    """What --image and its likes are given: COLUMN or NAME=COLUMN; for "tabular" columns with commas between them."""
    match = _ARGUMENT.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError("name a column")
    columns = tuple(match["columns"].split(",")) if kind == "tabular" else (match["columns"],)
    return Column(kind, match["name"] or kind, columns)


def check_names(modalities: Sequence[Column] | None) -> None:
    """Raises UserError unless there are modalities, and their names are different and possible."""
    if not modalities:
        raise UserError(f"no modality: name a column with one of --{', --'.join(_ARGUMENTS)}")
    for name, times in Counter(modality.name for modality in modalities).items():
        if times > 1:
            raise UserError(f"--{name}: {times} modalities of this name: name them, as in --{name}=NAME=COLUMN")
        if name in RESERVED or len(name) > LONGEST_NAME:
            raise UserError(f"{name}=COLUMN: a modality cannot be called {name!r}: choose another name")
    for modality in modalities:
        for column, times in Counter(modality.columns).items():
            if times > 1:
                raise UserError(f"--{modality.kind}: column {column!r} stands {times} times: name it once")
