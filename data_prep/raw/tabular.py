"""Columns of a table that become one vector of numbers: numbers, categories and dates, any of which may be missing."""

import datetime
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from data_prep.build.prep_report import Report
from data_prep.build.rows import MISSING_MARKS, Row, is_missing, short
from data_prep.raw.dates import PARTS, as_date, date_parts
from data_prep.raw.numbers import as_number
from umemma_jax.data.dataset import Modality
from umemma_jax.data.kinds import UNSEEN
from umemma_jax.errors import UserError

MOST_LEVELS = 10_000  # of a category; rarer ones are as if they were never seen
LONGEST_LEVEL = 200  # characters
QUANTILES = np.linspace(0, 1, 33)  # that the dataset states of each number


def as_level(field: Any, marks: Sequence[str] = MISSING_MARKS) -> str | None:
    """The category that a field of a table holds; None where it is missing.

    A whole number is written as such, although pandas makes 2.0 of 2 in a column with holes.

    Args:
      field: of a row.
      marks: what stands for a missing value, beside nothing at all, in upper or lower case.

    Raises:
      ValueError: it is no single value, or too long; the message is what is wrong with it, a predicate.
    """
    if is_missing(field, marks):
        return None
    if isinstance(field, list | dict | tuple):
        raise ValueError("is no category but several values")
    whole = isinstance(field, float | Decimal) and math.isfinite(field) and field == int(field)
    level = str(int(field) if whole else field).strip()
    if len(level) > LONGEST_LEVEL:
        raise ValueError(f"is no category: it is longer than {LONGEST_LEVEL} characters")
    return level


class Type(Protocol):
    """How the values of one column become numbers.

    Attributes:
      names: of the numbers.
      levels: of a category, as in `Modality.levels`; None of other types.
    """

    names: tuple[str, ...]
    levels: dict[str, int] | None

    def __init__(self, column: str, values: Sequence[Any]) -> None:
        """Takes the column's name, and its values in the rows of the training, as `parse` gives them."""

    @staticmethod
    def parse(field: Any, marks: Sequence[str]) -> Any:
        """The value of a field; None where it is missing. Raises ValueError with a predicate if it is none."""

    def numbers(self, value: Any) -> Sequence[float]:
        """One for each name."""


class _Number:
    levels = None
    parse = staticmethod(as_number)

    def __init__(self, column: str, values: Sequence[float]) -> None:
        self.names = (column,)

    def numbers(self, value: float) -> Sequence[float]:
        return (value,)


class _Category:
    """The place of a level among those of the training, most frequent first, or `UNSEEN`."""

    parse = staticmethod(as_level)

    def __init__(self, column: str, values: Sequence[str]) -> None:
        self.names = (column,)
        by_frequency = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))
        self.levels = dict(by_frequency[:MOST_LEVELS])
        self._places = {level: place for place, level in enumerate(self.levels)}

    def numbers(self, value: str) -> Sequence[float]:
        return (self._places.get(value, UNSEEN),)


class _Date:
    levels = None
    parse = staticmethod(as_date)

    def __init__(self, column: str, values: Sequence[datetime.datetime]) -> None:
        self.names = tuple(f"{column}.{part}" for part in PARTS)

    def numbers(self, value: datetime.datetime) -> Sequence[float]:
        return date_parts(value)


TYPES: dict[str, type[Type]] = {"number": _Number, "category": _Category, "date": _Date}


class Tabular:
    """Columns of a table, or the numbers of lists in one column, as vectors. What is missing is NaN.

    A row lacks the modality where all of it is missing.
    """

    def __init__(
        self,
        columns: Sequence[str],
        types: Mapping[str, str],
        rows: Sequence[Row],
        marks: Sequence[str],
        strays: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ) -> None:
        """Learns the levels of categories and the quantiles of numbers.

        Args:
          columns: of the table.
          types: of columns, keys of `TYPES`; the others are numbers.
          rows: those of the training.
          marks: what stands for a missing value, beside nothing at all.
          strays: of columns, what else does.

        Raises:
          UserError: no row has any value, or one is not of its column's type.
        """
        self._list_column, self._marks = columns[0], marks
        lists = (field for row in rows if isinstance(field := row.values.get(columns[0]), list) and field)
        first = next(lists, None) if len(columns) == 1 else None
        self._in_lists = first is not None
        if self._in_lists:
            columns = [f"{columns[0]}[{place}]" for place in range(len(first))]
        self._kinds = {column: types.get(column, "number") for column in columns}
        self._marks_of = {column: (*marks, *strays.get(column, ())) for column in columns}
        known = {column: [] for column in columns}
        for row in rows:
            for column, value in self._values(row).items():
                if value is not None:
                    known[column].append(value)
        if not any(known.values()):
            raise UserError(f"--tabular: no row has a number in {', '.join(columns)}: leave it out")
        self._types = {column: TYPES[kind](column, known[column]) for column, kind in self._kinds.items()}
        self.modality = self._modality(known)

    def take(self, row: Row, report: Report) -> np.ndarray | None:
        """float32 [D] of a row, or None. Raises UserError if a value is not of its column's type."""
        values = self._values(row)
        if all(value is None for value in values.values()):
            return None
        parts = []
        for column, value in values.items():
            kind, numbers = self._kinds[column], self._types[column]
            if value is None:
                report.add(f"missing {kind} in column {column!r} (kept as missing)", row.where)
                parts.append([math.nan] * len(numbers.names))
                continue
            parts.append(numbers.numbers(value))
            if numbers.levels is not None and value not in numbers.levels:
                report.add(
                    f"{kind} in column {column!r} that training does not have (kept as such)",
                    f"{row.where}: {short(value)}",
                )
        return np.concatenate(parts, dtype=np.float32)

    def _values(self, row: Row) -> dict[str, Any]:
        """Each column's value, None where it is missing."""
        return {column: self._parsed(row, column, field) for column, field in self._fields(row).items()}

    def _fields(self, row: Row) -> dict[str, Any]:
        if not self._in_lists:
            return {column: row.values.get(column) for column in self._kinds}
        given = row.values.get(self._list_column)
        fields = given if isinstance(given, list) else [given]
        if all(is_missing(field, self._marks) for field in fields):
            return dict.fromkeys(self._kinds)
        if len(fields) != len(self._kinds):
            raise UserError(
                f"{row.where}: {len(fields)} numbers instead of {len(self._kinds)}: correct it or leave it empty"
            )
        return dict(zip(self._kinds, fields, strict=True))

    def _parsed(self, row: Row, column: str, field: Any) -> Any:
        try:
            return TYPES[self._kinds[column]].parse(field, self._marks_of[column])
        except ValueError as error:
            raise UserError(
                f"{row.where}: {short(field)} in column {column!r} {error}: correct it or leave it empty"
            ) from error

    def _modality(self, known: Mapping[str, Sequence[Any]]) -> Modality:
        """What the dataset says of the vectors, given the known values of each column."""
        names = [name for numbers in self._types.values() for name in numbers.names]
        if self._in_lists:  # their numbers have no names of their own, and one scale
            return Modality(kind="tabular", encoding="float32", shape=(len(names),))
        levels = {name: numbers.levels for name, numbers in self._types.items() if numbers.levels is not None}
        quantiles = [part for name, numbers in self._types.items() for part in _quantiles(numbers, known[name])]
        return Modality(
            kind="tabular",
            encoding="float32",
            shape=(len(names),),
            columns=tuple(names),
            levels=levels or None,
            quantiles=tuple(quantiles),
        )


def _quantiles(numbers: Type, values: Sequence[Any]) -> list[tuple[float, ...]]:
    """Of each number of a column; none of a category, or where there is no value."""
    if numbers.levels is not None or not values:
        return [()] * len(numbers.names)
    columns = np.array([numbers.numbers(value) for value in values], np.float32)
    return [tuple(quantiles.tolist()) for quantiles in np.quantile(columns, QUANTILES, axis=0).T]
