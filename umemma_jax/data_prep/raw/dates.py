"""Dates and times as people write them in tables, and as the numbers that a model takes."""

import calendar
import datetime
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from umemma_jax.data_prep.build.rows import MISSING_MARKS, is_missing

PARTS = ("year", "season.sin", "season.cos", "weekday.sin", "weekday.cos", "hour.sin", "hour.cos")
_YEAR_FIRST = re.compile(r"(\d{4})([/.])(\d{1,2})\2(\d{1,2})(?P<time>[T ].+)?")
_DAY_MONTH = re.compile(r"(?P<day>\d{1,2})[ -](?P<month>[a-z]+)\.?,?[ -](?P<year>\d{4})(?P<time> .+)?", re.IGNORECASE)
_MONTH_DAY = re.compile(r"(?P<month>[a-z]+)\.? (?P<day>\d{1,2}),? (?P<year>\d{4})(?P<time> .+)?", re.IGNORECASE)
_DAY_OR_MONTH_FIRST = re.compile(r"\d{1,2}([/.-])\d{1,2}\1\d{2,4}.*")
_MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]


def as_date(field: Any, marks: Sequence[str] = MISSING_MARKS) -> datetime.datetime | None:
    """The date and time that a field of a table holds, at midnight if it says no time; None where it is missing.

    - Python's dates and times, pandas' and NumPy's are themselves.
    - ISO 8601 with signs between: `2024-03-01`, `2024-03-01T12:30:05Z`, `2024-03-01 12:30`. Digits alone, as in
      `20240301`, are a number and no date.
    - Year first with slashes or points: `2024/3/1`, `2024.03.01`.
    - English months: `1 March 2024`, `1-Mar-2024`, `Mar 1, 2024`.
    - Any of these may be followed by a time, which ISO 8601 allows: `2024/3/1 12:30`.
    - What has a time zone becomes UTC; what has none stays as it is.
    - `03/01/2024` is no date: in one country the month stands first, in another the day.

    >>> as_date("1 March 2024")
    datetime.datetime(2024, 3, 1, 0, 0)

    Args:
      field: of a row.
      marks: what stands for a missing value, beside nothing at all, in upper or lower case.

    Raises:
      ValueError: it is no date; the message is what is wrong with it, a predicate.
    """
    if is_missing(field, marks):
        return None
    moment = _of_text(field.strip()) if isinstance(field, str) else _of_value(field)
    if moment is None or moment.tzinfo is None:
        return moment
    try:
        return moment.astimezone(datetime.UTC).replace(tzinfo=None)
    except OverflowError as error:
        raise ValueError("is beyond the years 1 to 9999") from error


def date_parts(moment: datetime.datetime) -> np.ndarray:
    """A date as the numbers that `PARTS` names, float32 [7].

    They are the year with the part of it that has passed, and the sine and cosine of the part that has passed of the
    year, of the week from Monday on, and of the day.
    """
    year = datetime.datetime(moment.year, 1, 1)
    days = 365 + calendar.isleap(moment.year)
    of_year = (moment - year) / datetime.timedelta(days=days)
    of_day = (moment - moment.replace(hour=0, minute=0, second=0, microsecond=0)) / datetime.timedelta(days=1)
    turns = [2 * math.pi * part for part in (of_year, moment.weekday() / 7, of_day)]
    circles = [wave(turn) for turn in turns for wave in (math.sin, math.cos)]
    return np.array([moment.year + of_year, *circles], np.float32)


def _of_value(value: Any) -> datetime.datetime | None:
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()
    if value is None or (isinstance(value, datetime.datetime) and value != value):  # NaT, of NumPy and of pandas
        return None
    if isinstance(value, datetime.datetime):
        return value
    if isinstance(value, datetime.date):
        return datetime.datetime(value.year, value.month, value.day)
    raise ValueError("is no date")


def _of_text(text: str) -> datetime.datetime:
    if found := _YEAR_FIRST.fullmatch(text):
        return _moment(found[1], int(found[3]), found[4], found["time"])
    if (found := _DAY_MONTH.fullmatch(text) or _MONTH_DAY.fullmatch(text)) and (month := _month(found["month"])):
        return _moment(found["year"], month, found["day"], found["time"])
    if _DAY_OR_MONTH_FIRST.fullmatch(text):
        raise ValueError("may begin with the day or the month, where the year is needed (2024-03-01)")
    if text.isdecimal():
        raise ValueError("is a number and no date")
    return _iso(text)


def _moment(year: str, month: int, day: str, time: str | None) -> datetime.datetime:
    clock = f"T{time[1:].strip()}" if time else ""
    return _iso(f"{year}-{month:02}-{int(day):02}{clock}")


def _iso(text: str) -> datetime.datetime:
    try:
        return datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError("is no date") from error


def _month(name: str) -> int | None:
    """Of its English name, or of three letters or more of it."""
    starts = [number for number, month in enumerate(_MONTHS, start=1) if month.startswith(name.casefold())]
    return starts[0] if len(starts) == 1 and len(name) >= 3 else None
