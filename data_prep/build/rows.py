"""Tables as rows: CSV, TSV, JSON lines and Parquet, by the ending of the file's name."""

import difflib
import math
import reprlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.build import json_text
from data_prep.build.delimited import not_decodable, open_text, read_records
from umemma_jax.data import bounds
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


def read_rows(path: Path, columns: Sequence[str]) -> list[Row]:
    """Reads some columns of a table.

    Args:
      path: .csv (comma) or .tsv (tab) with a header; .jsonl, an object on each line; or .parquet. Text is UTF-8, or
        UTF-16 with a byte order mark.
      columns: those wanted.

    Raises:
      UserError: the file cannot be read, is of another kind or damaged, a row has the wrong number of fields or lost a
        quotation mark, or a column is not there or there twice.
    """
    if path.suffix.lower() not in READERS:
        raise UserError(f"{path}: not known by its ending: give one of {', '.join(READERS)}")
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: is no file: give a table")
    try:
        return list(READERS[path.suffix.lower()](path, tuple(dict.fromkeys(columns))))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise not_decodable(path, error) from error


def is_missing(value: Any, marks: Sequence[str]) -> bool:
    """Whether a value of a row, or of a list in it, is none: empty, null, NaN, or one of the marks."""
    value = _stripped(value)
    return value is None or (isinstance(value, str) and value.casefold() in map(str.casefold, marks))


def short(value: Any) -> str:
    """A value as in Python, of a length that a message can have."""
    return _SHORT.repr(value)


def _read_csv(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    yield from _read_delimited(path, columns, ",")


def _read_tsv(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    yield from _read_delimited(path, columns, "\t")


def _read_delimited(path: Path, columns: Sequence[str], delimiter: str) -> Iterator[Row]:
    records = read_records(path, delimiter, header=True)
    if not records:
        raise UserError(f"{path}: empty: give a table with a header")
    header = [field.strip() for field in records[0].fields]
    _check_columns(path, columns, header)
    for record in records[1:]:
        if len(record.fields) != len(header):
            raise UserError(
                f"{record.where}: {len(record.fields)} fields instead of {len(header)}: "
                "put quotation marks around a field with separators in it"
            )
        yield Row(_not_empty(dict(zip(header, record.fields, strict=True)), columns), record.where)


def _read_jsonl(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    found: dict[str, None] = {}
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
            yield Row(_not_empty(values, columns), where)
    if not found:
        raise UserError(f"{path}: empty: write one object on each line")
    _check_columns(path, columns, list(found))


def _read_parquet(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(f"{path}: Parquet files need pyarrow: pip install pyarrow, or convert it to CSV") from error
    with path.open("rb"):  # raises here where it cannot be read at all
        pass
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            _check_columns(path, columns, file.schema_arrow.names)
            _check_stated(file.metadata, columns)
            number = decoded = 0
            for batch in file.iter_batches(BATCH, columns=list(columns)):
                decoded += batch.nbytes
                bounds.check("decoded bytes", decoded, bounds.TABLE_BYTES)
                for values in batch.to_pylist():
                    number += 1
                    yield Row(_not_empty(values, columns), f"{path}, row {number}")
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


READERS: dict[str, Callable[[Path, Sequence[str]], Iterator[Row]]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}


def _check_columns(path: Path, wanted: Sequence[str], found: Sequence[str]) -> None:
    for name, times in Counter(filter(None, found)).items():
        if times > 1:
            raise UserError(f"{path}: {times} columns have the same name, {name!r}: rename all but one")
    for column in wanted:
        if column not in found:
            others = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            has = f"{', '.join(found[:SHOWN])}{others}"
            raise UserError(f"{path}: no column {column!r}; it has: {has}{_hint(column, found)}")


def _hint(wanted: str, found: Sequence[str]) -> str:
    """What may be meant instead, or wrong with the header."""
    for sign, name in SEPARATORS.items():
        if len(found) == 1 and sign in found[0]:
            return f" (separated by {name}? Save it as .csv with commas, or as .tsv with tabs)"
    folded = {name.casefold(): name for name in found}
    near = difflib.get_close_matches(wanted.casefold(), folded, n=1)
    return f" (is {folded[near[0]]!r} meant?)" if near else " (is its first line the header?)"


def _not_empty(values: dict[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    stripped = {column: _stripped(values.get(column)) for column in columns}
    return {column: value for column, value in stripped.items() if value is not None}


def _stripped(value: Any) -> Any:
    """A string without white space around it; None for what counts as empty."""
    if isinstance(value, bytes):  # of a binary column of Parquet
        value = value.decode(errors="replace")
    if isinstance(value, str):
        return value.encode(errors="replace").decode().strip() or None  # JSON can hold what UTF-8 cannot
    if isinstance(value, float) and math.isnan(value):
        return None
    return value
