"""A method's loss in the training step: it takes the place of the plain one, and microbatches add up to the batch."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from tests import toy
from umemma_jax import missing
from umemma_jax.config import stage_config
from umemma_jax.devices import sharding
from umemma_jax.methods import METHODS
from umemma_jax.training import steps

POLICY = missing.policy_from_config({"augment": True, "keep": {}}, ("a", "b"))


def parameters(row_losses, accumulate=1):
    """After one step from the same start, on 12 rows of which some lack a modality."""
    model = toy.model(stand_in="token", norm=False)
    trained = steps.trained_groups("fusion", model)
    optimizer = steps.make_optimizer(ConfigDict(stage_config()), 12, dict.fromkeys(trained, 1.0))
    spec = steps.StageSpec(
        "fusion", model, optimizer, trained, seed=0, policy=POLICY, row_losses=row_losses, accumulate=accumulate
    )
    state = steps.init_state(spec, toy.variables(model))
    step = jax.jit(lambda state, batch: steps.make_step(spec, {})(state, batch, sharding.Devices()))
    for number in range(2):
        state, _ = step(state, toy.batch(12, seed=number, padding=1))
    return jax.device_get(state.params)


def test_the_plain_loss_written_as_a_method_trains_the_same():
    plain, hook = parameters(None), parameters(lambda rows: rows.loss(rows.logits, rows.label))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), plain, hook)


@pytest.mark.parametrize("name", ["simultaneous", "modality_dropout"])
def test_microbatches_add_up_to_the_batch(name):
    def row_losses(rows):
        return METHODS[name].row_losses(rows, **getattr(METHODS[name], "DEFAULTS", {}))

    whole, parts = (parameters(row_losses, accumulate) for accumulate in (1, 3))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), whole, parts)
