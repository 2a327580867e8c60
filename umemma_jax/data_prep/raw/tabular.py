"""Columns of a table that become one vector of numbers: numbers, categories and dates, any of which may be missing."""

import datetime
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from umemma_jax.data.dataset import Modality
from umemma_jax.data.kinds import UNSEEN
from umemma_jax.data_prep.build.prep_report import Report
from umemma_jax.data_prep.build.rows import MISSING_MARKS, Row, is_missing, short
from umemma_jax.data_prep.raw.dates import PARTS, as_date, date_parts
from umemma_jax.data_prep.raw.numbers import as_number
from umemma_jax.errors import UserError

MOST_LEVELS = 10_000  # of a category; rarer ones are as if they were never seen
LONGEST_LEVEL = 200  # characters
QUANTILES = np.linspace(0, 1, 33)  # that the dataset states of each number


def as_level(field: Any, marks: Sequence[str] = MISSING_MARKS) -> str | None:
    """The category that a field of a table holds; None where it is missing.

    A whole number is written as such, although pandas makes 2.0 of 2 in a column with holes; true and false are
    written small, although pandas writes them large into files.

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
    return level.casefold() if level.casefold() in ("true", "false") else level


class Type(Protocol):
    """How the values of one column become numbers.

    Attributes:
      names: of the numbers.
      levels: of a category, as in `Modality.levels`; None of other types.
    """

    names: tuple[str, ...]
    levels: Mapping[str, int] | None

    def __init__(self, column: str, levels: Mapping[str, int] | None) -> None:
        """Takes the column's name, and of a category the levels of the training."""

    @staticmethod
    def parse(field: Any, marks: Sequence[str]) -> Any:
        """The value of a field; None where it is missing. Raises ValueError with a predicate if it is none."""

    def numbers(self, value: Any) -> Sequence[float]:
        """One for each name."""


class _Number:
    levels = None
    parse = staticmethod(as_number)

    def __init__(self, column: str, levels: None) -> None:
        self.names = (column,)

    def numbers(self, value: float) -> Sequence[float]:
        return (value,)


class _Category:
    """The place of a level among those of the training, or `UNSEEN`."""

    parse = staticmethod(as_level)

    def __init__(self, column: str, levels: Mapping[str, int]) -> None:
        self.names = (column,)
        self.levels = levels
        self._places = {level: place for place, level in enumerate(levels)}

    def numbers(self, value: str) -> Sequence[float]:
        return (self._places.get(value, UNSEEN),)


class _Date:
    levels = None
    parse = staticmethod(as_date)

    def __init__(self, column: str, levels: None) -> None:
        self.names = tuple(f"{column}.{part}" for part in PARTS)

    def numbers(self, value: datetime.datetime) -> Sequence[float]:
        return date_parts(value)


TYPES: dict[str, type[Type]] = {"number": _Number, "category": _Category, "date": _Date}


class _Fields:
    """What the fields of rows hold: of each column, or of each place of the lists in one column.

    Attributes:
      kinds: column, or place as `column[3]` -> its type.
    """

    def __init__(
        self,
        columns: Sequence[str],
        types: Mapping[str, str],
        size: int | None,
        marks: Sequence[str],
        strays: Mapping[str, Sequence[str]],
    ) -> None:
        """Takes also the number of numbers in each list, None where the columns hold single values."""
        self._list_column = None if size is None else columns[0]
        names = columns if size is None else [f"{columns[0]}[{place}]" for place in range(size)]
        self.kinds = {name: types.get(name, "number") for name in names}
        self._marks = marks
        self._marks_of = {name: (*marks, *strays.get(name, ())) for name in names}

    def values(self, row: Row) -> dict[str, Any]:
        """Each one's value, None where it is missing. Raises UserError if one is not of its type."""
        return {name: self._parsed(row, name, field) for name, field in self._fields(row).items()}

    def _fields(self, row: Row) -> dict[str, Any]:
        if self._list_column is None:
            return {column: row.values.get(column) for column in self.kinds}
        given = row.values.get(self._list_column)
        fields = given if isinstance(given, list) else [given]
        if all(is_missing(field, self._marks) for field in fields):
            return dict.fromkeys(self.kinds)
        if len(fields) != len(self.kinds):
            raise UserError(
                f"{row.where}: {len(fields)} numbers instead of {len(self.kinds)}: correct it or leave it empty"
            )
        return dict(zip(self.kinds, fields, strict=True))

    def _parsed(self, row: Row, name: str, field: Any) -> Any:
        try:
            return TYPES[self.kinds[name]].parse(field, self._marks_of[name])
        except ValueError as error:
            raise UserError(
                f"{row.where}: {short(field)} in column {name!r} {error}: correct it or leave it empty"
            ) from error


class Tabular:
    """Columns of a table, or the numbers of lists in one column, as vectors. What is missing is NaN.

    A row lacks the modality where all of it is missing.

    Attributes:
      modality: what the dataset says of the vectors.
    """

    def __init__(
        self,
        columns: Sequence[str],
        types: Mapping[str, str],
        modality: Modality,
        marks: Sequence[str],
        strays: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ) -> None:
        """Takes what `learned` has made of the rows of the training, and its other arguments."""
        self.modality = modality
        size = None if modality.columns else modality.shape[0]
        self._fields = _Fields(columns, types, size, marks, strays)
        levels = modality.levels or {}
        self._types = {name: TYPES[kind](name, levels.get(name)) for name, kind in self._fields.kinds.items()}

    def take(self, row: Row, report: Report) -> np.ndarray | None:
        """float32 [D] of a row, or None. Raises UserError if a value is not of its column's type."""
        values = self._fields.values(row)
        if all(value is None for value in values.values()):
            return None
        parts = []
        for column, value in values.items():
            kind, numbers = self._fields.kinds[column], self._types[column]
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


def learned(
    columns: Sequence[str],
    types: Mapping[str, str],
    rows: Sequence[Row],
    marks: Sequence[str],
    strays: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Modality:
    """What the dataset says of the vectors: with the levels of categories, most frequent first, and quantiles.

    Args:
      columns: of the table.
      types: of columns, keys of `TYPES`; the others are numbers.
      rows: those of the training.
      marks: what stands for a missing value, beside nothing at all.
      strays: of columns, what else does.

    Raises:
      UserError: no row has any value, or one is not of its column's type.
    """
    lists = (field for row in rows if isinstance(field := row.values.get(columns[0]), list) and field)
    first = next(lists, None) if len(columns) == 1 else None
    fields = _Fields(columns, types, None if first is None else len(first), marks, strays)
    known = {name: [] for name in fields.kinds}
    for row in rows:
        for name, value in fields.values(row).items():
            if value is not None:
                known[name].append(value)
    if not any(known.values()):
        raise UserError(f"--tabular: no row has a number in {', '.join(columns)}: leave it out")
    if first is not None:  # their numbers have no names of their own, and one scale
        return Modality(kind="tabular", encoding="float32", shape=(len(first),))
    levels = {name: _levels(known[name]) for name, kind in fields.kinds.items() if kind == "category"}
    made = {name: TYPES[kind](name, levels.get(name)) for name, kind in fields.kinds.items()}
    names = [name for numbers in made.values() for name in numbers.names]
    quantiles = [part for column, numbers in made.items() for part in _quantiles(numbers, known[column])]
    return Modality(
        kind="tabular",
        encoding="float32",
        shape=(len(names),),
        columns=tuple(names),
        levels=levels or None,
        quantiles=tuple(quantiles),
    )


def _levels(values: Sequence[str]) -> dict[str, int]:
    by_frequency = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))
    return dict(by_frequency[:MOST_LEVELS])


def _quantiles(numbers: Type, values: Sequence[Any]) -> list[tuple[float, ...]]:
    """Of each number of a column; none of a category, or where there is no value."""
    if numbers.levels is not None or not values:
        return [()] * len(numbers.names)
    columns = np.array([numbers.numbers(value) for value in values], np.float32)
    return [tuple(quantiles.tolist()) for quantiles in np.quantile(columns, QUANTILES, axis=0).T]
