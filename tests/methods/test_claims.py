"""What each method is said to do, in a case made for it; and that the absent stays out of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.methods import arrays
from umemma_jax import methods
from umemma_jax.methods import METHODS

OWN_LOSS = [name for name in METHODS if methods.has_loss(METHODS[name])]


@pytest.mark.parametrize("name", OWN_LOSS)
def test_no_value_of_an_absent_modality_reaches_the_loss(name):
    module = METHODS[name]
    index = {m: i for i, m in enumerate(arrays.NAMES)}
    changed = {m: np.where(arrays.INCOMPLETE[:, index[m], None], x, 7.0) for m, x in arrays.FEATURES.items()}
    losses = [module.row_losses(arrays.rows(x), **methods.settings(module)) for x in (arrays.FEATURES, changed)]
    np.testing.assert_array_equal(*losses)


@pytest.mark.parametrize("name", OWN_LOSS)
def test_hyper_parameters_start_within_the_ranges_that_are_searched(name):
    module = METHODS[name]
    searched = getattr(module, "SEARCHED", {})
    assert set(searched) == set(methods.settings(module))
    for key, (least, largest) in searched.items():
        assert least <= module.DEFAULTS[key] <= largest


@pytest.mark.parametrize("name", [name for name in OWN_LOSS if not hasattr(METHODS[name], "SINGLE_LABEL")])
def test_a_row_does_not_hang_on_the_others_so_that_microbatches_are_exact(name):
    module = METHODS[name]
    if "fusion.accumulate" in getattr(module, "NEEDS", {}):
        pytest.skip("of a whole batch")
    whole = module.row_losses(arrays.rows(), **methods.settings(module))
    other = {m: np.concatenate([x[:1], 9 * x[1:]]) for m, x in arrays.FEATURES.items()}
    changed = module.row_losses(arrays.rows(other), **methods.settings(module))
    np.testing.assert_allclose(whole[0], changed[0], rtol=1e-6)


def test_ogm_slows_the_leading_modality_most():
    """The first modality tells the class, the others nothing."""
    features = {m: np.zeros((5, 3), np.float32) for m in arrays.NAMES}
    features["a"] = np.eye(4, 3, dtype=np.float32)[arrays.LABEL]
    kernels = {m: np.zeros((3, 4), np.float32) for m in arrays.NAMES} | {"a": 20 * np.eye(3, 4, dtype=np.float32)}
    factors = METHODS["ogm"].factors(arrays.rows(features, arrays.COMPLETE, kernels=kernels), alpha=0.5)
    assert factors[0] < 0.5 and factors[0] < factors[1:].min()


def test_dgl_trains_no_encoder_by_the_fused_loss():
    _, gradients = arrays.loss_and_gradients(METHODS["dgl"], weight=0.0)
    assert all((x == 0).all() for x in gradients.values())


def descend(name, measure, steps=200, rate=0.3, **settings):
    """What `measure` gives of the rows before and after descending a method's loss on the features."""

    def loss(features):
        return METHODS[name].row_losses(arrays.rows(features, arrays.COMPLETE), **settings).mean()

    step = jax.jit(lambda x: jax.tree.map(lambda a, g: a - rate * g, x, jax.grad(loss)(x)))
    features = arrays.FEATURES
    for _ in range(steps):
        features = step(features)
    return measure(arrays.rows(features, arrays.COMPLETE))


def test_cml_leaves_less_confidence_that_rises_when_a_modality_goes():
    def rise(rows):
        by_weight = [METHODS["cml"].row_losses(rows, weight=weight).mean() for weight in (1.0, 0.0)]
        return float(by_weight[0] - by_weight[1])

    assert descend("cml", rise, steps=5, weight=3.0) < 0.5 * descend("cml", rise, steps=5, weight=0.0)


def test_simultaneous_dropout_lowers_the_loss_of_every_modality_alone():
    def worst(rows):
        return float(jnp.stack([rows.loss(rows.alone(index), rows.label).mean() for index in range(3)]).max())

    assert descend("simultaneous", worst) < descend("multi_loss", worst, weight=0.0) - 0.1


def test_ranking_pushes_the_loss_of_all_below_that_of_fewer():
    def violation(rows):
        whole = rows.loss(rows.logits, rows.label)
        parts = [rows.loss(rows.fuse(jnp.arange(3) != index), rows.label) for index in range(3)]
        return float(sum(jax.nn.relu(whole - part).mean() for part in parts))

    assert descend("ranking", violation, steps=5, weight=10.0) < descend("ranking", violation, steps=5, weight=0.0)
