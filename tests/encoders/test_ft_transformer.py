import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.encoders.parity import normal, random_variables
from tests.encoders.table_rows import LEVELS, assert_rows_are_independent, rows, torch_tokens
from umemma_jax.encoders.ft_transformer import EPSILON, Model
from umemma_jax.errors import UserError

WIDTH, HEADS = 6, 2
MODEL = Model(levels=LEVELS, width=WIDTH, depth=2, heads=HEADS, mlp_width=8)


def attention(torch, params, x):
    """Softmax of the scaled products of queries and keys, times the values, head by head."""
    query, key, value = (x @ params[name]["kernel"] + params[name]["bias"] for name in ("query", "key", "value"))
    heads = [
        torch.softmax(q @ k.transpose(1, 2) / (WIDTH / HEADS) ** 0.5, dim=-1) @ v
        for q, k, v in zip(*(part.split(WIDTH // HEADS, dim=-1) for part in (query, key, value)), strict=True)
    ]
    return torch.cat(heads, dim=-1) @ params["out"]["kernel"] + params["out"]["bias"]


def features_of(torch, params, x):
    """The formula: tokens, layers that normalise what enters attention and MLP, and the first token."""

    def norm(params, x):
        return torch.nn.functional.layer_norm(x, (WIDTH,), params["scale"], params["bias"], EPSILON)

    columns = torch_tokens(params["columns"], x, x["numbers"][..., None])
    tokens = torch.cat([params["summary"].expand(len(columns), -1, -1), columns], dim=1)
    for index in range(MODEL.depth):
        layer = params["transformer"][f"layer{index}"]
        tokens = tokens + attention(torch, layer["attention"], norm(layer["norm1"], tokens))
        up, down = layer["mlp"]["up"], layer["mlp"]["down"]
        hidden = (norm(layer["norm2"], tokens) @ up["kernel"] + up["bias"]).relu()
        tokens = tokens + hidden @ down["kernel"] + down["bias"]
    return norm(params["norm"], tokens[:, 0]).relu()


def test_features_and_gradients_are_those_of_the_formula():
    torch = pytest.importorskip("torch")
    x = rows()
    variables = random_variables(MODEL, x)
    weights = normal(len(x["numbers"]), WIDTH, seed=1)
    params = jax.tree.map(lambda leaf: torch.from_numpy(np.array(leaf)).requires_grad_(), variables["params"])
    features = features_of(torch, params, x)
    (features * torch.from_numpy(weights)).sum().backward()

    assert_allclose(MODEL.apply(variables, x), features.detach().numpy(), atol=1e-5)
    gradients = jax.jit(jax.grad(lambda variables: (MODEL.apply(variables, x) * weights).sum()))(variables)["params"]
    jax.tree.map(lambda ours, theirs: assert_allclose(ours, theirs.grad.numpy(), atol=1e-4), gradients, params)


def test_a_row_does_not_depend_on_others():
    assert_rows_are_independent(MODEL)


def test_the_width_is_divided_among_the_heads():
    with pytest.raises(UserError, match="width 6 is no multiple of 4 heads"):
        Model(levels=LEVELS, width=6, heads=4).init(jax.random.key(0), rows())
