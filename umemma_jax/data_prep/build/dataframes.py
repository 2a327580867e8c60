"""Any form of a table as one: data frames, rows and columns of Python, and files."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import narwhals
import numpy as np
from narwhals.exceptions import DuplicateError

from umemma_jax.data_prep.build.rows import Table, check_columns, read_table, row_of, short
from umemma_jax.errors import UserError

IN_MEMORY = Path("data")  # what messages call a table that is no file; a row of it is `data[0]`


def table_of(data: Any) -> Table:
    """The table that data in any form are.

    >>> table = table_of([{"title": "Blue shirt", "price": 12.5}, {"title": " ", "size": 40}])
    >>> table.columns
    ('title', 'price', 'size')
    >>> table.rows[1]
    Row(values={'size': 40}, where='data[1]')

    Args:
      data: a path of .csv, .tsv, .jsonl or .parquet; a DataFrame of pandas, polars or whatever else narwhals knows; one
        row as a dict; several, as a list or whatever else gives dicts; or a dict of columns, each a list or an array
        [N]. Values can be any objects. A dict of nothing but lists is one of columns: one row of lists stands in a
        list. Rows that are no file's count from 0, and paths in them from the working directory.

    Raises:
      UserError: it is none of these, cannot be read, has no rows, or two columns have the same name.
    """
    table = _table(data)
    if not table.rows:
        raise UserError(f"{table.path}: no rows: give at least one")
    return table


def is_row(data: Any) -> bool:
    """Whether data are one row, a dict that is not one of columns."""
    return isinstance(data, Mapping) and not (data and all(map(_is_column, data.values())))


def _table(data: Any) -> Table:
    if isinstance(data, Table):
        return data
    if isinstance(data, str | Path):
        return read_table(Path(data))
    if isinstance(data, Mapping):
        return _of_rows([data]) if is_row(data) else _of_columns(data)
    if (frame := _frame(data)) is not None:
        return _of_columns({name: _values(frame[name]) for name in frame.columns})
    if isinstance(data, Iterable):
        return _of_rows(list(data))
    raise _unknown(data)


def _frame(data: Any) -> narwhals.DataFrame | None:
    """As narwhals has it; None if it is no data frame."""
    try:
        frame = narwhals.from_native(data, pass_through=True)
    except DuplicateError as error:
        raise UserError(f"{IN_MEMORY}: {' '.join(str(error).split())}: rename all but one") from error
    if isinstance(frame, narwhals.LazyFrame):
        frame = frame.collect()
    return frame if isinstance(frame, narwhals.DataFrame) else None


def _values(column: narwhals.Series) -> list[Any]:
    return [None if null else value for value, null in zip(column.to_list(), column.is_null().to_list(), strict=True)]


def _is_column(values: Any) -> bool:
    return isinstance(values, list) or (isinstance(values, np.ndarray) and values.ndim == 1)


def _of_columns(columns: Mapping[Any, Sequence[Any]]) -> Table:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        shortest, longest = (choose(lengths, key=lengths.get) for choose in (min, max))
        raise UserError(
            f"{IN_MEMORY}: column {shortest!r} has {lengths[shortest]} values, {longest!r} {lengths[longest]}: "
            "give as many of each"
        )
    rows = zip(*columns.values(), strict=True)
    return _of_values(list(columns), [dict(zip(columns, values, strict=True)) for values in rows])


def _of_rows(rows: Sequence[Any]) -> Table:
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise UserError(f"{IN_MEMORY}[{number}]: {short(row)} is no row: give a dict, column -> value")
    names = dict.fromkeys(name for row in rows for name in row)
    return _of_values(list(names), rows)


def _of_values(names: Sequence[Any], rows: Sequence[Mapping[Any, Any]]) -> Table:
    columns = check_columns(IN_MEMORY, None, [str(name).strip() for name in names])
    named = [{str(name).strip(): value for name, value in row.items()} for row in rows]
    return Table(IN_MEMORY, columns, [row_of(row, columns, f"{IN_MEMORY}[{n}]") for n, row in enumerate(named)])


def _unknown(data: Any) -> UserError:
    return UserError(
        f"{IN_MEMORY}: {type(data).__name__} is no table: give a DataFrame, a list of dicts, a dict, or the path of a "
        ".csv, .tsv, .jsonl or .parquet file"
    )
