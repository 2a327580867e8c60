import dataclasses
import functools
import itertools

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from tests import toy
from umemma_jax import config as config_lib
from umemma_jax import missing
from umemma_jax.config import stage_config
from umemma_jax.devices import sharding
from umemma_jax.errors import UserError
from umemma_jax.model import LateFusion, Tower, encoder_module
from umemma_jax.training import steps

POLICY = missing.policy_from_config({"augment": True, "keep": {}}, ("a", "b"))
NEVER = missing.policy_from_config({"augment": False, "keep": {}}, ("a", "b"))
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
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-8), plain.params, averaged.params)
    assert plain.average == {}
    kernels = [steps.variables_to_evaluate(state)["params"]["fusion"] for state in (plain, averaged)]
    assert not np.allclose(*(jax.tree.leaves(kernel)[0] for kernel in kernels))


def test_the_best_epoch_is_kept_as_it_was_evaluated():
    state = states("unimodal", ema=0.9)[-1]
    kept = steps.keep_best(state, {"a": 0.5, "b": 0.5}, 1).best["a"]["params"]
    jax.tree.map(np.testing.assert_array_equal, kept["encoders_a"], state.average["encoders_a"])


def test_of_epochs_that_no_score_compares_the_last_is_kept():
    first, *_, last = states("unimodal")
    nan = np.float32(np.nan)
    kept = steps.keep_best(first, {"a": 0.5, "b": nan}, 1)
    kept = steps.keep_best(last.replace(best=kept.best), {"a": 0.4, "b": nan}, 2)
    assert {m: int(best["epoch"]) for m, best in kept.best.items()} == {"a": 1, "b": 2}
    for state, name in ((first, "a"), (last, "b")):
        encoder = f"encoders_{name}"
        jax.tree.map(np.testing.assert_array_equal, kept.best[name]["params"][encoder], state.params[encoder])


def test_an_epoch_is_better_if_its_score_is_higher_or_nothing_is_known():
    state = steps.init_state(spec("unimodal"), toy.variables(toy.model(stand_in="token")))
    waited = []
    for epoch, score in enumerate([0.5, 0.4, 0.5, 0.6, 0.6, np.nan, 0.1], start=1):
        state = steps.keep_best(state, {"a": np.float32(score), "b": np.float32(0.1)}, epoch)
        waited.append(steps.epochs_without_better(state, epoch))
    assert waited == [0, 1, 2, 0, 1, 0, 0]  # nothing is less than what is unknown


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("scan", [False, True])
def test_weight_decay_acts_on_kernels_alone_and_on_every_one(optimizer, scan):
    """Without any gradient, an update is the decay: 1x1 convolutions have one, stacked biases do not."""
    parts = {"registers": 2, "layer_scale": True, "gated": True}
    vit = encoder_module("vit").Model(patch=2, width=8, depth=2, heads=2, scan=scan, **parts)
    resnet = encoder_module("resnet").Model(depth=50, width=4)
    shapes = {
        "encoders_a": jax.eval_shape(vit.init, jax.random.key(0), jnp.zeros((1, 4, 4, 3)))["params"],
        "encoders_b": jax.eval_shape(resnet.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"],
        "tokens_a": {"feature": jnp.zeros((1, 8))},
    }
    params = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes)
    stage = ConfigDict({**stage_config(), "optimizer": optimizer, "weight_decay": 0.1, "warmup": 0.0})
    made = steps.make_optimizer(stage, STEPS, dict.fromkeys(params, 1.0))
    updates, _ = jax.jit(made.update)(jax.tree.map(np.zeros_like, params), jax.jit(made.init)(params), params)
    changed = flax.traverse_util.flatten_dict(jax.tree.map(lambda x: bool(np.any(x != 0)), updates), sep="/")
    assert {path.rpartition("/")[2] for path, has in changed.items() if has} == {"kernel", "grid"}
    assert all(has for path, has in changed.items() if path.endswith("/kernel"))


@pytest.mark.parametrize("stage", ["unimodal", "fusion"])
def test_a_row_counts_by_its_weight_and_not_at_all_without_one(stage):
    """As often as it is repeated, in a loss that divides by the rows that count."""
    described = dataclasses.replace(spec(stage), model=toy.model(norm=False, stand_in="token"), policy=NEVER)
    variables = toy.variables(described.model)
    times = np.array([2, 0, 1, 3, 0, 2])
    batch = toy.batch(len(times))
    weighted = {**batch, "weight": times.astype(np.float32)}
    repeated = jax.tree.map(lambda x: np.repeat(x, times, axis=0), batch)
    gradients, losses = [], []
    for rows in (weighted, repeated):
        state = steps.init_state(described, variables)
        shares = steps._shares(described, rows, sharding.Devices())
        keys = jax.random.split(jax.random.key(0), len(rows["weight"]))
        rows = {**rows, "share": shares, "keys": keys}
        compute = jax.jit(functools.partial(steps._gradients, described, {}), static_argnums=3)
        _, gradient, metrics = compute(state.params, {}, rows, sharding.Devices())
        gradients.append(gradient)
        losses.append(metrics["loss"])
    mean_weight = times.sum() / (times > 0).sum()
    np.testing.assert_allclose(losses[0], mean_weight * losses[1], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, mean_weight * b, rtol=1e-4, atol=1e-6), *gradients)


# Microbatches and compaction: the same result by other programs.

PARTS = 8  # 4 devices x 2 microbatches, of 6 rows each


@functools.cache
def run(
    parallel="jit",
    devices=1,
    stage="fusion",
    layout="random",
    accumulate=1,
    capacities=(),
    norm=False,
    lacking=False,
    preprocess=toy.jitter,
    garbage=0.0,
):
    """Parameters, statistics and metrics of a few steps of SGD on 48 rows, the last 5 of which are padding.

    By SGD, since Adam makes steps out of rounding noise, and hides a factor on the gradients. The masks are those of
    PARTS parts of the batch in any case, so that all ways to compute them have the same ones.
    """
    axis_name = sharding.AXIS if parallel == "pmap" else None
    model = toy.model(axis_name=axis_name, norm=norm, preprocess=preprocess, stand_in="token", dropout=0.2)
    trained = steps.trained_groups(stage, model)
    stage_fields = ConfigDict(stage_config() | {"optimizer": "sgd", "learning_rate": 0.1})
    optimizer = steps.make_optimizer(stage_fields, 5, dict.fromkeys(trained, 1.0))
    rows, parts = 48 // accumulate, PARTS // accumulate
    if parallel == "pmap":
        rows, parts = rows // devices, parts // devices
    described = steps.StageSpec(
        name=stage,
        model=model,
        optimizer=optimizer,
        trained=trained,
        seed=0,
        policy=POLICY,
        layout=missing.stratified_layout(POLICY, rows, parts) if layout == "stratified" else None,
        incomplete_data=lacking,
        capacities=capacities,
        accumulate=accumulate,
    )
    mesh = sharding.make_mesh(devices=jax.devices()[:devices])
    state = jax.device_put(steps.init_state(described, toy.variables(model)), sharding.replicated(mesh))
    step = sharding.compile_step(steps.make_step(described, {}), mesh, parallel)
    losses = []
    for number in range(5):
        batch = toy.batch(48, seed=number, present=incomplete()[number] if lacking else None, padding=5)
        for index, x in enumerate(batch["inputs"].values()):
            x[~batch["present"][:, index]] = garbage
        state, metrics = step(state, sharding.put_batch(batch, mesh))
        losses.append({name: float(value) for name, value in metrics.items()})
    return jax.device_get((state.params, state.batch_stats, losses))


def incomplete():
    """Presence of 5 batches: in steps 0, 2 and 4 a third of every part's rows lacks one modality, in turns."""
    present = np.ones((5, PARTS, 6, 2), bool)
    present[::2, :, 1, 0] = present[::2, :, 4, 1] = False
    return present.reshape(5, 48, 2)


def assert_same(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6), found, expected)


CASES = [
    ("unimodal", "random", True),
    ("fusion", "random", False),
    ("fusion", "random", True),
    ("fusion", "stratified", True),
]


@pytest.mark.parametrize(("stage", "layout", "lacking"), [*CASES, ("fusion", "stratified", False)])
@pytest.mark.parametrize(("parallel", "devices"), [("jit", 1), ("jit", 4), ("pmap", 4)])
def test_microbatches_train_the_parameters_of_the_whole_batch(parallel, devices, stage, layout, lacking):
    """Padding and natural absences leave the microbatches other counts: a mean of their means would not do."""
    case = {"stage": stage, "layout": layout, "lacking": lacking}
    assert_same(run(parallel, devices, **case, accumulate=2), run(**case))


def test_batch_norm_sees_one_microbatch_after_the_other():
    model = toy.model(stand_in="token")
    described = spec("fusion", accumulate=2)
    variables, batch = toy.variables(model), toy.batch(ROWS, present=np.tile([True, False], (ROWS, 1)))
    state = steps.init_state(described, variables)
    state, _ = jax.jit(lambda state, batch: steps.make_step(described, {})(state, batch, sharding.Devices()))(
        state, batch
    )
    expected = variables
    for half in (slice(0, ROWS // 2), slice(ROWS // 2, ROWS)):
        _, updates = model.apply(
            expected,
            {name: x[half] for name, x in batch["inputs"].items()},
            batch["present"][half],
            train=True,
            mutable=["batch_stats"],
        )
        expected = {**expected, **updates}
    assert_same(state.batch_stats, expected["batch_stats"])


def lenet_spec(**fields):
    """Two small LeNets, whose activations outweigh all else."""
    encoder = functools.partial(encoder_module("lenet").Model, channels=8, layers=1)
    model = LateFusion(tuple(Tower(name, toy.identity, encoder) for name in "ab"), toy.CLASSES)
    trained = steps.trained_groups("fusion", model)
    optimizer = steps.make_optimizer(ConfigDict(stage_config()), STEPS, dict.fromkeys(trained, 1.0))
    return steps.StageSpec("fusion", model, optimizer, trained, seed=0, policy=POLICY, **fields)


def compiled(described, rows, devices=1):
    """The step on zeros of 24 x 24 pixels."""
    images = np.zeros((rows, 24, 24, 1), np.float32)
    batch = toy.batch(rows) | {"inputs": {"a": images, "b": images}}
    mesh = sharding.make_mesh(devices=jax.devices()[:devices])
    state = steps.init_state(described, steps.init_variables(described.model, batch, 0, {}))
    state, batch = jax.device_put(state, sharding.replicated(mesh)), sharding.put_batch(batch, mesh)
    return sharding.compile_step(steps.make_step(described, {}), mesh, "jit").lower(state, batch).compile()


def test_microbatches_need_the_memory_of_one():
    whole, parts = (compiled(lenet_spec(accumulate=count), 128).memory_analysis() for count in (1, 8))
    assert parts.temp_size_in_bytes < whole.temp_size_in_bytes / 4


@pytest.mark.parametrize(
    "fields", [{"accumulate": 2}, {"capacities": ((5, 6),)}, {"capacities": ((2, 3),), "accumulate": 2}]
)
def test_no_row_leaves_its_device(fields):
    """Only sums over all rows cross: of gradients, losses and statistics."""
    text = compiled(lenet_spec(**fields), 32, devices=4).as_text()
    assert "all-reduce" in text
    assert not any(name in text for name in ("all-gather", "all-to-all", "collective-permute", "reduce-scatter"))


@pytest.mark.parametrize(("stage", "layout", "lacking"), CASES)
@pytest.mark.parametrize(
    ("parallel", "devices", "accumulate"), [("jit", 1, 1), ("jit", 4, 1), ("pmap", 4, 1), ("jit", 4, 2)]
)
def test_compaction_changes_no_result(parallel, devices, accumulate, stage, layout, lacking):
    """Batch norm included; of the steps some fit the first capacities, some the second ones, some none."""
    case = {"stage": stage, "layout": layout, "lacking": lacking, "accumulate": accumulate, "norm": True}
    rows = 48 // devices // accumulate
    capacities = ((rows * 2 // 3, rows * 2 // 3), (rows * 5 // 6, rows * 5 // 6))
    # Of several devices, a microbatch has other rows than of one, and batch norm other statistics.
    plain = run(**case) if accumulate == 1 else run(parallel, devices, **case)
    assert_same(run(parallel, devices, **case, capacities=capacities), plain)


def test_encoders_run_on_the_first_capacity_that_holds():
    """Uni-modal stage, two of twelve rows lack a modality in every other step; the padding rows never count."""
    sizes = []

    def counted(raw, keys=None, train=False):
        jax.debug.callback(sizes.append, len(raw))
        return raw

    run(stage="unimodal", lacking=True, preprocess=counted, capacities=((30, 30), (40, 41)))
    jax.effects_barrier()
    sizes = sorted(int(size) for size in sizes if size != 2)  # the model starts from 2 rows
    lacking = incomplete()[:, : 48 - 5].sum(axis=1)
    assert [count.tolist() for count in lacking] == [[36, 36], [43, 43], [36, 36], [43, 43], [36, 36]]
    assert sizes == sorted([40, 41, 48, 48, 40, 41, 48, 48, 40, 41])


@pytest.mark.parametrize(("stage", "layout"), [("unimodal", "random"), ("fusion", "random"), ("fusion", "stratified")])
def test_no_value_of_an_absent_row_gets_past_compaction(stage, layout):
    arguments = {"stage": stage, "layout": layout, "lacking": True, "capacities": ((40, 40),), "norm": True}
    clean, dirty = run(**arguments), run(**arguments, garbage=np.nan)
    jax.tree.map(np.testing.assert_array_equal, dirty, clean)


def test_a_step_whose_positions_say_it_all_has_no_branches():
    layout = missing.stratified_layout(POLICY, 12)
    assert "conditional(" not in compiled(lenet_spec(layout=layout), 12).as_text()
    assert "conditional(" in compiled(lenet_spec(capacities=((8, 8),)), 12).as_text()


@pytest.mark.parametrize("stage", ["unimodal", "fusion"])
def test_batch_that_does_not_divide_into_microbatches_names_field_and_remedy(stage):
    config = ConfigDict({"data": {"batch_size": 20}, "unimodal": stage_config(), "fusion": stage_config()})
    config_lib.check_accumulation(config, 4)
    config[stage].accumulate = 2
    message = rf"config\.{stage}\.accumulate = 2 on 4 device.*batch_size = 20 does not divide.*multiple of 8"
    with pytest.raises(UserError, match=message) as error:
        config_lib.check_accumulation(config, 4)
    assert "\n" not in str(error.value)


# Moments in half precision.


def slots(optimizer, moments):
    """The optimiser's state for a kernel of 64 x 64, by dtype: how many arrays of the kernel's shape there are."""
    stage = ConfigDict({**stage_config(), "optimizer": optimizer, "moments": moments})
    params = {"encoders_a": {"kernel": jnp.zeros((64, 64))}}
    state = steps.make_optimizer(stage, STEPS, {"encoders_a": 1.0}).init(params)
    bytes_of_kernel = 4 * 64 * 64
    arrays = [x for x in jax.tree.leaves(state) if x.shape == (64, 64)]
    share = sum(x.nbytes for x in jax.tree.leaves(state)) / bytes_of_kernel
    return sorted(str(x.dtype) for x in arrays), share


def test_first_moments_in_bfloat16_take_half_the_memory():
    found = {key: slots(*key) for key in itertools.product(("adamw", "sgd"), ("float32", "bfloat16"))}
    assert {key: dtypes for key, (dtypes, _) in found.items()} == {
        ("adamw", "float32"): ["float32", "float32"],
        ("adamw", "bfloat16"): ["bfloat16", "float32"],
        ("sgd", "float32"): ["float32"],
        ("sgd", "bfloat16"): ["bfloat16"],
    }
    for (optimizer, moments), (_, share) in found.items():
        expected = {"adamw": 2.0, "sgd": 1.0}[optimizer] - (0.5 if moments == "bfloat16" else 0.0)
        assert expected <= share < expected + 0.01  # and some counters


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_training_with_moments_in_bfloat16_stays_close_to_that_in_float32(optimizer):
    """After 200 steps of a least-squares fit: the same loss within a percent, and far below the first one."""
    rng = np.random.default_rng(0)
    x, truth = rng.normal(size=(256, 16)), rng.normal(size=(16, 4))
    y = x @ truth + 0.5 * rng.normal(size=(256, 4))

    def losses(moments):
        stage = ConfigDict({**stage_config(), "optimizer": optimizer, "moments": moments, "learning_rate": 0.02})
        made = steps.make_optimizer(stage, 200, {"head": 1.0})
        params = {"head": {"kernel": jnp.zeros((16, 4))}}
        state, found = made.init(params), []

        @jax.jit
        def step(params, state):
            loss, gradients = jax.value_and_grad(lambda p: jnp.square(x @ p["head"]["kernel"] - y).mean())(params)
            updates, state = made.update(gradients, state, params)
            return optax.apply_updates(params, updates), state, loss

        for _ in range(200):
            params, state, loss = step(params, state)
            found.append(float(loss))
        return found

    exact, rounded = losses("float32"), losses("bfloat16")
    assert exact != rounded
    np.testing.assert_allclose(rounded[-1], exact[-1], rtol=0.01)
    assert exact[-1] < exact[0] / 10
