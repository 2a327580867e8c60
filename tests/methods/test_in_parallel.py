"""Methods' losses under pmap, on several devices, in microbatches and layouts, and from a state that was saved.

All that allow it at once, as the sum of their losses: one compilation, and what is wrong with any shows.
"""

import functools

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from tests import toy
from umemma_jax import methods, missing
from umemma_jax.config import stage_config
from umemma_jax.devices import sharding
from umemma_jax.methods import METHODS
from umemma_jax.training import steps
from umemma_jax.training.gradients import Rule

NAMES, ROWS, PARTS = ("a", "b"), 48, 4  # 3 patterns, on 4 devices or in 4 microbatches
POLICY = missing.policy_from_config({"augment": True, "keep": {}}, NAMES)
OWN = [METHODS[name] for name in METHODS if methods.has_loss(METHODS[name]) and not hasattr(METHODS[name], "LOSSES")]
OF_ROWS = [module for module in OWN if "parallel" not in getattr(module, "NEEDS", {})]
OF_BATCHES = [module for module in OWN if module not in OF_ROWS]


def all_losses(modules, rows):
    return sum(module.row_losses(rows, **methods.settings(module)) for module in modules)


def batch(number):
    present = np.random.default_rng(number).random((ROWS, len(NAMES))) < 0.8
    present[~present.any(axis=1), 0] = True
    return toy.batch(ROWS, NAMES, seed=number, present=present, padding=5)


def described(modules, parallel="jit", layout="random", accumulate=1, devices=1):
    axis_name = sharding.AXIS if parallel == "pmap" else None
    model = toy.model(NAMES, axis_name=axis_name, norm=False, preprocess=toy.jitter, stand_in="token", dropout=0.2)
    trained = steps.trained_groups("fusion", model)
    stage = ConfigDict(stage_config() | {"optimizer": "sgd", "learning_rate": 0.1})
    apart = accumulate * (devices if parallel == "pmap" else 1)
    rows, parts = ROWS // apart, PARTS // apart
    return steps.StageSpec(
        "fusion",
        model,
        steps.make_optimizer(stage, 3, dict.fromkeys(trained, 1.0)),
        trained,
        seed=0,
        row_losses=functools.partial(all_losses, modules),
        rule=Rule(teachers=True),
        policy=POLICY,
        layout=missing.stratified_layout(POLICY, rows, parts) if layout == "stratified" else None,
        incomplete_data=True,
        accumulate=accumulate,
    )


@functools.cache
def compiled(which, parallel="jit", devices=1, layout="random", accumulate=1):
    """The first state, on the host, the mesh and the step."""
    spec = described({"of rows": OF_ROWS, "of batches": OF_BATCHES}[which], parallel, layout, accumulate, devices)
    mesh = sharding.make_mesh(devices=jax.devices()[:devices])
    state = jax.device_get(steps.init_state(spec, toy.variables(spec.model, NAMES)))
    return state, mesh, sharding.compile_step(steps.make_step(spec, {}), mesh, parallel)


@functools.cache
def train(*case, saved=False, **way):
    """The state after three steps on incomplete rows; `saved`: it was on the host between them."""
    state, mesh, step = compiled(*case, **way)
    state = sharding.place(state, mesh)
    for number in range(3):
        state, _ = step(state, sharding.put_batch(batch(number), mesh))
        if saved:
            state = sharding.place(jax.device_get(state), mesh)
    return jax.device_get(state)


def assert_same(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=3e-6), found.params, expected.params)


@pytest.mark.parametrize("layout", ["random", "stratified"])
def test_rows_train_the_same_under_pmap_and_in_microbatches(layout):
    parts = train("of rows", "pmap", 2, layout, accumulate=2)
    assert_same(parts, train("of rows", layout=layout))


def test_methods_of_a_whole_batch_train_the_same_on_four_devices():
    assert_same(train("of batches", devices=PARTS), train("of batches"))


def test_a_state_that_was_saved_goes_on_bit_for_bit():
    jax.tree.map(np.testing.assert_array_equal, train("of batches", saved=True), train("of batches"))
