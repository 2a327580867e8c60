import datetime
import math

import numpy as np
import pytest

from umemma_jax.data_prep.raw.dates import PARTS, as_date, date_parts

MARCH = datetime.datetime(2024, 3, 1)
NOON = datetime.datetime(2024, 3, 1, 12, 30)


@pytest.mark.parametrize(
    "field, date",
    [
        ("2024-03-01", MARCH),
        ("2024-03-01T12:30", NOON),
        ("2024-03-01 12:30:00", NOON),
        ("2024-03-01T12:30:00Z", NOON),
        ("2024-03-01T14:30:00+02:00", NOON),
        ("2024/3/1", MARCH),
        ("2024.03.01 12:30", NOON),
        ("1 March 2024", MARCH),
        ("01-Mar-2024", MARCH),
        ("Mar 1, 2024", MARCH),
        ("march 1 2024 12:30", NOON),
        ("1 Sept 2024", datetime.datetime(2024, 9, 1)),
        (MARCH.date(), MARCH),
        (NOON, NOON),
        (np.datetime64("2024-03-01T12:30", "ns"), NOON),
    ],
)
def test_what_is_a_date(field, date):
    assert as_date(field) == date


@pytest.mark.parametrize("field", [None, "", "NaT", "NA", np.datetime64("NaT")])
def test_missing_fields_are_none(field):
    assert as_date(field) is None


def test_missing_times_of_pandas_are_none():
    pandas = pytest.importorskip("pandas")
    assert as_date(pandas.NaT) is None
    assert as_date(pandas.Timestamp(NOON, tz="UTC")) == NOON


@pytest.mark.parametrize(
    "field, reason",
    [
        ("03/01/2024", "may begin with the day or the month"),
        ("1.3.24", "may begin with the day or the month"),
        ("20240301", "is a number"),
        ("2024", "is a number"),
        ("2024-02-30", "is no date"),
        ("1 Ma 2024", "is no date"),
        ("1 Brumaire 2024", "is no date"),
        ("12:30", "is no date"),
        ("yesterday", "is no date"),
        (20240301, "is no date"),
        ("0001-01-01T00:00+05:00", "beyond the years"),
    ],
)
def test_what_is_no_date(field, reason):
    with pytest.raises(ValueError, match=reason):
        as_date(field)


def test_parts_go_round_with_the_year_the_week_and_the_day():
    monday_at_six = datetime.datetime(2023, 7, 3, 6)
    parts = dict(zip(PARTS, date_parts(monday_at_six), strict=True))
    days = 31 + 28 + 31 + 30 + 31 + 30 + 2.25
    assert parts["year"] == pytest.approx(2023 + days / 365, abs=1e-3)
    assert math.atan2(parts["season.sin"], parts["season.cos"]) % (2 * math.pi) == pytest.approx(
        2 * math.pi * days / 365, abs=1e-5
    )
    assert (parts["weekday.sin"], parts["weekday.cos"]) == pytest.approx((0, 1), abs=1e-6)
    assert (parts["hour.sin"], parts["hour.cos"]) == pytest.approx((1, 0), abs=1e-6)


def test_the_last_moment_of_a_leap_year_is_before_the_next_one():
    assert 2024.99 < date_parts(datetime.datetime(2024, 12, 31, 12))[0] < 2025
