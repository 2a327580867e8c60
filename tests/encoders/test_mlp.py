import jax
import numpy as np
import pytest

from umemma_jax.encoders.mlp import Model
from umemma_jax.errors import UserError


def test_layers_are_dense_layer_norm_and_relu():
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    model = Model(widths=(6, 5))
    variables = model.init(jax.random.key(0), x)
    expected = x
    for index in range(2):
        layer = variables["params"][f"dense{index}"]
        expected = expected @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
        deviation = np.sqrt(expected.var(axis=1, keepdims=True) + 1e-6)
        expected = np.maximum((expected - expected.mean(axis=1, keepdims=True)) / deviation, 0)
    np.testing.assert_allclose(model.apply(variables, x), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("widths", "shape", "message"), [((), (2, 3), "widths is empty"), ((4,), (2, 3, 1), "vectors")]
)
def test_what_it_cannot_take(widths, shape, message):
    with pytest.raises(UserError, match=message):
        Model(widths).init(jax.random.key(0), np.zeros(shape, np.float32))
