"""From the fields of a table's columns to the numbers of regression, and whether a column is one of numbers at all."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from umemma_jax.data_prep.build.labels import MOST_CLASSES
from umemma_jax.data_prep.build.prep_report import Report
from umemma_jax.data_prep.build.rows import Row, is_missing, short
from umemma_jax.data_prep.raw.numbers import LARGEST, as_number
from umemma_jax.errors import UserError

CLASSES, NUMBERS = "classes", "numbers"  # what a label can be said to be
BINS = 10  # of equally many rows, of which the splits get their shares

NO_TARGET = "row without target (dropped)"
INFINITE = "row with an infinite target (dropped)"
TAKEN_AS_NUMBERS = "label taken as a number to be predicted (--target=classes makes classes of them)"


def is_regression(
    rows: Sequence[Row], columns: Sequence[str], said: str | None, missing: Sequence[str], report: Report
) -> bool:
    """Whether the labels are numbers to be predicted: as was said, or several columns, or numbers of many values.

    Args:
      rows: of the table.
      columns: of the label.
      said: CLASSES, NUMBERS, or None.
      missing: what stands for no label, beside nothing at all.
      report: is told where the numbers decide.

    Raises:
      UserError: several columns are said to be classes.
    """
    if said == CLASSES and len(columns) > 1:
        raise UserError(f"--label={','.join(columns)}: several columns are targets, not classes: name one, or a list")
    if said is not None or len(columns) > 1:
        return said != CLASSES
    fields = [row.values[columns[0]] for row in rows if not is_missing(row.values.get(columns[0]), missing)]
    try:
        different = {_number(field) for field in fields}
    except ValueError:
        return False
    if len(different) <= MOST_CLASSES:
        return False
    described = f"{len(different)} different ones, from {min(different):g} to {max(different):g}"
    report.add(TAKEN_AS_NUMBERS, f"{columns[0]!r}: {described}")
    return True


def read_targets(
    rows: Sequence[Row], columns: Sequence[str], missing: Sequence[str], report: Report
) -> dict[str, tuple[float, ...]]:
    """The T targets of each row, by `Row.where`; rows that lack one, or have an infinite one, are left out.

    Args:
      rows: of the table.
      columns: of the targets.
      missing: what stands for no number, beside nothing at all.
      report: gets what is dropped.

    Raises:
      UserError: a field is no number.
    """
    targets = {}
    for row in rows:
        fields = {column: row.values.get(column) for column in columns}
        lacking = [column for column, field in fields.items() if is_missing(field, missing)]
        if lacking:
            report.add(NO_TARGET, f"{row.where}: {', '.join(lacking)}")
            continue
        numbers = tuple(_finite_or_infinite(row, column, field) for column, field in fields.items())
        if all(abs(number) <= LARGEST for number in numbers):
            targets[row.where] = numbers
        else:
            report.add(INFINITE, f"{row.where}: {', '.join(map(str, numbers))}")
    return targets


def strata(targets: Mapping[str, Sequence[float]]) -> dict[str, list[str]]:
    """Of each row a name for the tenth of all rows that its first target lies in, for splits in proportion."""
    if not targets:
        return {}
    first = np.array([numbers[0] for numbers in targets.values()])
    edges = np.quantile(first, np.arange(1, BINS) / BINS)
    return {where: [str(part)] for where, part in zip(targets, np.searchsorted(edges, first), strict=True)}


def _finite_or_infinite(row: Row, column: str, field: Any) -> float:
    try:
        return _number(field)
    except ValueError as error:
        raise UserError(
            f"{row.where}: {short(field)} in column {column!r} {error}: correct it, leave it empty, or say what counts "
            "as missing with --na-values, or --target=classes"
        ) from error


def _number(field: Any) -> float:
    """As `as_number`, but of an infinite one. Raises ValueError where a field is none."""
    try:
        return as_number(field, ())
    except ValueError:
        if _is_infinite(field):
            return math.inf
        raise


def _is_infinite(field: Any) -> bool:
    """Whether it is beyond float32."""
    try:
        return abs(float(field)) > LARGEST
    except OverflowError:
        return True
    except (TypeError, ValueError):
        return False
