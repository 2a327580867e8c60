import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import small_run
from umemma_jax import experiment, missing
from umemma_jax.devices import sharding
from umemma_jax.errors import UserError
from umemma_jax.training import stages, steps, train

NAMES = ("image", "audio")
THIRDS = missing.policy_from_config({"augment": True, "keep": {}}, NAMES)
THREE = missing.policy_from_config({"augment": True, "keep": {}}, ("a", "b", "c"))


def row_keys(seed, rows):
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(seed), jnp.arange(rows))


def test_default_policy_is_uniform_over_complete_and_each_one_alone():
    assert set(THIRDS.patterns) == {(True, True), (True, False), (False, True)}
    np.testing.assert_allclose(THIRDS.probabilities, 1 / 3)


def test_policy_reads_weights_in_any_order_of_names():
    keep = {"audio+image": 2.0, "image": 1.0, "audio": 0.0}
    policy = missing.policy_from_config({"augment": True, "keep": keep}, NAMES)
    assert dict(zip(policy.patterns, policy.probabilities, strict=True)) == {(True, True): 2 / 3, (True, False): 1 / 3}


def test_without_augmentation_nothing_is_dropped():
    policy = missing.policy_from_config({"augment": False, "keep": {"image": 1.0}}, NAMES)
    assert policy.patterns == ((True, True),)


@pytest.mark.parametrize(
    ("keep", "culprit"),
    [({"video": 1.0}, "'video'"), ({"image": -1.0}, "'image'"), ({"image": 0.0}, "every weight is 0")],
)
def test_policy_names_the_culprit(keep, culprit):
    with pytest.raises(UserError, match=culprit):
        missing.policy_from_config({"augment": True, "keep": keep}, NAMES)


def test_random_draw_has_the_policy_s_frequencies():
    rows = 30_000
    present = np.asarray(missing.draw(THIRDS, row_keys(0, rows), jnp.ones((rows, 2), bool)))
    for pattern in THIRDS.patterns:
        share = (present == np.array(pattern)).all(axis=1).mean()
        assert abs(share - 1 / 3) < 4 * np.sqrt(2 / 9 / rows)  # four standard deviations


def test_a_row_s_draw_does_not_depend_on_the_rest_of_the_batch():
    available = jnp.ones((64, 2), bool)
    whole = missing.draw(THIRDS, row_keys(3, 64), available)
    part = missing.draw(THIRDS, row_keys(3, 64)[40:], available[40:])
    np.testing.assert_array_equal(whole[40:], part)


@pytest.mark.parametrize("layout", [None, missing.stratified_layout(THREE, 64)])
def test_no_row_loses_all_and_no_row_gains_any(layout):
    available = np.random.default_rng(0).random((64, 3)) < 0.4
    available = jnp.asarray(available[available.any(axis=1).argsort()])
    draw = missing.draw if layout is None else None
    present = draw(THREE, row_keys(1, 64), available) if draw else layout.draw(row_keys(1, 64), available)[0]
    present, available = np.asarray(present), np.asarray(available)
    assert not (present & ~available).any()
    np.testing.assert_array_equal(present.any(axis=1), available.any(axis=1))


def test_draw_is_conditional_on_what_a_row_has():
    """A row that has only audio can only get patterns with audio: it keeps audio, always."""
    available = jnp.array([[False, True]] * 100)
    np.testing.assert_array_equal(missing.draw(THIRDS, row_keys(0, 100), available), available)


def test_stratified_thirds_leave_each_encoder_two_thirds_of_the_rows():
    layout = missing.stratified_layout(THIRDS, 60)
    assert layout.counts == (20, 20, 20) and layout.free_policy is None
    assert [layout.computed()[:, m].sum() for m in (0, 1)] == [40, 40]
    # Adjacent groups: one slice per encoder.
    assert [len(layout.slices(m)) for m in (0, 1)] == [1, 1]


def test_stratified_rows_that_do_not_divide_are_drawn_so_that_frequencies_stay_those_of_the_policy():
    keep = {"image+audio": 0.45, "image": 0.35, "audio": 0.2}
    policy = missing.policy_from_config({"augment": True, "keep": keep}, NAMES)
    layout = missing.stratified_layout(policy, 7)
    assert sum(layout.counts) == 7 and any(layout.free)
    draws = jax.jit(jax.vmap(lambda keys: layout.draw(keys, jnp.ones((7, 2), bool))[0]))
    present = np.asarray(draws(row_keys(5, 7 * 6000).reshape(6000, 7)))
    for pattern, probability in zip(policy.patterns, policy.probabilities, strict=True):
        share = (present == np.array(pattern)).all(axis=-1).mean()
        assert abs(share - probability) < 0.004


@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("policy", [THIRDS, THREE])
def test_take_and_put_select_exactly_the_computed_rows(policy, shards):
    layout = missing.stratified_layout(policy, 40, shards)
    x = jnp.arange(80.0).reshape(40, 2) + 1
    computed = layout.computed()
    assert layout.batch_size == 40
    for m in range(computed.shape[1]):
        rows = layout.take(x, m)
        np.testing.assert_array_equal(rows, np.asarray(x)[computed[:, m]])
        np.testing.assert_array_equal(layout.put(rows, m), np.where(computed[:, [m]], x, 0))


def test_stratified_present_rows_are_always_computed():
    layout = missing.stratified_layout(THREE, 23)
    available = jnp.asarray(np.random.default_rng(2).random((23, 3)) < 0.7)
    present, fits = map(np.asarray, layout.draw(row_keys(9, 23), available))
    assert not (present & ~layout.computed())[fits].any()


def test_arrange_moves_only_what_does_not_fit_and_makes_it_fit():
    layout = missing.stratified_layout(THIRDS, 30)
    rng = np.random.default_rng(0)
    available = np.ones((30, 2), bool)
    available[rng.permutation(30)[:8], 0] = False
    computed = layout.computed()
    misfits = ~(available & computed).any(axis=1)
    assert misfits.any()
    order = missing.arrange(available, layout)
    assert sorted(order) == list(range(30))
    assert (available[order] & computed).any(axis=1).all()
    assert (order != np.arange(30)).sum() <= 2 * misfits.sum()


def test_arrange_leaves_what_cannot_fit_and_draw_reports_it():
    layout = missing.stratified_layout(THIRDS, 6)
    available = np.tile([True, False], (6, 1))  # nobody has audio; two positions keep only audio
    order = missing.arrange(available, layout)
    present, fits = layout.draw(row_keys(0, 6), jnp.asarray(available[order]))
    assert (~np.asarray(fits)).sum() == 2
    np.testing.assert_array_equal(present, available)


# Inputs that no encoder will see


@pytest.mark.parametrize(
    ("devices", "parallel", "missing_share", "fitting"),
    [
        (1, "jit", 0.0, True),
        (1, "jit", 0.5, True),
        (1, "jit", 0.5, False),
        (4, "jit", 0.5, True),
        (4, "pmap", 0.5, True),
    ],
)
def test_decoding_only_what_the_layout_computes_changes_no_parameter(
    tmp_path, monkeypatch, devices, parallel, missing_share, fitting
):
    """Bit for bit, also where rows lack modalities by nature and fit their position or not."""
    mesh = sharding.make_mesh(devices=jax.devices()[:devices])
    monkeypatch.setattr(experiment, "make_mesh", lambda fsdp: mesh)
    if not fitting:
        monkeypatch.setattr(missing, "arrange", lambda available, layout: np.arange(len(available)))
    small_run.write_dataset(tmp_path / "data", train=64, missing_share=missing_share)
    config = small_run.get_config(tmp_path / "data", parallel=parallel, unimodal__epochs=0, fusion__epochs=1)
    config.missing.layout, config.data.cache_megabytes = "stratified", 0
    built = experiment.build(config)
    spec, _ = stages.stage_spec(built, "fusion")
    step = sharding.compile_step(steps.make_step(spec, built.means), mesh, parallel)
    computed = missing.stratified_layout(spec.policy, config.data.batch_size, devices).computed()
    train_batches = stages.train_batches

    def trained(needed):
        """Variables after an epoch, and how many images had no bright pixel."""
        monkeypatch.setattr(stages, "train_batches", lambda *a, **k: train_batches(*a, **{**k, "needed": needed}))
        batches, dark = stages.training_batches(built, "fusion"), 0
        state = steps.init_state(spec, train.initial_variables(built))
        state = jax.device_put(state, sharding.replicated(mesh))
        for batch in itertools.islice(batches, 4):
            state, _ = step(state, sharding.put_batch(batch, mesh))
            dark += np.sum(~batch["inputs"]["image"].any(axis=(1, 2, 3)))
        return jax.device_get((state.params, state.batch_stats)), dark

    (everything, few), (only_needed, many) = trained(None), trained(computed)
    jax.tree.map(np.testing.assert_array_equal, everything, only_needed)
    assert few < many


# Compaction


@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("capacity", [7, 10])
def test_compacted_rows_are_those_of_the_mask_in_their_order(shards, capacity):
    rows, size = 10 * shards, capacity
    present = np.random.default_rng(0).permuted(np.tile(np.arange(10) < 6, (shards, 2, 1)), axis=-1)
    present = present.swapaxes(1, 2).reshape(rows, 2)  # 6 of the 10 rows of every shard have it
    compacted = missing.Compacted(jnp.asarray(present), (size, size), shards)
    x = jnp.arange(2.0 * rows).reshape(rows, 2) + 1
    for m in (0, 1):
        taken = compacted.take(x, m)
        assert taken.shape == (shards * size, 2)
        if size < 10:
            first = np.asarray(taken).reshape(shards, size, 2)[:, :6].reshape(-1, 2)
            np.testing.assert_array_equal(first, np.asarray(x)[present[:, m]])
        np.testing.assert_array_equal(compacted.put(taken, m), np.where(present[:, [m]], x, 0))


def test_compacted_rows_stay_on_their_device():
    mesh = sharding.make_mesh(devices=jax.devices())
    rows = sharding.by_rows(mesh)

    def double(x, present):
        compacted = missing.Compacted(present, (4, 4), mesh.size)
        return compacted.put(2 * compacted.take(x, 0), 0)

    function = jax.jit(double, in_shardings=(rows, rows), out_shardings=rows)
    text = function.lower(jnp.zeros((24, 7)), jnp.ones((24, 2), bool)).compile().as_text()
    assert not any(name in text for name in ("all-gather", "all-to-all", "collective-permute", "all-reduce"))


@pytest.mark.parametrize(("kept", "expected"), [((3, 5), (4, 6)), ((5, 1), (6, 8)), ((7, 7), (8, 8)), ((0, 7), (6, 8))])
def test_the_first_capacities_that_hold_are_taken(kept, expected):
    """8 rows on each of two shards, of which the first keeps nothing."""
    present = jnp.zeros((2, 8, 2), bool).at[1].set(jnp.arange(8)[:, None] < jnp.array([kept])).reshape(16, 2)

    def sizes(layout):
        if layout is None:
            return jnp.array([8, 8])
        return jnp.array([layout.take(jnp.zeros(16), m).size // 2 for m in (0, 1)])

    found = missing.run_compacted(sizes, [(4, 6), (6, 8)], present, sharding.Devices(shards=2))
    assert tuple(found.tolist()) == expected


def test_without_choices_there_is_no_switch():
    jaxpr = jax.make_jaxpr(
        lambda present: missing.run_compacted(lambda layout: present, (), present, sharding.Devices())
    )(jnp.ones((4, 2), bool))
    assert not jaxpr.eqns


def test_capacities_are_those_by_which_encoders_run_on_the_fewest_rows():
    """Ten batches of two shards of 20 rows: four keep 5 and 10 rows, five 10 and 12, one 20 and 15."""
    counts = np.array([[[5, 10], [4, 8]]] * 4 + [[[10, 3], [1, 12]]] * 5 + [[[20, 15], [0, 0]]])
    kept = np.arange(20)[:, None] < counts[:, :, None, :]
    assert kept.shape == (10, 2, 20, 2)
    # 4 * 15 + 6 * 40 = 300 rows; 9 * 22 + 1 * 40 = 238; 10 * 35 = 350
    assert missing.choose_capacities(kept, 1) == ((10, 12),)
    # 4 * 15 + 5 * 22 + 40 = 210; a third would save 5 of 400 rows, too little
    assert missing.choose_capacities(kept, 2) == missing.choose_capacities(kept, 3) == ((5, 10), (10, 12))
    assert missing.choose_capacities(kept, 0) == ()
    assert missing.choose_capacities(np.ones((4, 2, 8, 2), bool), 2) == ()


@pytest.mark.parametrize(("stage", "layout", "lacking", "compacted"), [
    ("unimodal", "random", False, False),
    ("unimodal", "random", True, True),
    ("fusion", "random", False, True),
    ("fusion", "random", True, True),
    ("fusion", "stratified", False, False),
    ("fusion", "stratified", True, True),
])  # fmt: skip
@pytest.mark.parametrize("accumulate", [1, 2])
def test_capacities_of_a_stage_suit_its_batches(tmp_path, monkeypatch, stage, layout, lacking, compacted, accumulate):
    """Batches that were not among the samples; where positions or complete data say it all there are none."""
    mesh = sharding.make_mesh(devices=jax.devices()[:2])
    monkeypatch.setattr(experiment, "make_mesh", lambda fsdp: mesh)
    small_run.write_dataset(tmp_path / "data", train=200, missing_share=0.6 if lacking else 0.0)
    config = small_run.get_config(tmp_path / "data", missing__layout=layout, data__batch_size=128)
    config.unimodal.accumulate = config.fusion.accumulate = accumulate
    built = experiment.build(config)
    spec, _ = stages.stage_spec(built, stage)
    assert bool(spec.capacities) == compacted
    if not compacted:
        return
    (capacities,) = spec.capacities
    rows = 128 // 2 // accumulate
    held, batches = [], stages.training_batches(built, stage)
    for number, batch in enumerate(itertools.islice(batches, 40)):
        present, keys = jnp.asarray(batch["present"]), row_keys(number, 128)
        if stage == "fusion" and layout == "random":
            present = missing.draw(spec.policy, keys, present)
        elif stage == "fusion":
            present, _ = missing.stratified_layout(spec.policy, 128, 2 * accumulate).draw(keys, present)
        counts = np.asarray(present).reshape(2, accumulate, rows, 2).sum(axis=2).max(axis=0)
        held += (counts <= capacities).all(axis=1).tolist()
    computed = np.where(held, sum(capacities), 2 * rows).mean() / (2 * rows)
    assert np.mean(held) > 0.8 and computed < 0.92
