import math
from decimal import Decimal

import numpy as np
import pytest

from umemma_jax.data_prep.raw.numbers import as_number


@pytest.mark.parametrize(
    "field, number",
    [
        (3, 3.0),
        (-2.5, -2.5),
        (True, 1.0),
        (Decimal("1.25"), 1.25),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7.0),
        ("42", 42.0),
        (" -1.5 ", -1.5),
        ("+.5", 0.5),
        ("5.", 5.0),
        ("2e-3", 0.002),
        ("\u22127", -7.0),
        ("1,234", 1234.0),
        ("1,234,567.89", 1234567.89),
        ("-12 345", -12345.0),
        ("1\u202f234\u202f567", 1234567.0),
        ("1'234.5", 1234.5),
        ("12%", 0.12),
        ("-1.5 %", -0.015),
        ("$5", 5.0),
        ("-$1,234.50", -1234.5),
        ("5 €", 5.0),
    ],
)
def test_what_is_a_number(field, number):
    assert as_number(field) == pytest.approx(number)


@pytest.mark.parametrize("field", [None, "", "  ", math.nan, "NA", "n/a", "?", "nan"])
def test_missing_fields_are_none(field):
    assert as_number(field) is None


def test_marks_can_be_given():
    assert as_number("-", marks=("-",)) is None
    with pytest.raises(ValueError, match="is no finite number"):
        as_number("?", marks=("-",))


@pytest.mark.parametrize(
    "field, reason",
    [
        ("abc", "is no finite number"),
        ("1_000", "is no finite number"),
        ("0x10", "is no finite number"),
        ("1 2", "is no finite number"),
        ("12,34,567", "is no finite number"),
        ("1,234'567", "is no finite number"),
        ("0,123", "comma before its decimals"),
        ("1,5", "comma before its decimals"),
        ("1.234,5", "comma before its decimals"),
        ("$5€", "is no finite number"),
        ("5%%", "is no finite number"),
        ("5$5", "is no finite number"),
        ("%", "is no finite number"),
        ("inf", "is no finite number"),
        (math.inf, "is no finite number"),
        ("1e39", "is no finite number"),
        (10**400, "is no finite number"),
        ("1e400", "is no finite number"),
        ([1], "is no finite number"),
        (b"1", "is no finite number"),
    ],
)
def test_what_is_no_number(field, reason):
    with pytest.raises(ValueError, match=reason):
        as_number(field)
