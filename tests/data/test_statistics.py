"""Streaming statistics against NumPy over everything at once."""

import numpy as np
import pytest

from umemma_jax.data.statistics import Statistics


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_mean_and_deviation(offset: float):
    rng = np.random.default_rng(0)
    values = [rng.normal(offset, [1.0, 3.0], (rng.integers(1, 50), 2)) for _ in range(200)]
    statistics = Statistics()
    assert statistics.empty
    for value in values:
        statistics.update(value)
    everything = np.concatenate(values)
    assert not statistics.empty
    np.testing.assert_allclose(statistics.mean, everything.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(statistics.std, everything.std(axis=0), rtol=1e-9)


def test_integers_do_not_wrap():
    statistics = Statistics()
    for _ in range(300):
        statistics.update(np.full((2, 1), 255, np.uint8))
    assert statistics.mean == (255.0,)
    assert statistics.std == (0.0,)
    np.testing.assert_array_equal(statistics.mean_value, [[255.0], [255.0]])


def test_mean_value_pads_with_zeros():
    values = [np.array([[2.0]]), np.array([[4.0], [6.0], [8.0]]), np.array([[0.0], [3.0]])]
    statistics = Statistics()
    for value in values:
        statistics.update(value)
    np.testing.assert_allclose(statistics.mean_value, [[2.0], [3.0], [8 / 3]])


def test_several_values_at_once_are_those_one_by_one():
    values = np.random.default_rng(0).normal(size=(7, 4, 3))
    together, apart = Statistics(), Statistics()
    together.update(values[:5])
    together.update(values[5:])
    for value in values:
        apart.update(value)
    np.testing.assert_allclose(together.mean_value, values.mean(axis=0))
    assert (together.mean, together.std) == (apart.mean, apart.std)


def test_missing_numbers_count_in_nothing():
    """Against NumPy's functions for them; the last channel is never known."""
    rng = np.random.default_rng(0)
    values = rng.normal(5, 3, (50, 1, 4))
    values[rng.random(values.shape) < 0.3] = np.nan
    values[..., 2] = 7
    values[..., 3] = np.nan
    statistics = Statistics()
    for value in values:
        statistics.update(value)
    known = values[:, 0, :3]
    np.testing.assert_allclose(statistics.mean, [*np.nanmean(known, axis=0), 0], rtol=1e-12)
    np.testing.assert_allclose(statistics.std, [*np.nanstd(known, axis=0), 0], rtol=1e-12)
    np.testing.assert_allclose(statistics.mean_value, [[*np.nanmean(known, axis=0), 0]], rtol=1e-12)
    assert statistics.missing == tuple(np.isnan(values[:, 0]).sum(axis=0))


def test_nothing_is_missing_of_whole_numbers_and_full_tables():
    for dtype in (np.uint8, np.float32):
        statistics = Statistics()
        statistics.update(np.ones((3, 2), dtype))
        assert statistics.missing is None
