import datetime
import math

import numpy as np
import pytest

from umemma_jax.data.kinds import UNSEEN
from umemma_jax.data_prep.build.prep_report import Report
from umemma_jax.data_prep.build.rows import MISSING_MARKS, Row
from umemma_jax.data_prep.raw.dates import date_parts
from umemma_jax.data_prep.raw.tabular import MOST_LEVELS, PARTS, Tabular, as_level, learned
from umemma_jax.errors import UserError

MARCH = datetime.datetime(2024, 3, 1)


def rows(*values):
    """As the readers give them: without the empty ones."""
    known = [{name: field for name, field in row.items() if field is not None} for row in values]
    return [Row(row, f"row {number}") for number, row in enumerate(known)]


def tabular(columns, training, **types):
    return Tabular(columns, types, learned(columns, types, training, MISSING_MARKS), MISSING_MARKS)


TRAINING = rows(
    {"age": "1,200", "colour": "red", "made": "2024-03-01"},
    {"age": 3, "colour": "blue", "made": None},
    {"age": "?", "colour": "red", "made": "1 March 2024"},
    {"age": None, "colour": "NA", "made": None},
)


def test_numbers_categories_and_dates_become_one_vector():
    source = tabular(("age", "colour", "made"), TRAINING, colour="category", made="date")
    assert source.modality.columns == ("age", "colour", *(f"made.{part}" for part in PARTS))
    assert source.modality.levels == {"colour": {"red": 2, "blue": 1}}
    report = Report()
    np.testing.assert_array_equal(source.take(TRAINING[0], report), [1200, 0, *date_parts(MARCH)])
    np.testing.assert_array_equal(source.take(TRAINING[1], report), [3, 1, *[math.nan] * len(PARTS)])
    np.testing.assert_array_equal(source.take(TRAINING[2], report), [math.nan, 0, *date_parts(MARCH)])
    assert report.count("missing number in column 'age' (kept as missing)") == 1
    assert report.count("missing date in column 'made' (kept as missing)") == 1


def test_a_row_without_any_value_lacks_the_modality():
    source, report = tabular(("age", "colour"), TRAINING, colour="category"), Report()
    assert source.take(TRAINING[3], report) is None
    assert report.count("missing number in column 'age' (kept as missing)") == 0


def test_a_level_that_training_lacks_is_unseen():
    source, report = tabular(("age", "colour"), TRAINING, colour="category"), Report()
    (other,) = rows({"age": 2, "colour": "teal"})
    np.testing.assert_array_equal(source.take(other, report), [2, UNSEEN])
    assert report.count("category in column 'colour' that training does not have (kept as such)") == 1


def test_quantiles_are_those_of_the_known_numbers():
    values = np.random.default_rng(0).normal(size=100).astype(np.float32)
    training = rows(*({"a": float(value), "b": "x"} for value in values), {"b": "y"})
    modality = tabular(("a", "b"), training, b="category").modality
    np.testing.assert_allclose(modality.quantiles[0], np.quantile(values, np.linspace(0, 1, 33)), rtol=1e-6)
    assert modality.quantiles[1] == ()


def test_only_the_most_frequent_levels_are_kept():
    fields = [{"a": f"level {number // 2}"} for number in range(2 * MOST_LEVELS)] + [{"a": "once"}]
    source = tabular(("a",), rows(*fields), a="category")
    assert len(source.modality.levels["a"]) == MOST_LEVELS
    assert source.take(rows({"a": "once"})[0], Report()) == [UNSEEN]


def test_lists_of_numbers_have_no_names():
    source = tabular(("v",), rows({"v": [1, None, "3"]}, {"v": [None, None, None]}, {}))
    assert (source.modality.shape, source.modality.columns, source.modality.quantiles) == ((3,), None, None)
    np.testing.assert_array_equal(source.take(rows({"v": [1, None, "3"]})[0], Report()), [1, math.nan, 3])
    assert source.take(rows({"v": [None]})[0], Report()) is None
    with pytest.raises(UserError, match="row 0: 2 numbers instead of 3: correct it or leave it empty"):
        source.take(rows({"v": [1, 2]})[0], Report())


@pytest.mark.parametrize(
    ("field", "level"),
    [
        ("red", "red"),
        (2, "2"),
        (2.0, "2"),
        (2.5, "2.5"),
        (True, "true"),
        ("True", "true"),
        ("2.0", "2.0"),
        ("n/a", None),
        (None, None),
    ],
)
def test_what_is_a_level(field, level):
    assert as_level(field) == level


@pytest.mark.parametrize(
    ("kind", "field", "message"),
    [
        ("number", "tall", "row 0: 'tall' in column 'a' is no finite number: correct it or leave it empty"),
        ("number", [1, 2], r"row 0: \[1, 2\] in column 'a' is no finite number"),
        ("category", ["x"], r"row 0: \['x'\] in column 'a' is no category but several values"),
        ("category", "x" * 201, "in column 'a' is no category: it is longer than 200 characters"),
        ("date", "03/01/2024", "row 0: '03/01/2024' in column 'a' may begin with the day or the month"),
        ("date", None, "--tabular: no row has a number in a, b: leave it out"),
    ],
)
def test_what_is_refused(kind, field, message):
    with pytest.raises(UserError, match=message):
        tabular(("a", "b"), rows({"a": field}), a=kind)
