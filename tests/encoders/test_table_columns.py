import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from tests.encoders.parity import random_variables
from tests.encoders.table_rows import rows
from umemma_jax.encoders.table_columns import Numbers, check_columns, piecewise_linear
from umemma_jax.errors import UserError


def encoding(x, bins):
    """Equation 1 of Gorishniy et al. (2022), number by number."""
    edges = stats.norm.ppf([0.5 / (bins + 1), *np.arange(1, bins) / bins, 1 - 0.5 / (bins + 1)])
    values = []
    for place, (low, high) in enumerate(itertools.pairwise(edges)):
        if x < low and place > 0:
            values.append(0.0)
        elif x >= high and place < bins - 1:
            values.append(1.0)
        else:
            values.append((x - low) / (high - low))
    return values


@pytest.mark.parametrize("bins", [1, 2, 5])
def test_numbers_are_encoded_piecewise_linearly(bins):
    x = np.array([-9, -1.2, -0.3, 0, 0.4, 2, 30], np.float32)
    assert_allclose(piecewise_linear(x[:, None], bins)[:, 0], [encoding(value, bins) for value in x], rtol=1e-4)


@pytest.mark.parametrize("bins", [0, 4])
def test_an_affine_map_per_column_and_a_learned_value_where_a_number_is_missing(bins):
    x = rows()
    model = Numbers(6, bins)
    params = random_variables(model, x["numbers"], x["missing"])["params"]
    found = model.apply({"params": params}, x["numbers"], x["missing"])
    for row, column in np.ndindex(x["numbers"].shape):
        number = x["numbers"][row, column]
        encoded = np.array(encoding(number, bins) if bins else [number])
        expected = encoded @ params["kernel"][column] + params["bias"][column]
        if x["missing"][row, column]:
            expected = params["missing"][column]
        assert_allclose(found[row, column], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, 3)), "takes numbers and categories apart: .* preprocess.form 'columns'"),
        ({"tokens": np.zeros((2, 3))}, "takes numbers and categories apart"),
        (rows(), "encoder mine: levels are of 1 columns, 2 are categories"),
    ],
)
def test_what_is_refused(x, message):
    with pytest.raises(UserError, match=message):
        check_columns(x, (3,), "mine")
