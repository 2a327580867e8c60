import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from tests import toy
from umemma_jax import missing, sharding, steps
from umemma_jax.config import stage_config
from umemma_jax.model import encoder_module

POLICY = missing.policy_from_config({"augment": True, "keep": {}}, ("a", "b"))
ROWS, STEPS = 12, 12


def spec(stage, **fields):
    model = toy.model(stand_in="token")
    trained = steps.trained_groups(stage, model)
    optimizer = steps.make_optimizer(ConfigDict(stage_config()), STEPS, dict.fromkeys(trained, 1.0))
    return steps.StageSpec(stage, model, optimizer, trained, seed=0, policy=POLICY, **fields)


def states(stage, **fields):
    """The state before the first step, and after each one, on the host."""
    described = spec(stage, **fields)
    state = steps.init_state(described, toy.variables(described.model))
    step = jax.jit(lambda state, batch: steps.make_step(described, {})(state, batch, sharding.Devices()))
    found = [jax.device_get(state)]
    for number in range(STEPS):
        state, _ = step(state, toy.batch(ROWS, seed=number))
        found.append(jax.device_get(state))
    return found


@pytest.mark.parametrize("stage", ["unimodal", "fusion"])
@pytest.mark.parametrize("ema", [0.15, 0.9])
def test_the_moving_average_is_that_of_the_parameters(stage, ema):
    first, *rest = states(stage, ema=ema)
    average = {group: first.params[group] for group in first.average}
    for number, state in enumerate(rest):
        decay = min(ema, (1 + number) / (10 + number))
        trained = {group: state.params[group] for group in average}
        average = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, average, trained)  # noqa: B023
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state.average, average)
    evaluated = steps.variables_to_evaluate(rest[-1])["params"]
    assert set(evaluated) == set(first.params)
    assert np.array_equal(
        evaluated["encoders_a"]["Dense_0"]["kernel"], rest[-1].average["encoders_a"]["Dense_0"]["kernel"]
    )


def test_the_average_changes_what_is_evaluated_and_not_what_is_trained():
    plain, averaged = states("fusion")[-1], states("fusion", ema=0.9)[-1]
    jax.tree.map(np.testing.assert_array_equal, plain.params, averaged.params)
    assert plain.average == {}
    kernels = [steps.variables_to_evaluate(state)["params"]["fusion"] for state in (plain, averaged)]
    assert not np.allclose(*(jax.tree.leaves(kernel)[0] for kernel in kernels))


def test_the_best_epoch_is_kept_as_it_was_evaluated():
    state = states("unimodal", ema=0.9)[-1]
    kept = steps.keep_best(state, {"a": 0.5, "b": 0.5}, 1).best["a"]["params"]
    jax.tree.map(np.testing.assert_array_equal, kept["encoders_a"], state.average["encoders_a"])


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("scan", [False, True])
def test_weight_decay_acts_on_kernels_alone_and_on_every_one(optimizer, scan):
    """Without any gradient, an update is the decay: 1x1 convolutions have one, stacked biases do not."""
    vit = encoder_module("vit").Model(patch=2, width=8, depth=2, heads=2, scan=scan)
    resnet = encoder_module("resnet").Model(depth=50, width=4)
    params = {
        "encoders_a": vit.init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)))["params"],
        "encoders_b": resnet.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"],
        "tokens_a": {"feature": jnp.zeros((1, 8))},
    }
    params = jax.tree.map(lambda x: x + 1.0, params)
    stage = ConfigDict({**stage_config(), "optimizer": optimizer, "weight_decay": 0.1, "warmup": 0.0})
    made = steps.make_optimizer(stage, STEPS, dict.fromkeys(params, 1.0))
    updates, _ = made.update(jax.tree.map(jnp.zeros_like, params), made.init(params), params)
    changed = flax.traverse_util.flatten_dict(jax.tree.map(lambda x: bool(jnp.any(x != 0)), updates), sep="/")
    assert {path.rpartition("/")[2] for path, has in changed.items() if has} == {"kernel", "grid"}
    assert all(has for path, has in changed.items() if path.endswith("/kernel"))
