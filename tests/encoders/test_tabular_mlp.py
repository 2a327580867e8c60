import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.encoders.parity import normal, random_variables
from tests.encoders.table_rows import LEVELS, assert_rows_are_independent, rows, torch_tokens
from umemma_jax.encoders.table_columns import piecewise_linear
from umemma_jax.encoders.tabular_mlp import Model
from umemma_jax.errors import UserError

MODEL = Model(levels=LEVELS, widths=(7, 6), embedding=4, bins=5)


def test_features_and_gradients_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    x = rows()
    variables = random_variables(MODEL, x)
    weights = normal(len(x["numbers"]), 6, seed=1)
    params = jax.tree.map(lambda leaf: torch.from_numpy(np.array(leaf)).requires_grad_(), variables["params"])
    features = torch_tokens(params["columns"], x, np.asarray(piecewise_linear(x["numbers"], 5))).flatten(1)
    for index, width in enumerate(MODEL.widths):
        dense, norm = params[f"dense{index}"], params[f"norm{index}"]
        features = torch.nn.functional.linear(features, dense["kernel"].T, dense["bias"])
        features = torch.nn.functional.layer_norm(features, (width,), norm["scale"], norm["bias"], 1e-6).relu()
    (features * torch.from_numpy(weights)).sum().backward()

    assert_allclose(MODEL.apply(variables, x), features.detach().numpy(), atol=1e-5)
    gradients = jax.grad(lambda variables: (MODEL.apply(variables, x) * weights).sum())(variables)["params"]
    jax.tree.map(lambda ours, theirs: assert_allclose(ours, theirs.grad.numpy(), atol=1e-4), gradients, params)


def test_a_row_does_not_depend_on_others():
    assert_rows_are_independent(MODEL)


def test_numbers_alone_and_categories_alone():
    for x, levels in ((rows() | {"categories": np.zeros((5, 0), np.int32)}, ()), (rows(columns=0), LEVELS)):
        found, variables = Model(levels=levels, widths=(6,)).init_with_output(jax.random.key(0), x)
        assert found.shape == (5, 6) and np.isfinite(found).all()
        assert all(leaf.size for leaf in jax.tree.leaves(variables))  # an empty one could not be saved


def test_at_least_one_layer_is_needed():
    with pytest.raises(UserError, match="widths is empty"):
        Model(levels=LEVELS, widths=()).init(jax.random.key(0), rows())
