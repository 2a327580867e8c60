import dataclasses

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from tests.preprocess.raw_rows import TABLE, keys, preprocess
from umemma_jax.data.kinds import UNSEEN, Modality
from umemma_jax.errors import UserError

MIXED = Modality(
    "tabular",
    "float32",
    shape=(4,),
    columns=("age", "colour", "constant", "size"),
    mean=(10.0, 0.0, 3.0, 0.0),
    std=(5.0, 0.0, 0.0, 0.0),
    levels={"colour": {"red": 9, "blue": 3, "teal": 2}, "size": {"S": 1}},
)


def columns(modality, rows, **config):
    return jax.tree.map(np.asarray, preprocess(modality, form="columns", **config)(np.array(rows, np.float32)))


def test_numbers_are_standardised_and_categories_become_ids():
    found = columns(MIXED, [[15, 0, 3, np.nan], [np.nan, 1, 3, 0], [10, 2, 9, UNSEEN], [0, np.nan, 3, 0]])
    assert_allclose(found["numbers"], [[1], [0], [0], [-2]], atol=1e-6)
    assert_array_equal(found["missing"], [[False], [True], [False], [False]])
    assert_array_equal(found["categories"], [[2, 0], [3, 1], [1, 1], [0, 1]])
    assert found["numbers"].dtype == np.float32 and found["categories"].dtype == np.int32


def test_how_rare_levels_are_pooled_can_be_chosen():
    assert preprocess(MIXED, form="columns").levels == (4, 2)
    assert preprocess(MIXED, form="columns", pooled_below=2).levels == (5, 2)
    assert_array_equal(columns(MIXED, [[0, 2, 0, 0]], pooled_below=1)["categories"], [[4, 2]])


def test_what_never_varies_in_training_is_left_out_unless_it_is_missing_at_times():
    rows = [[15, 0, np.nan, 0]]
    assert columns(MIXED, rows)["missing"].tolist() == [[False]]
    assert columns(dataclasses.replace(MIXED, missing=(0, 0, 4, 0)), rows)["missing"].tolist() == [[False, True]]


def test_where_nothing_varies_all_is_zero():
    assert_array_equal(columns(dataclasses.replace(TABLE, std=(0.0,) * 3), [[1, 2, 3]])["numbers"], [[0, 0, 0]])


def test_known_quantiles_become_those_of_the_normal_distribution():
    """A column of heavy tails, one of few values, and one without any number."""
    draw = np.random.default_rng(0)
    values = np.stack([np.exp(3 * draw.normal(size=5000)), draw.integers(0, 3, 5000)]).astype(np.float32)
    quantiles = (*map(tuple, np.quantile(values, np.linspace(0, 1, 33), axis=1).T.tolist()), ())
    modality = dataclasses.replace(TABLE, std=(1.0, 1.0, 0.0), missing=(0, 0, 5000), quantiles=quantiles)
    rows = np.pad(values.T, ((0, 0), (0, 1)), constant_values=np.nan)
    found = columns(modality, rows)["numbers"]
    normal = stats.norm.ppf(stats.rankdata(values[0]) / 5001)
    inner = abs(normal) < 1.5
    assert_allclose(found[inner, 0], normal[inner], atol=0.05)
    assert abs(found[:, 0]).max() < 2.2
    assert np.unique(found[:, 1]).size == 3 and abs(found[:, 1].mean()) < 0.1
    assert not found[:, 2].any()


def test_numbers_beyond_the_quantiles_are_the_outermost_one():
    quantiles = ((0.0, 1.0, 2.0), (5.0, 5.0, 5.0), (0.0, 1.0, 1.0))
    modality = dataclasses.replace(TABLE, std=(1.0, 1.0, 1.0), quantiles=quantiles)
    found = columns(modality, [[-9, 4, -9], [0, 5, 0], [0.5, 6, 0.5], [1, 5, 1], [9, 5, 9]])["numbers"]
    low, high = stats.norm.ppf([1 / 6, 5 / 6])
    assert_allclose(found[:, 0], [low, low, low / 2, 0, high], atol=1e-6)
    assert_allclose(found[:, 1], 0, atol=1e-6)
    assert_allclose(found[:, 2], [low, low, (low + high / 2) / 2, high / 2, high / 2], atol=1e-6)


def test_a_share_of_the_values_is_taken_as_missing_in_training():
    rows = np.tile(np.float32([15, 0, 3, 0]), (1000, 1))
    dropping = preprocess(MIXED, form="columns", drop=0.25)
    found = jax.jit(lambda rows, keys: dropping(rows, keys, train=True))(rows, keys(1000))
    for missing in (found["missing"] == 1, found["categories"] == 0):
        assert_allclose(missing.mean(axis=0), 0.25, atol=0.05)
    assert_array_equal(found["numbers"], np.where(found["missing"] == 1, 0, 1))
    again = dropping(rows[:3], keys(1000)[:3], train=True)  # a row's values depend on its own key alone
    assert_array_equal(again["categories"], found["categories"][:3])
    assert not dropping(rows, keys(1000), train=False)["missing"].any()


def test_categories_alone():
    modality = dataclasses.replace(MIXED, std=(0.0,) * 4)
    found = columns(modality, [[15, 0, 3, np.nan]])
    assert (found["numbers"].shape, found["categories"].tolist()) == ((1, 0), [[2, 0]])


@pytest.mark.parametrize(
    ("modality", "config", "message"),
    [
        (MIXED, {}, "preprocess.form: 'standardised' takes numbers alone, for categories choose 'columns'"),
        (MIXED, {"form": "columns", "pooled_below": 0}, "pooled_below: must be positive"),
        (MIXED, {"form": "columns", "drop": 1.5}, "drop: must be 1 or less"),
    ],
)
def test_what_is_refused(modality, config, message):
    with pytest.raises(UserError, match=message):
        preprocess(modality, **config)
