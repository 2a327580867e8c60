"""What the columns of a table hold, by rules that are said.

The first rule that fits a column decides:

1. No value: left out.
2. Of `MOST` of the fields, pictures, videos or sound: what they are, whether in memory or named by path. Addresses on
   the network are left out: nothing is downloaded.
3. Lists of numbers: one vector, a modality of its own. Other lists and objects are left out.
4. The same value in every row: left out. (The same or none is a category: whether there is one can tell.)
5. True and false: a category.
6. Dates (`raw.dates`), if `MOST` of the fields are; the others, if they are no more than `STRAYS` different
   ones, count as missing in this column, and are named. What could be read if it were written otherwise is left out.
7. Identifiers are left out: whole numbers that count up by one from row to row, or whose column is called ID or the
   like. Of such a name, numbers most of which come more than once are a category.
8. Numbers (`raw.numbers`), as dates.
9. Texts are a category if most rows have one that others have too, and they are short, `SHORT` words or less on
   average; longer ones if nearly all rows share theirs and there are no more than `LEVELS` of them.
   What has a digit in it and no space, as codes have, is left out as an identifier.
10. Texts.
"""

import argparse
import datetime
import functools
import itertools
import math
import numbers
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from umemma_jax.data_prep.build import console
from umemma_jax.data_prep.build.rows import MISSING_MARKS, Table, check_columns, is_missing, short
from umemma_jax.data_prep.raw import media
from umemma_jax.data_prep.raw.dates import as_date
from umemma_jax.data_prep.raw.numbers import as_number
from umemma_jax.errors import UserError

# type -> kind of the modality (a key of columns.KINDS)
KIND_OF = {
    "number": "tabular",
    "category": "tabular",
    "date": "tabular",
    "numbers": "tabular",
    "text": "text",
    "image": "image",
    "audio": "audio",
    "video": "video",
}
JOINED = ("number", "category", "date")  # types of which several columns make one modality

MOST = 0.95  # share of the fields that makes a rule fit
NEARLY_ALL = 0.9  # share of the rows with a value that others have too, of texts of many words
STRAYS = 20  # different fields that are no numbers, in a column of numbers
SHORT = 3  # words
LEVELS = 100  # of a category whose names are long
SAMPLE, FEW = 1_000, 20  # fields that are looked at where that takes long
_ID = re.compile(r"(.*[\W_])?(id|uuid|guid)|index|idx|key|row|unnamed: \d+|.*[a-z](?-i:I[Dd])", re.IGNORECASE)
_BOOLEANS = {"false", "true"}
_CODE = re.compile(r"\S*\d\S*")
_INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)


@dataclass(frozen=True)
class ColumnType:
    """What a column is taken for.

    Attributes:
      name: of the column.
      type: a key of `KIND_OF`; None if it is left out.
      reason: in words.
      filled: share of the rows that have a value.
      strays: of numbers and dates, further fields that count as missing.
    """

    name: str
    type: str | None
    reason: str
    filled: float
    strays: tuple[str, ...] = ()


def _spread(values: Sequence[Any], most: int) -> list[Any]:
    return list(values[:: -(-len(values) // most)])


class _Fields:
    """The values of a column, and what the rules ask of them."""

    def __init__(self, name: str, values: Sequence[Any], rows: int, folder: Path, missing: Sequence[str]) -> None:
        self.name = name
        self.rows = rows
        self.folder = folder
        self.missing = missing
        self.values = [value for value in values if not is_missing(value, missing)]
        self._read: dict[str, _Read] = {}

    @functools.cached_property
    def sample(self) -> list[Any]:
        """Values from all of the table, `SAMPLE` at most."""
        return _spread(self.values, SAMPLE)

    @functools.cached_property
    def few(self) -> list[Any]:
        """Values from all of the table, `FEW` at most: a rule that fits hardly any of them is not tried on more."""
        return _spread(self.values, FEW)

    @functools.cached_property
    def times(self) -> Counter[str]:
        """How often each value is there."""
        return Counter(map(str, self.values))

    @property
    def shared(self) -> float:
        """Share of the values that are there more than once."""
        return sum(times for times in self.times.values() if times > 1) / len(self.values)

    @functools.cached_property
    def words(self) -> float:
        """Of a value, on average."""
        return float(np.mean([len(str(value).split()) for value in self.sample]))

    def read(self, type: str) -> "_Read":
        """All values as "number" or "date"."""
        if type not in self._read:
            self._read[type] = _read_all(_READ[type], self.values)
        return self._read[type]

    def share(self, holds: Callable[[Any], bool]) -> float:
        """Of the sample's values."""
        return sum(map(holds, self.sample)) / len(self.sample)

    @property
    def example(self) -> str:
        """The most frequent value, as messages show it."""
        return short(self.times.most_common(1)[0][0])

    @property
    def different(self) -> str:
        """How many different values there are, in words."""
        return f"{len(self.times):,} different values in {len(self.values):,} rows"


Verdict = tuple[str | None, str]  # type and reason


def _empty(fields: _Fields) -> Verdict | None:
    return None if fields.values else (None, "no row has a value")


def _media(fields: _Fields) -> Verdict | None:
    if not any(media.is_url(value) or media.kind_of(value, fields.folder) for value in fields.few):
        return None
    if fields.share(media.is_url) >= MOST:
        return None, f"URLs, as {short(fields.sample[0])}: nothing is downloaded; name files instead"
    kinds = Counter(media.kind_of(value, fields.folder) for value in fields.sample)
    kind, times = kinds.most_common(1)[0]
    if kind is None or times < MOST * len(fields.sample):
        return None
    shown = fields.sample[0]
    return kind, f"{kind} files, as {short(shown)}" if isinstance(shown, str) else f"{kind} in memory"


def _lists(fields: _Fields) -> Verdict | None:
    if fields.share(_is_single) >= MOST:
        return None
    lengths = {len(value) if _are_numbers(value) else None for value in fields.sample}
    if len(lengths) == 1 and lengths != {None}:
        return "numbers", f"lists of {lengths.pop()} numbers"
    return None, f"{type(fields.sample[0]).__name__}, neither a single value nor a list of so many numbers in each row"


def _is_single(value: Any) -> bool:
    return isinstance(value, str | numbers.Number | datetime.date | datetime.time)


def _are_numbers(value: Any) -> bool:
    is_list = isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim == 1)
    return is_list and all(_fault(as_number, item) is None for item in value)


def _constant(fields: _Fields) -> Verdict | None:
    if len(fields.times) > 1:
        return None
    if len(fields.values) == fields.rows:
        return None, f"always {fields.example}"
    return "category", f"{fields.example} or nothing"


def _dates(fields: _Fields) -> Verdict | None:
    return _read_as("date", "dates from {0:%Y-%m-%d} to {1:%Y-%m-%d}", fields)


def _numbers(fields: _Fields) -> Verdict | None:
    return _read_as("number", "numbers from {0:g} to {1:g}", fields)


def _read_as(type: str, reason: str, fields: _Fields) -> Verdict | None:
    """The type if most of the fields can be read; left out if they could be, were they written otherwise."""
    read = _READ[type]
    if all(_fault(read, value) in _WITHOUT_REMEDY for value in fields.few):
        return None
    faults = Counter(_fault(read, value) for value in fields.sample)
    right = faults.pop(None, 0)
    for fault in _WITHOUT_REMEDY:
        faults.pop(fault, None)
    if right + faults.total() < MOST * len(fields.sample):
        return None
    if right < MOST * len(fields.sample):
        fault, _ = faults.most_common(1)[0]
        example = next(value for value in fields.sample if _fault(read, value) == fault)
        return None, f"{short(example)} {fault}"
    found, strays = fields.read(type)
    return (type, reason.format(min(found), max(found))) if len(strays) <= STRAYS else None


def _fault(read: Callable[[Any], Any], value: Any) -> str | None:
    """What is wrong with a value, a predicate; None if it can be read."""
    try:
        read(value)
    except ValueError as error:
        return str(error)
    return None


def _number(field: Any) -> float | None:
    """A number; also an infinite one, which is none in a dataset, but makes no column one of categories."""
    return math.inf if _INFINITE.fullmatch(str(field)) else as_number(field)


_READ: dict[str, Callable[[Any], Any]] = {"number": _number, "date": as_date}


class _Read(NamedTuple):
    """Of all values, what those are that can be read, and the different texts that are something else altogether."""

    found: list[Any]
    strays: tuple[str, ...]


def _read_all(read: Callable[[Any], Any], values: Sequence[Any]) -> _Read:
    found, strays = [], set()
    for value in values:
        try:
            found.append(read(value))
        except ValueError as error:
            if isinstance(value, str) and str(error) in _WITHOUT_REMEDY:
                strays.add(value)
    return _Read(found, tuple(sorted(strays)))


# What is said of values that are something else altogether.
_WITHOUT_REMEDY = {_fault(as_number, "x"), _fault(as_date, "x"), _fault(as_date, "1"), _fault(as_date, 1)}


def _booleans(fields: _Fields) -> Verdict | None:
    found = {value.casefold() for value in fields.times} if len(fields.times) <= len(_BOOLEANS) else set()
    return ("category", " or ".join(sorted(fields.times))) if found == _BOOLEANS else None


def _identifiers(fields: _Fields) -> Verdict | None:
    """Whole numbers that name things."""
    if None in map(_whole, fields.few) or None in (found := [_whole(value) for value in fields.values]):
        return None
    if len(set(found)) == len(found) and {later - sooner for sooner, later in itertools.pairwise(found)} == {1}:
        return None, f"an identifier: counts up from {found[0]}"
    if not _ID.fullmatch(fields.name):
        return None
    if fields.shared < 1 / 2:
        return None, f"an identifier by its name: {fields.different}"
    return "category", f"an identifier by its name, but most come more than once: {fields.different}"


def _whole(value: Any) -> int | None:
    try:
        return int(value) if not isinstance(value, float) or value.is_integer() else None
    except (ValueError, TypeError, OverflowError):
        return None


def _texts(fields: _Fields) -> Verdict:
    often = 1 / 2 if fields.words <= SHORT else NEARLY_ALL
    if fields.shared >= often and (fields.words <= SHORT or len(fields.times) <= LEVELS):
        return "category", f"{fields.different}, as {fields.example}"
    if fields.share(lambda value: _CODE.fullmatch(str(value)) is not None) >= MOST:
        return None, f"an identifier: {fields.different}, as {fields.example}"
    return "text", f"{fields.different}, of {fields.words:.1f} words on average"


_RULES = (_empty, _media, _lists, _constant, _booleans, _dates, _identifiers, _numbers, _texts)


def infer(
    table: Table,
    used: Mapping[str, str],
    columns: Mapping[str, str | None] | None = None,
    missing: Sequence[str] = MISSING_MARKS,
) -> list[ColumnType]:
    """What each column of a table is taken for, by the rules above.

    Args:
      table: with all its columns.
      used: columns that are no inputs -> what they are instead, as in {"category": "label"}.
      columns: of some, the type that the user says: a key of `KIND_OF`, or None to leave it out.
      missing: what stands for a missing value, beside nothing at all.

    Returns:
      One for each column, in the table's order.

    Raises:
      UserError: a column does not exist, a type is none, or a column of `used` is to be an input as well.
    """
    given = dict(columns or {})
    check_columns(table.path, [*used, *given], table.columns)
    for name, type in given.items():
        if type is not None and type not in KIND_OF:
            raise UserError(f"column {name!r}: no type {type!r}: {', '.join(KIND_OF)}, or None to leave it out")
        if type is not None and name in used:
            raise UserError(f"column {name!r} is the {used[name]}: it cannot be an input as well")
    return [_column_type(table, name, used, given, missing) for name in table.columns]


def _column_type(
    table: Table, name: str, used: Mapping[str, str], given: Mapping[str, str | None], missing: Sequence[str]
) -> ColumnType:
    values = [row.values[name] for row in table.rows if name in row.values]
    fields = _Fields(name, values, len(table.rows), table.path.parent, missing)
    filled = len(fields.values) / len(table.rows)
    if name in used:
        return ColumnType(name, None, f"is the {used[name]}", filled)
    if name in given:
        type, reason = given[name], "as you say"
    else:
        type, reason = next(verdict for rule in _RULES if (verdict := rule(fields)))
    strays = fields.read(type).strays if type in _READ else ()
    if strays:
        reason += f"; {', '.join(map(repr, strays))} count as missing"
    return ColumnType(name, type, reason, filled, strays)


# --- the command line -------------------------------------------------------------------------------------------------


def add_type_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --type, which goes into a list `types` of pairs, and --leave-out."""
    parser.add_argument(
        "--type",
        dest="types",
        action="append",
        default=[],
        type=_typed,
        metavar="COLUMN=TYPE",
        help=f"of a column, where no modality is named: {', '.join(KIND_OF)} (default: inferred)",
    )
    parser.add_argument(
        "--leave-out", type=console.names, default=(), metavar="A,B,...", help="columns, where no modality is named"
    )


def _typed(text: str) -> tuple[str, str]:
    column, sign, type = text.rpartition("=")
    if not sign or type not in KIND_OF:
        raise argparse.ArgumentTypeError(f"{text!r} is not COLUMN=TYPE with one of {', '.join(KIND_OF)}")
    return column, type
