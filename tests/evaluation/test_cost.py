import jax
import numpy as np
import pytest

from tests import toy
from umemma_jax.devices import sharding
from umemma_jax.evaluation.cost import pattern_costs


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("stand_in", ["token", "mean"])
def test_a_pattern_costs_what_its_own_encoders_and_the_head_do(devices, stand_in):
    names = ("a", "b", "c")
    model = toy.model(names, stand_in=stand_in)
    mesh = sharding.make_mesh(devices=jax.devices()[:devices])
    variables = jax.device_put(toy.variables(model, names), sharding.replicated(mesh))
    costs = pattern_costs(model, mesh, variables, toy.means(names), toy.batch(16, names))
    assert set(costs) == {"a+b+c", "a+b", "a+c", "b+c", "a", "b", "c"}
    flops = {name: cost["flops"] for name, cost in costs.items()}
    encoder = flops["a+b"] - flops["a"]
    assert encoder >= 2 * toy.WIDTH * toy.FEATURES  # multiply and add of the one layer, at least
    np.testing.assert_allclose([flops["a"], flops["b"]], flops["c"])
    np.testing.assert_allclose(flops["a+b+c"], flops["a"] + 2 * encoder)
    assert flops["a"] > encoder, "the head is not for nothing"
    milliseconds = {name: cost["milliseconds"] for name, cost in costs.items()}
    assert min(milliseconds.values()) > 0 and milliseconds["a+b+c"] > milliseconds["a+b"] > milliseconds["b"]
    assert {cost["batch_size"] for cost in costs.values()} == {16}
