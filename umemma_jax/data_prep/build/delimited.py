"""CSV and TSV: lines of text to records of fields, none of which has swallowed the lines behind it.

A quotation mark that is never closed makes one field of all that follows, up to the next quotation mark: rows are lost,
and what is left of the first and the last of them comes together as one. So a record of several lines must keep the
rules of quoting, and its lines must not read like records of their own.
"""

import codecs
import contextlib
import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from umemma_jax.errors import UserError

LONGEST_FIELD = 1 << 24  # characters
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}  # the first counts
_FORMS = 0.1  # a column whose values have fewer different forms, as a share of the rows, is not free text

_ROWS_LOOKED_AT = 5_000
_BETWEEN_LETTERS = re.compile(r'"(?<=[^\s,;"]")[^\s,;"]')
_LOOKED_AT = 200  # characters of a value


class Record(NamedTuple):
    """One record.

    Attributes:
      fields: as written, without the quotation marks.
      where: file and first line, for errors.
      lines: those that it was read from.
    """

    fields: list[str]
    where: str
    lines: tuple[str, ...]


def open_text(path: Path) -> IO[str]:
    """Opens UTF-8, or UTF-16 or UTF-32 that says so in its first bytes, with the line ends as they are."""
    with path.open("rb") as file:
        start = file.read(4)
    encoding = next((name for mark, name in _MARKS.items() if start.startswith(mark)), "utf-8-sig")
    return path.open(encoding=encoding, newline="")


def not_decodable(path: Path, error: UnicodeDecodeError) -> UserError:
    """What is said of a file that `open_text` cannot decode: where, and what to do."""
    with path.open("rb") as file:
        number = next((number for number, line in enumerate(file, start=1) if not _is_utf8(line)), 1)
    return UserError(f"{path}, line {number}: not {error.encoding.upper()} ({error.reason}): convert it to UTF-8")


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def read_records(path: Path, delimiter: str, header: bool) -> list[Record]:
    """Reads all records, without empty lines.

    Args:
      path: the file.
      delimiter: between fields.
      header: whether the first record is none of the data.

    Raises:
      UserError: a field is too long or holds a NUL, or a quotation mark is not closed where it should be.
      OSError: the file cannot be read.
      UnicodeDecodeError: it is no text.
    """
    with _long_fields():
        records = [record for record in _records(path, delimiter) if record.fields]
        _check_closed(records, delimiter, header)
    return records


@contextlib.contextmanager
def _long_fields() -> Iterator[None]:
    """Sets the limit of the csv module, which is one for all that use it, until the end."""
    limit = csv.field_size_limit(LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _check_closed(records: Sequence[Record], delimiter: str, header: bool) -> None:
    """Raises UserError where a quotation mark is never closed, or too late."""
    if records and _is_open(records[-1], delimiter):
        raise _unclosed(records[-1])
    long = [record for record in records if len(record.lines) > 1]
    for record in records:
        if _torn(record):
            raise _unclosed(record)
    for record in long:
        if not _quoted_well(record, delimiter):
            raise _unclosed(record)
    # Where texts of several lines are usual, some lines read like records by chance. A mark that is not closed, on the
    # other hand, would end at the opening mark of the next such text, which keeps no rule of quoting.
    parts = [(record, rows) for record in long if (rows := _divided(record, delimiter))]
    columns = [_Column(values) for values in _columns(records[header:])] if parts else []
    swallowed = [record for record, rows in parts if _like_rows(rows, columns)]
    if swallowed and 2 * len(swallowed) >= len(long):
        raise _unclosed(swallowed[0])


def _columns(records: Sequence[Record]) -> Iterator[tuple[str, ...]]:
    """The values of each column, of as many records as tell what they look like."""
    some = records[:: max(1, len(records) // _ROWS_LOOKED_AT)]
    return zip(*(record.fields for record in some), strict=False)


def _unclosed(record: Record) -> UserError:
    return UserError(
        f"{record.where}: a quotation mark is not closed, and all up to the next one would be its field: "
        'close it, or write the field as "a 19"" rack" if the mark belongs to it'
    )


def _records(path: Path, delimiter: str) -> Iterator[Record]:
    lines: list[str] = []  # of the record that is being read
    number = 1

    def remembered(file: IO[str]) -> Iterator[str]:
        for line in file:
            lines.append(line)
            if "\0" in line:
                raise UserError(f"{path}, line {number}: holds a NUL: damaged, or UTF-16: convert it to UTF-8")
            yield line

    try:
        with open_text(path) as file:
            for fields in csv.reader(remembered(file), delimiter=delimiter):
                yield Record(fields, f"{path}, line {number}", tuple(lines))
                number += len(lines)
                lines.clear()
    except csv.Error as error:
        raise UserError(f"{path}, line {number}: {error}: is a quotation mark never closed?") from error


def _is_open(record: Record, delimiter: str) -> bool:
    """Whether a record would go on if the file did."""
    return len(list(csv.reader([*record.lines, "behind it"], delimiter=delimiter))) == 1


def _torn(record: Record) -> bool:
    """Whether a quoted field has lost the delimiter before it, and was divided at one of its own.

    Then its opening mark stands between two letters, and its closing one at the end of another field.
    """
    if '"' not in record.lines[0] or sum(field.count('"') % 2 for field in record.fields) < 2:
        return False
    return any(_BETWEEN_LETTERS.search(line.replace('""', "")) for line in record.lines)


def _quoted_well(record: Record, delimiter: str) -> bool:
    """Whether a record's quotation marks open fields, close them, or stand in pairs."""
    try:
        return len(list(csv.reader(record.lines, delimiter=delimiter, strict=True))) == 1
    except csv.Error:
        return False


class _Column:
    """What the values of a column look like.

    Attributes:
      repeats: whether most values come more than once, as classes do.
      free: whether they do not, and have many forms, as texts do.
    """

    def __init__(self, values: Sequence[str]) -> None:
        self._values = {value.strip() for value in values}
        self._forms = set(map(_form, values))
        self.repeats = len(self._values) <= len(values) / 2
        self.free = not self.repeats and len(self._forms) > max(1, _FORMS * len(values))

    def fits(self, value: str, exactly: bool) -> bool:
        """Whether a value could be one of the column; `exactly`: one of those that repeat."""
        if self.free:
            return True
        return value.strip() in self._values if self.repeats and exactly else _form(value) in self._forms


def _form(value: str) -> str:
    """A value with its words, and its numbers and codes, made equal: `img/cat_3f9.jpg` is like `img/dog_71.jpg`."""
    codes = re.sub(r"[^\W_]*\d[^\W_]*", "9", value[:_LOOKED_AT].strip())
    return re.sub(r"[^\W\d_]+", "a", codes)


def _divided(record: Record, delimiter: str) -> list[list[str | None]] | None:
    """The lines of a record as records of their own, None for the field that the mark begins; None if they are none."""
    first, *others = record.lines
    *before, opened = next(csv.reader([first], delimiter=delimiter))
    behind = len(record.fields) - len(before) - 1
    rest = opened.split(delimiter)
    rows = [[*before, None, *rest[len(rest) - behind :]], *csv.reader(others, delimiter=delimiter)]
    fit = len(rest) > behind and all(len(row) == len(record.fields) for row in rows)
    return rows if fit else None


def _like_rows(rows: Sequence[Sequence[str | None]], columns: Sequence[_Column]) -> bool:
    """Whether rows could be some of the table; where a column is like ids, by the form of its values."""
    exactly = all(column.repeats or column.free for column in columns)
    return not all(column.free for column in columns) and all(
        value is None or column.fits(value, exactly)
        for row in rows
        for column, value in zip(columns, row, strict=False)
    )
