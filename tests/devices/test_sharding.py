import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from tests import toy
from umemma_jax import missing
from umemma_jax.config import stage_config
from umemma_jax.devices import sharding
from umemma_jax.errors import UserError
from umemma_jax.training import steps
from umemma_jax.training.losses import ClassLoss

NAMES = ("a", "b")
ROWS = 24
POLICY = missing.policy_from_config({"augment": True, "keep": {}}, NAMES)


def mesh_of(count, fsdp=1):
    return sharding.make_mesh(fsdp, jax.devices()[:count])


def train(
    parallel, devices, stage="fusion", layout="random", incomplete=False, num_steps=5, padding=5, fits=True, fsdp=1
):
    """Parameters and losses after a few steps of the toy model on `devices` simulated devices."""
    mesh = mesh_of(devices, fsdp)
    seen = ROWS // devices if parallel == "pmap" else ROWS
    shards = 1 if parallel == "pmap" else devices
    model = toy.model(
        axis_name=sharding.AXIS if parallel == "pmap" else None, preprocess=toy.jitter, stand_in="token", dropout=0.2
    )
    trained = steps.trained_groups(stage, model)
    config = ConfigDict(stage_config())
    spec = steps.StageSpec(
        name=stage,
        model=model,
        optimizer=steps.make_optimizer(config, num_steps, dict.fromkeys(trained, 1.0)),
        trained=trained,
        seed=0,
        loss=ClassLoss(label_smoothing=0.1),
        policy=POLICY,
        # Laid out for 4 devices in any case, so that 1 and 4 devices draw the same masks.
        layout=missing.stratified_layout(POLICY, seen, 4 if parallel == "jit" else shards)
        if layout == "stratified"
        else None,
        incomplete_data=incomplete,
    )
    state = sharding.place(steps.init_state(spec, toy.variables(model)), mesh)
    placed = jax.tree.map(lambda x: x.sharding, state)
    step = sharding.compile_step(steps.make_step(spec, toy.means()), mesh, parallel)
    losses = []
    for number in range(num_steps):
        state, metrics = step(state, sharding.put_batch(data(number, incomplete, padding, fits), mesh))
        losses.append(float(metrics["loss"]))
    assert jax.tree.all(jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), state, placed))
    return jax.device_get((state.params, state.batch_stats)), losses, step.compilations


def data(number, incomplete, padding, fits):
    present = np.ones((ROWS, 2), bool)
    if incomplete:
        present[np.random.default_rng(number).permutation(ROWS)[:8], 0] = False
        if fits:
            present = present[missing.arrange(present, missing.stratified_layout(POLICY, ROWS, 4))]
    return toy.batch(ROWS, seed=number, present=present, padding=padding)


@pytest.mark.parametrize("stage", ["unimodal", "fusion"])
@pytest.mark.parametrize("layout", ["random", "stratified"])
def test_four_devices_by_jit_and_by_pmap_train_the_same_parameters_as_one(stage, layout):
    one, losses, _ = train("jit", 1, stage, layout)
    for parallel in ("jit", "pmap"):
        four, four_losses, traces = train(parallel, 4, stage, layout)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6), four, one)
        np.testing.assert_allclose(four_losses, losses, rtol=1e-5)
        assert traces == 1


@pytest.mark.parametrize("stage", ["unimodal", "fusion"])
def test_devices_that_share_a_copy_of_the_parameters_train_the_same(stage, monkeypatch):
    monkeypatch.setattr(sharding, "MIN_SPLIT", 1)
    one, losses, _ = train("jit", 1, stage, "stratified")
    for fsdp in (2, 4):
        four, four_losses, compilations = train("jit", 4, stage, "stratified", fsdp=fsdp)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6), four, one)
        np.testing.assert_allclose(four_losses, losses, rtol=1e-5)
        assert compilations == 1


def test_large_arrays_are_split_along_their_longest_axis_that_divides():
    mesh = mesh_of(4, fsdp=2)
    shapes = {"kernel": (256, 128), "odd": (257, 130), "bias": (256,), "step": (), "conv": (3, 3, 64, 96)}
    found = sharding.place(jax.tree.map(np.zeros, shapes, is_leaf=lambda x: isinstance(x, tuple)), mesh)
    parts = {name: x.addressable_shards[0].data.shape for name, x in found.items()}
    expected = {"kernel": (128, 128), "odd": (257, 65), "bias": (256,), "step": (), "conv": (3, 3, 64, 48)}
    assert parts == expected
    assert {name: x.shape for name, x in sharding.fetch(found).items()} == shapes


def test_devices_that_cannot_share_evenly():
    with pytest.raises(UserError, match=r"config\.fsdp = 3 does not divide 4 devices"):
        sharding.make_mesh(3)


@pytest.mark.parametrize("fits", [True, False])
def test_naturally_incomplete_batches_agree_too_with_and_without_rows_that_do_not_fit(fits):
    # Padding rows have nothing and fit nowhere: with padding, every batch takes the full path.
    arguments = {"layout": "stratified", "incomplete": True, "padding": 0, "fits": fits}
    one, losses, _ = train("jit", 1, **arguments)
    for parallel in ("jit", "pmap"):
        four, four_losses, _ = train(parallel, 4, **arguments)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6), four, one)
        np.testing.assert_allclose(four_losses, losses, rtol=1e-5)


def test_a_masked_mean_is_that_of_the_global_batch_not_a_mean_of_device_means():
    """The documented trap: 8 examples on 4 devices, 1.75 by pmean of means, 2.0 in truth."""
    x = np.array([1.0, 1.0, 2.0, 5.0, 3.0, 7.0, 1.0, 9.0], np.float32)
    weight = np.array([1, 1, 1, 0, 1, 0, 0, 0], np.float32)

    def step(state, batch, devices):
        total = devices.total((batch["x"] * batch["weight"]).sum())
        return state, total / devices.total(batch["weight"].sum())

    for parallel in ("jit", "pmap"):
        run = sharding.compile_step(step, mesh_of(4), parallel)
        _, mean = run(jnp.zeros(()), sharding.put_batch({"x": x, "weight": weight}, mesh_of(4)))
        np.testing.assert_allclose(mean, np.average(x, weights=weight), rtol=1e-6)


def test_stratified_rows_stay_on_their_device():
    """Taking the computed rows and putting the features back needs no communication between devices."""
    mesh = mesh_of(4)
    layout = missing.stratified_layout(POLICY, ROWS, 4)
    rows = sharding.by_rows(mesh)
    function = jax.jit(lambda x: layout.put(2 * layout.take(x, 0), 0), in_shardings=rows, out_shardings=rows)
    text = function.lower(jnp.zeros((ROWS, 7))).compile().as_text()
    assert not any(name in text for name in ("all-gather", "all-to-all", "collective-permute", "all-reduce"))


def test_batch_that_does_not_divide_names_field_and_remedy():
    with pytest.raises(UserError, match=r"config\.data\.batch_size = 6 .* multiple of 4"):
        sharding.check_batch_size(6, mesh_of(4), "data.batch_size")
    sharding.check_batch_size(8, mesh_of(4), "data.batch_size")


def test_optimizer_warms_up_decays_to_zero_and_clips_each_group():
    config = ConfigDict(stage_config() | {"optimizer": "sgd", "momentum": 0.0, "clip": 1.0, "learning_rate": 0.5})
    optimizer = steps.make_optimizer(config, 100, {"a": 1.0, "b": 0.1})
    params = {"a": {"w": jnp.zeros((2, 2))}, "b": {"w": jnp.zeros((2, 2))}}
    gradients = {"a": {"w": jnp.full((2, 2), 100.0)}, "b": {"w": jnp.full((2, 2), 0.1)}}
    state, rates = optimizer.init(params), []
    for _ in range(100):
        updates, state = optimizer.update(gradients, state, params)
        rates.append((optax.tree.norm(updates["a"]), optax.global_norm(updates["b"])))
    a, b = np.array(rates).T
    assert a.argmax() == 10 and a[0] == 0 and a[-1] < 1e-3
    np.testing.assert_allclose(a.max(), 0.5, rtol=1e-5)  # clipped to norm 1, times the rate
    np.testing.assert_allclose(b, a * 0.1 * 0.2, rtol=1e-4, atol=1e-9)  # scale 0.1, norm 0.2: not clipped by a's
