"""Methods that make one gradient of several: their formulas, and what each is said to do in the training step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import torch
from ml_collections import ConfigDict

from tests import toy
from tests.methods import arrays
from umemma_jax import methods, missing
from umemma_jax.config import stage_config
from umemma_jax.devices import sharding
from umemma_jax.methods import METHODS
from umemma_jax.training import steps
from umemma_jax.training.gradients import Gradients, rule_of

NAMES = ("a", "b", "c")
RNG = np.random.default_rng(0)
# A third of the rows lacks a modality by nature, and none has "c".
PRESENT = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [1, 1, 0], [1, 1, 0]] * 2, bool)


def norm(tree):
    return float(np.sqrt(sum(np.square(x).sum() for x in jax.tree.leaves(tree))))


def tree(scale=1.0):
    return {"kernel": scale * RNG.normal(size=(3, 2)).astype(np.float32), "bias": RNG.normal(size=2).astype(np.float32)}


def train(
    module, present=PRESENT, num_steps=2, parallel="jit", devices=1, accumulate=1, rate=0.1, saved=False, **changes
):
    """States after each step of a method on 12 rows, by plain SGD without clipping."""
    axis_name = sharding.AXIS if parallel == "pmap" else None
    model = toy.model(NAMES, axis_name=axis_name, norm=False, stand_in="token")
    trained = steps.trained_groups("fusion", model)
    fields = {"optimizer": "sgd", "learning_rate": rate, "momentum": 0.0, "warmup": 0.0, "weight_decay": 0.0}
    stage = ConfigDict(stage_config() | fields | {"clip": 1e6})
    settings = methods.settings(module) | changes
    spec = steps.StageSpec(
        "fusion",
        model,
        steps.make_optimizer(stage, 100, dict.fromkeys(trained, 1.0)),
        trained,
        seed=0,
        row_losses=lambda rows: module.row_losses(rows, **settings),
        rule=rule_of(module, settings),
        policy=missing.policy_from_config({"augment": False, "keep": {}}, NAMES),
        accumulate=accumulate,
    )
    mesh = sharding.make_mesh(devices=jax.devices()[:devices])
    step = sharding.compile_step(steps.make_step(spec, {}), mesh, parallel)
    states = [jax.device_get(steps.init_state(spec, toy.variables(model, NAMES)))]
    state = sharding.place(states[0], mesh)
    for number in range(num_steps):
        batch = toy.batch(len(present), NAMES, seed=number, present=present)
        state, _ = step(state, sharding.put_batch(batch, mesh))
        states.append(jax.device_get(state))
        if saved:
            state = sharding.place(states[-1], mesh)
    return states


def assert_same(found, expected):
    for part in ("params", "method"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6),
            getattr(found, part),
            getattr(expected, part),
        )


# MMPareto.


@pytest.mark.parametrize("own", [tree(), tree(3.0)])
@pytest.mark.parametrize("sign", [1, -1])
def test_mmpareto_is_the_mean_or_the_shortest_mix(sign, own):
    fused = jax.tree.map(lambda x: sign * x + 0.5 * RNG.normal(size=x.shape).astype(np.float32), own)
    f, u = (np.concatenate([x.ravel() for x in jax.tree.leaves(part)]).astype(float) for part in (fused, own))
    assert np.sign(f @ u) == sign
    share = 0.5
    if sign < 0:
        length = lambda a: np.linalg.norm(a * f + (1 - a) * u)  # noqa: E731
        share = scipy.optimize.minimize_scalar(length, bounds=(0, 1), method="bounded", options={"xatol": 1e-9}).x
    wanted = share * f + (1 - share) * u
    wanted *= 1.5 * np.linalg.norm(f + u) / np.linalg.norm(wanted)
    mixed = METHODS["mmpareto"].mix(fused, own, scale=1.5)
    found = np.concatenate([x.ravel() for x in jax.tree.leaves(mixed)])
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)
    assert found @ f > 0 and found @ u > 0  # descends both


@pytest.mark.parametrize(("fused", "own"), [(1.0, -1.0), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])
def test_mmpareto_of_opposite_or_missing_gradients_is_finite(fused, own):
    mixed = METHODS["mmpareto"].mix({"x": jnp.full(3, fused)}, {"x": jnp.full(3, own)}, scale=1.5)["x"]
    np.testing.assert_allclose(mixed, 1.5 * (fused + own) * np.ones(3), rtol=1e-6)


def test_mmpareto_leaves_what_is_no_encoder_to_the_sum():
    of = tuple({"encoders_a": tree(), "fusion": tree(), "tokens_a": tree()} for _ in range(2))
    found = Gradients(of, NAMES, {}, {}, jnp.int32(0), jax.random.key(0))
    gradient, _ = METHODS["mmpareto"].gradients(found, scale=1.5)
    for group in ("fusion", "tokens_a"):
        jax.tree.map(lambda x, a, b: np.testing.assert_allclose(x, a + b), gradient[group], of[0][group], of[1][group])
    assert norm(gradient["encoders_a"]) == pytest.approx(
        1.5 * norm(jax.tree.map(np.add, *(x["encoders_a"] for x in of)))
    )


def test_mmpareto_in_the_step_descends_both_losses():
    """By a short step on the same rows, under pmap and in microbatches too."""
    states = train(METHODS["mmpareto"], num_steps=1, rate=1e-2)
    model, batch = toy.model(NAMES, norm=False, stand_in="token"), toy.batch(12, NAMES, seed=0, present=PRESENT)
    losses = []
    for state in states:
        params = states[0].params | {group: x for group, x in state.params.items() if group.startswith("encoders")}
        outputs = model.apply({"params": params}, batch["inputs"], batch["present"])
        of = [outputs["logits"], *(outputs[f"logits/{m}"] for m in NAMES)]
        nll = -np.take_along_axis(np.array(jax.nn.log_softmax(jnp.stack(of))), batch["label"][None, :, None], 2)[..., 0]
        losses.append([nll[0].mean(), (PRESENT.T * nll[1:]).sum()])
    assert (np.array(losses[1]) < losses[0]).all()
    assert_same(
        train(METHODS["mmpareto"], num_steps=1, rate=1e-2, parallel="pmap", devices=2, accumulate=2)[1], states[1]
    )
    # No row has "c".
    jax.tree.map(np.testing.assert_array_equal, *(state.params["encoders_c"] for state in states))


# OGM-GE and AGM.


def test_ogm_ge_has_the_factors_of_ogm():
    rows = arrays.rows()
    sums = METHODS["ogm_ge"].sums(rows, alpha=0.3)
    np.testing.assert_allclose(METHODS["ogm_ge"].factors(sums, 0.3), METHODS["ogm"].factors(rows, 0.3), rtol=1e-5)


def test_ogm_ge_slows_the_leader_and_adds_noise_of_the_gradient_s_own_deviation():
    gradient = {f"encoders_{m}": {"kernel": RNG.normal(2.0, 3.0, (200, 100)).astype(np.float32)} for m in NAMES}
    sums = {"score": jnp.array([9.0, 2.0, 0.0]), "rows": jnp.array([10.0, 10.0, 0.0])}
    gradient["encoders_c"] = jax.tree.map(np.zeros_like, gradient["encoders_a"])  # no row has it
    found = Gradients((gradient,), NAMES, sums, {}, jnp.int32(0), jax.random.key(0))
    changed, _ = METHODS["ogm_ge"].gradients(found, alpha=0.3)
    for m, factor in zip(NAMES, [1 - np.tanh(0.3 * 0.9 / 0.2), 1.0, 1.0], strict=True):
        before, after = gradient[f"encoders_{m}"]["kernel"], np.array(changed[f"encoders_{m}"]["kernel"])
        added = after - factor * before
        assert added.std() == pytest.approx(before.std(), rel=0.02)
        assert abs(added.mean()) < 0.1


def agm_by_numpy(scores, alpha):
    """Factors of each step from the mean scores [steps, M]."""
    found = []
    for number in range(1, len(scores) + 1):
        mean = scores[:number].mean(axis=0)
        ratio = [np.exp(x - (x.sum() - x) / (len(x) - 1)) for x in (scores[number - 1], mean)]
        found.append(np.exp(alpha * np.minimum(ratio[1] - ratio[0], 7)))
    return np.array(found)


def test_agm_against_numpy_and_a_lead_that_grows_slows():
    scores = np.array([[-1.0, -1.2, -0.9], [-0.5, -1.2, -0.9], [-0.1, -1.3, -1.0]], np.float32)
    state, found = METHODS["agm"].state(3), []
    for score in scores:
        factors, state = METHODS["agm"].factors({"score": 5 * score, "rows": np.full(3, 5.0)}, state, alpha=1.5)
        found.append(factors)
    np.testing.assert_allclose(found, agm_by_numpy(scores, 1.5), rtol=1e-5)
    np.testing.assert_array_equal(found[0], 1.0)
    assert found[1][0] < 1 < found[1][1]


def test_agm_waits_for_a_modality_that_no_row_has():
    sums = {"score": jnp.array([-5.0, -6.0, 0.0]), "rows": jnp.array([5.0, 5.0, 0.0])}
    two = {name: x[:2] for name, x in sums.items()}
    factors, state = METHODS["agm"].factors(
        sums, {"mean": jnp.array([-2.0, -1.0, 0]), "steps": jnp.array([1.0, 1, 0])}, 1.0
    )
    expected, _ = METHODS["agm"].factors(two, {"mean": jnp.array([-2.0, -1.0]), "steps": jnp.ones(2)}, 1.0)
    np.testing.assert_allclose(factors[:2], expected, rtol=1e-6)
    assert state["steps"].tolist() == [2, 2, 0] and state["mean"][2] == 0


@pytest.mark.parametrize("name", ["ogm_ge", "agm"])
def test_modulated_gradients_are_of_the_whole_batch_and_go_on_bit_for_bit(name):
    found = train(METHODS[name])[-1]
    assert_same(train(METHODS[name], parallel="pmap", devices=2, accumulate=2)[-1], found)
    jax.tree.map(np.testing.assert_array_equal, train(METHODS[name], saved=True)[-1], found)
    assert norm(found.params["encoders_c"]) == norm(train(METHODS[name], num_steps=0)[0].params["encoders_c"])


# UMT.


def test_umt_is_the_plain_loss_and_the_distance_to_the_teachers():
    has = torch.tensor(arrays.INCOMPLETE)

    def loss(features):
        apart = [
            torch.nn.functional.mse_loss(features[m], torch.tensor(arrays.TAUGHT[m]), reduction="none") for m in NAMES
        ]
        distance = sum(has[:, index] * x.mean(1) for index, x in enumerate(apart))
        return arrays.torch_cross_entropy(arrays.torch_fused(features, arrays.INCOMPLETE)) + 20 * distance

    arrays.check(METHODS["umt"], loss, weight=20.0)


def test_umt_holds_the_encoders_at_their_teachers_which_stay():
    (first, *_, last), free = train(METHODS["umt"], num_steps=3), train(METHODS["umt"], num_steps=3, weight=0.0)[-1]
    jax.tree.map(np.testing.assert_array_equal, last.teachers, first.teachers)

    def moved(state):
        return [norm(jax.tree.map(np.subtract, state.params[m], first.params[m])) for m in ("encoders_a", "encoders_b")]

    assert (np.array(moved(last)) < moved(free)).all()
    assert_same(train(METHODS["umt"], num_steps=3, parallel="pmap", devices=2, accumulate=2)[-1], last)
