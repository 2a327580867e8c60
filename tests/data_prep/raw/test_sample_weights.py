import pytest

from umemma_jax.data_prep.build.rows import Row
from umemma_jax.data_prep.raw.sample_weights import read_sample_weights
from umemma_jax.errors import UserError


def rows(*fields):
    return [Row({} if field is None else {"w": field}, f"row {number}") for number, field in enumerate(fields, 1)]


def test_weights_are_numbers_of_any_writing():
    weights = read_sample_weights(rows("1,000", 2, "50%", 0.0), "w", ())
    assert weights == {"row 1": 1000, "row 2": 2, "row 3": 0.5, "row 4": 0}


@pytest.mark.parametrize(
    ("field", "complaint"),
    [
        (None, "row 2: the weight in column 'w' is missing: give a number from 0 on"),
        ("NA", "row 2: the weight in column 'w' is missing"),
        (-0.5, "row 2: the weight in column 'w' is -0.5: give a number from 0 on"),
        ("much", "row 2: the weight in column 'w' is no finite number: correct it"),
        (float("inf"), "row 2: the weight in column 'w' is no finite number"),
        (float("nan"), "row 2: the weight in column 'w' is missing"),
    ],
)
def test_what_is_no_weight(field, complaint):
    with pytest.raises(UserError, match=complaint):
        read_sample_weights(rows(1, field), "w", ("NA",))


def test_nothing_but_zeros():
    with pytest.raises(UserError, match="--weight=w: all weights are 0"):
        read_sample_weights(rows(0, 0), "w", ())
