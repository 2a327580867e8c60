import hashlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import small_run
from umemma_jax import experiment, missing, sharding, steps, train
from umemma_jax.errors import UserError

NAMES = ("image", "audio")
THIRDS = missing.policy_from_config({"augment": True, "keep": {}}, NAMES)
THREE = missing.policy_from_config({"augment": True, "keep": {}}, ("a", "b", "c"))


def row_keys(seed, rows):
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(seed), jnp.arange(rows))


def test_all_patterns_are_the_non_empty_subsets_complete_first():
    patterns = missing.all_patterns(3)
    assert len({tuple(p) for p in patterns}) == len(patterns) == 7
    assert patterns[0].all() and patterns.any(axis=1).all()
    assert [missing.pattern_name(p, NAMES) for p in missing.all_patterns(2)] == ["image+audio", "image", "audio"]


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


@pytest.mark.parametrize("kind", [*NAMES, missing.MIXED])
def test_missing_tables_are_seeded_exact_and_nested(kind):
    available = np.ones((101, 2), bool)
    tables = [missing.missing_table(available, kind, rate / 10, 3, NAMES) for rate in range(11)]
    for rate, table in enumerate(tables):
        assert (~table.all(axis=1)).sum() == round(rate / 10 * 101)
        assert table.any(axis=1).all()
        np.testing.assert_array_equal(table, missing.missing_table(available, kind, rate / 10, 3, NAMES))
    for fewer, more in itertools.pairwise(tables):
        assert not (more & ~fewer).any()
    assert (tables[5] != missing.missing_table(available, kind, 0.5, 4, NAMES)).any()


def test_mixed_loses_every_modality_equally_often():
    table = missing.missing_table(np.ones((90, 3), bool), missing.MIXED, 1.0, 0, ("a", "b", "c"))
    np.testing.assert_array_equal((~table).sum(axis=0), 30)


def test_missing_table_never_takes_the_last_modality():
    available = np.tile([True, False], (10, 1))
    np.testing.assert_array_equal(missing.missing_table(available, "image", 1.0, 0, NAMES), available)


def test_table_hash_is_the_documented_one():
    table = np.array([[True, False], [True, True]])
    expected = hashlib.sha256(b"(2, 2)" + bytes([0b10110000])).hexdigest()
    assert missing.table_hash(table) == expected
    assert missing.table_hash(~table) != expected


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
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]), (sharding.AXIS,))
    monkeypatch.setattr(experiment, "make_mesh", lambda: mesh)
    if not fitting:
        monkeypatch.setattr(missing, "arrange", lambda available, layout: np.arange(len(available)))
    small_run.write_dataset(tmp_path / "data", train=64, missing_share=missing_share)
    config = small_run.get_config(tmp_path / "data", parallel=parallel, unimodal__epochs=0, fusion__epochs=1)
    config.missing.layout, config.data.cache_megabytes = "stratified", 0
    built = experiment.build(config)
    spec, _ = train.stage_spec(built, "fusion")
    step, _ = sharding.compile_step(steps.make_step(spec, built.means), mesh, parallel)
    computed = missing.stratified_layout(spec.policy, config.data.batch_size, devices).computed()
    train_batches = train.train_batches

    def trained(needed):
        """Variables after an epoch, and how many images had no bright pixel."""
        monkeypatch.setattr(train, "train_batches", lambda *a, **k: train_batches(*a, **{**k, "needed": needed}))
        batches, dark = train.training_batches(built, "fusion"), 0
        state = steps.init_state(spec, train.initial_variables(built))
        state = jax.device_put(state, sharding.replicated(mesh))
        for batch in itertools.islice(batches, 4):
            state, _ = step(state, sharding.put_batch(batch, mesh))
            dark += np.sum(~batch["inputs"]["image"].any(axis=(1, 2, 3)))
        return jax.device_get((state.params, state.batch_stats)), dark

    (everything, few), (only_needed, many) = trained(None), trained(computed)
    jax.tree.map(np.testing.assert_array_equal, everything, only_needed)
    assert few < many
