"""Tables as rows: CSV, TSV, JSON lines and Parquet, by the ending of the file's name."""

import csv
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umemma_jax.errors import UserError


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
      path: .csv (comma) or .tsv (tab), UTF-8 with a header; .jsonl, an object on each line; or .parquet.
      columns: those wanted.

    Raises:
      UserError: the file cannot be read, is of another kind or damaged, a row has the wrong number of fields, or a
        column is not there.
    """
    if path.suffix.lower() not in READERS:
        raise UserError(f"{path}: not known by its ending: give one of {', '.join(READERS)}")
    try:
        return list(READERS[path.suffix.lower()](path, tuple(dict.fromkeys(columns))))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}): convert it") from error


def _read_csv(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    yield from _read_delimited(path, columns, ",")


def _read_tsv(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    yield from _read_delimited(path, columns, "\t")


def _read_delimited(path: Path, columns: Sequence[str], delimiter: str) -> Iterator[Row]:
    header: list[str] | None = None
    line = 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter)
            for fields in reader:
                where, line = f"{path}, line {line}", reader.line_num + 1
                if not fields:
                    continue
                if header is None:
                    header = [field.strip() for field in fields]
                    _check_columns(path, columns, header)
                    if len(set(header)) < len(header):
                        raise UserError(f"{where}: two columns have the same name: rename one")
                    continue
                if len(fields) != len(header):
                    raise UserError(
                        f"{where}: {len(fields)} fields instead of {len(header)}: "
                        "put quotation marks around a field with separators in it"
                    )
                yield Row(_not_empty(dict(zip(header, fields, strict=True)), columns), where)
    except csv.Error as error:
        raise UserError(f"{path}, line {line}: {error}: is a quotation mark never closed?") from error
    if header is None:
        raise UserError(f"{path}: empty: give a table with a header")


def _read_jsonl(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    found: dict[str, None] = {}
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                values = json.loads(line)
            except ValueError as error:
                raise UserError(f"{where}: not JSON ({error}): write one object on each line") from error
            if not isinstance(values, dict):
                raise UserError(f"{where}: not a JSON object: write one object on each line")
            found |= dict.fromkeys(values)
            yield Row(_not_empty(values, columns), where)
    _check_columns(path, columns, list(found))


def _read_parquet(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(f"{path}: Parquet files need pyarrow: pip install pyarrow, or convert it to CSV") from error
    try:
        with parquet.ParquetFile(path) as file:
            _check_columns(path, columns, file.schema_arrow.names)
            number = 0
            for batch in file.iter_batches(columns=list(columns)):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(_not_empty(values, columns), f"{path}, row {number}")
    except pyarrow.ArrowException as error:
        raise UserError(f"{path}: not a readable Parquet file ({' '.join(str(error).split())})") from error


READERS: dict[str, Callable[[Path, Sequence[str]], Iterator[Row]]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}


def _check_columns(path: Path, wanted: Sequence[str], found: Sequence[str]) -> None:
    for column in wanted:
        if column not in found:
            raise UserError(f"{path}: no column {column!r}; it has: {', '.join(found)}")


def _not_empty(values: dict[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    stripped = {column: _stripped(values.get(column)) for column in columns}
    return {column: value for column, value in stripped.items() if value is not None}


def _stripped(value: Any) -> Any:
    """A string without white space around it; None for what counts as empty."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode().strip() or None  # JSON can hold what UTF-8 cannot
    if isinstance(value, float) and math.isnan(value):
        return None
    return value
