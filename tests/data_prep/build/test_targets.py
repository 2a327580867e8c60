"""Which labels are numbers to be predicted, and which numbers the rows have."""

import decimal
import json

import numpy as np
import pytest

from umemma_jax.data_prep.build import targets
from umemma_jax.data_prep.build.prep_report import Report
from umemma_jax.data_prep.build.rows import MISSING_MARKS, Row
from umemma_jax.data_prep.build.targets import is_regression, read_targets, strata
from umemma_jax.errors import UserError

MANY = [x / 7 for x in range(30)]


def rows_of(*fields, columns=("price",)):
    """A row for each field, or for each tuple of fields."""
    rows = []
    for number, of_row in enumerate(fields):
        of_row = of_row if isinstance(of_row, tuple) else (of_row,)
        values = {column: field for column, field in zip(columns, of_row, strict=True) if field is not None}
        rows.append(Row(values, f"row {number}"))
    return rows


def entries(report):
    return {kind: problem["entries"] for kind, problem in json.loads(report.encoded()).items()}


@pytest.mark.parametrize(
    ("fields", "said", "expected"),
    [
        (MANY, None, True),
        ([str(x) for x in range(30)], None, True),
        ([decimal.Decimal(x) for x in range(30)] + [None, "NA"], None, True),
        (MANY, "classes", False),
        ([1, 2, 3, 4, 5] * 9, None, False),  # a rating can be either: classes, unless it is said
        ([1, 2, 3, 4, 5] * 9, "numbers", True),
        ([*MANY, "cheap"], None, False),
        ([f"${x},000.50" for x in range(1, 31)], None, True),
        ([f"class {x}" for x in range(30)], None, False),
        ([[x] for x in range(30)], None, False),
    ],
)
def test_numbers_of_many_values_are_a_target(fields, said, expected):
    report = Report()
    assert is_regression(rows_of(*fields), ("price",), said, MISSING_MARKS, report) is expected
    assert bool(entries(report)) is (expected and said is None)


def test_what_decided_is_told_with_the_way_to_change_it():
    report = Report()
    is_regression(rows_of(*range(30)), ("price",), None, MISSING_MARKS, report)
    (kind,), (entry,) = entries(report).keys(), *entries(report).values()
    assert "--target=classes" in kind
    assert entry == "'price': 30 different ones, from 0 to 29"


def test_several_columns_are_targets():
    rows = rows_of((1, 2), (3, 4), columns=("price", "views"))
    assert is_regression(rows, ("price", "views"), None, MISSING_MARKS, Report())
    assert read_targets(rows, ("price", "views"), MISSING_MARKS, Report()) == {"row 0": (1, 2), "row 1": (3, 4)}
    with pytest.raises(UserError, match="--label=price,views: several columns are targets, not classes"):
        is_regression(rows, ("price", "views"), "classes", MISSING_MARKS, Report())


def test_rows_without_a_finite_number_are_dropped_and_counted():
    report = Report()
    rows = rows_of(1.5, None, "n/a", float("inf"), "-inf", "1e300", 10**400, " 2")
    assert read_targets(rows, ("price",), MISSING_MARKS, report) == {"row 0": (1.5,), "row 7": (2.0,)}
    assert len(entries(report)[targets.NO_TARGET]) == 2
    assert entries(report)[targets.INFINITE][0] == "row 3: inf"
    assert len(entries(report)[targets.INFINITE]) == 4


@pytest.mark.parametrize("field", ["cheap", [1.0], "1,5"])
def test_what_is_no_number(field):
    with pytest.raises(
        UserError, match=r"row 1: .* in column 'price' (is no finite number|has a comma before .*): corr"
    ):
        read_targets(rows_of(1.0, field), ("price",), MISSING_MARKS, Report())


def test_strata_are_tenths_of_the_rows():
    values = np.random.default_rng(0).lognormal(size=200)
    parts = [int(part) for (part,) in strata({str(n): (value,) for n, value in enumerate(values)}).values()]
    assert np.bincount(parts).tolist() == [20] * 10
    assert np.all(np.diff(np.array(parts)[values.argsort()]) >= 0)
    assert strata({}) == {}
