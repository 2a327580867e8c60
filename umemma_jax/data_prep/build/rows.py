"""Tables as rows: CSV, TSV, JSON lines and Parquet, by the ending of the file's name."""

import datetime
import difflib
import functools
import reprlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from umemma_jax.data import bounds
from umemma_jax.data_prep.build import json_text
from umemma_jax.data_prep.build.delimited import not_decodable, open_text, read_records
from umemma_jax.errors import UserError

# What stands for a missing label or number in a file that has them only as text, in upper or lower case.
MISSING_MARKS = ("NA", "N/A", "#N/A", "<NA>", "NaN", "NaT", "None", "NULL", "?")
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80  # characters
BATCH = 4096  # rows of Parquet that are decoded at a time
SHOWN = 20  # columns, where one is not there
SEPARATORS = {";": "semicolons", "\t": "tabs", ",": "commas"}  # sign -> its name, in messages


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
      values: column -> value, without the empty ones (nothing, white space, null, NaN). Strings are stripped.
      where: file and line or row, for errors.
    """

    values: dict[str, Any]
    where: str


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
      path: the file, or what messages call a table that is none; paths of files in it count from its folder.
      columns: their names, in order; also of those that are empty.
      rows: the rows.
    """

    path: Path
    columns: tuple[str, ...]
    rows: list[Row]


def read_rows(path: Path, columns: Sequence[str]) -> list[Row]:
    """Reads some columns of a table; as `read_table`, and raises also where one of them is not there."""
    return _read(path, tuple(dict.fromkeys(columns))).rows


def read_table(path: Path) -> Table:
    """Reads all columns of a table, but those without a name.

    Args:
      path: .csv (comma) or .tsv (tab) with a header; .jsonl, an object on each line; or .parquet. Text is UTF-8, or
        UTF-16 with a byte order mark.

    Raises:
      UserError: the file cannot be read, is of another kind or damaged, a row has the wrong number of fields or lost a
        quotation mark, or a column is there twice.
    """
    return _read(path, None)


def _read(path: Path, columns: Sequence[str] | None) -> Table:
    if path.suffix.lower() not in READERS:
        raise UserError(f"{path}: not known by its ending: give one of {', '.join(READERS)}")
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: is no file: give a table")
    try:
        return READERS[path.suffix.lower()](path, columns)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise not_decodable(path, error) from error


def is_missing(value: Any, marks: Sequence[str]) -> bool:
    """Whether a value of a row, or of a list in it, is none: empty, null, NaN, or one of the marks."""
    value = _stripped(value)
    return value is None or (isinstance(value, str) and value.casefold() in _folded(tuple(marks)))


@functools.lru_cache(maxsize=8)
def _folded(marks: tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(str.casefold, marks))


def text_of(row: Row, column: str) -> str:
    """A field as a string. Raises UserError if it is empty or not one value."""
    value = row.values.get(column)
    if value is None or isinstance(value, list | tuple | dict | bytes | np.ndarray | Image.Image):
        found = "empty" if value is None else f"a {type(value).__name__}"
        raise UserError(f"{row.where}: column {column!r} is {found}: give one value")
    return str(value)


def short(value: Any) -> str:
    """A value as in Python, of a length that a message can have."""
    return _SHORT.repr(value)


def _read_csv(path: Path, columns: Sequence[str] | None) -> Table:
    return _read_delimited(path, columns, ",")


def _read_tsv(path: Path, columns: Sequence[str] | None) -> Table:
    return _read_delimited(path, columns, "\t")


def _read_delimited(path: Path, columns: Sequence[str] | None, delimiter: str) -> Table:
    records = read_records(path, delimiter, header=True)
    if not records:
        raise UserError(f"{path}: empty: give a table with a header")
    header = [field.strip() for field in records[0].fields]
    columns = check_columns(path, columns, header)
    rows = []
    for record in records[1:]:
        if len(record.fields) != len(header):
            raise UserError(
                f"{record.where}: {len(record.fields)} fields instead of {len(header)}: "
                "put quotation marks around a field with separators in it"
            )
        rows.append(row_of(dict(zip(header, record.fields, strict=True)), columns, record.where))
    return Table(path, columns, rows)


def _read_jsonl(path: Path, columns: Sequence[str] | None) -> Table:
    found: dict[str, None] = {}
    records = []
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                values = json_text.parse(line)
            except ValueError as error:
                raise UserError(f"{where}: not JSON ({error}): write one object on each line") from error
            if not isinstance(values, dict):
                raise UserError(f"{where}: not a JSON object: write one object on each line")
            found |= dict.fromkeys(values)
            records.append((values, where))
    if not found:
        raise UserError(f"{path}: empty: write one object on each line")
    columns = check_columns(path, columns, list(found))
    return Table(path, columns, [row_of(values, columns, where) for values, where in records])


def _read_parquet(path: Path, columns: Sequence[str] | None) -> Table:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(f"{path}: Parquet files need pyarrow: pip install pyarrow, or convert it to CSV") from error
    with path.open("rb"):  # raises here where it cannot be read at all
        pass
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            columns = check_columns(path, columns, file.schema_arrow.names)
            _check_stated(file.metadata, columns)
            rows, decoded = [], 0
            for batch in file.iter_batches(BATCH, columns=list(columns)):
                decoded += batch.nbytes
                bounds.check("decoded bytes", decoded, bounds.TABLE_BYTES)
                for values in batch.to_pylist():
                    rows.append(row_of(values, columns, f"{path}, row {len(rows) + 1}"))
            return Table(path, columns, rows)
    # OSError is of a damaged page, the two last ones of a time that Python cannot hold.
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise UserError(f"{path}: not a readable Parquet file ({' '.join(str(error).split())})") from error


def _check_stated(metadata: Any, columns: Sequence[str]) -> None:
    """Raises ValueError where a Parquet file states more rows, or bytes in these columns, than a table may have.

    A few kilobytes of it can expand to gigabytes.
    """
    bounds.check("rows", metadata.num_rows, bounds.TABLE_ROWS)
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    chunks = [group.column(number) for group in groups for number in range(group.num_columns)]
    stated = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] in columns)
    bounds.check("decoded bytes", stated, bounds.TABLE_BYTES)


READERS: dict[str, Callable[[Path, Sequence[str] | None], Table]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}


def check_columns(where: Path | str, wanted: Sequence[str] | None, found: Sequence[str]) -> tuple[str, ...]:
    """The columns to take of those that a table has; all that have a name if `wanted` is None.

    Raises:
      UserError: one is not there, or two have the same name.
    """
    for name, times in Counter(filter(None, found)).items():
        if times > 1:
            raise UserError(f"{where}: {times} columns have the same name, {name!r}: rename all but one")
    for column in wanted or ():
        if column not in found:
            others = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            has = f"{', '.join(found[:SHOWN])}{others}"
            raise UserError(f"{where}: no column {column!r}; it has: {has}{_hint(column, found)}")
    return tuple(filter(None, found) if wanted is None else wanted)


def _hint(wanted: str, found: Sequence[str]) -> str:
    """What may be meant instead, or wrong with the header."""
    for sign, name in SEPARATORS.items():
        if len(found) == 1 and sign in found[0]:
            return f" (separated by {name}? Save it as .csv with commas, or as .tsv with tabs)"
    return meant(wanted, found) or " (is its first line the header?)"


def meant(wanted: str, found: Sequence[str]) -> str:
    """A question about the nearest of the names that there are, for messages; empty if none is near."""
    folded = {name.casefold(): name for name in found}
    near = difflib.get_close_matches(wanted.casefold(), folded, n=1)
    return f" (is {folded[near[0]]!r} meant?)" if near else ""


def row_of(values: Mapping[str, Any], columns: Sequence[str], where: str) -> Row:
    """A row of some columns; what is empty is left out."""
    stripped = {column: _stripped(values.get(column)) for column in columns}
    return Row({column: value for column, value in stripped.items() if value is not None}, where)


def _stripped(value: Any) -> Any:
    """What a field holds: None if it is empty, a string without white space around it, bytes that are text as a string.

    NumPy's scalars and arrays [N] become Python's; any other object stays as it is.
    """
    if isinstance(value, np.generic):
        value = _plain(value)
    if isinstance(value, bytes):
        value = _text(value)
    if isinstance(value, str):
        # JSON can hold what UTF-8 cannot.
        return (value if value.isascii() else value.encode(errors="replace").decode()).strip() or None
    if isinstance(value, np.ndarray) and value.ndim == 1:
        return value.tolist()
    if isinstance(value, dict) and all(item is None for item in value.values()):
        return None  # as data frames write an absent object
    is_nan = isinstance(value, float | Decimal | datetime.datetime) and value != value  # pandas' NaT is such a datetime
    return None if is_nan or type(value).__name__ == "NAType" else value  # pandas', which is not imported here


def _plain(value: np.generic) -> Any:
    """A NumPy scalar as Python's; of a time with more than microseconds, those."""
    return value.astype("datetime64[us]").item() if isinstance(value, np.datetime64) else value.item()


def _text(value: bytes) -> str | bytes:
    """The text that bytes are, as in a binary column of Parquet; the bytes if they are none."""
    try:
        return value if b"\0" in value else value.decode()
    except UnicodeDecodeError:
        return value
