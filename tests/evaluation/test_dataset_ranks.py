"""umemma_jax/evaluation/dataset_ranks.py: against the worked example and tables of Demsar 2006, and NumPy."""

import numpy as np
import pytest
from scipy import stats

from umemma_jax.evaluation import dataset_ranks


def friedman(by_dataset):
    """The statistic with its correction for ties, from ranks [N, K], and its p-value."""
    datasets, methods = by_dataset.shape
    sums = by_dataset.sum(axis=0)
    statistic = 12 / (datasets * methods * (methods + 1)) * (sums**2).sum() - 3 * datasets * (methods + 1)
    ties = sum(
        (np.unique(row, return_counts=True)[1] ** 3 - np.unique(row, return_counts=True)[1]).sum() for row in by_dataset
    )
    statistic /= 1 - ties / (datasets * (methods**3 - methods))
    return stats.chi2.sf(statistic, methods - 1)


def ranked(row):
    """1 for the largest; who are even share the mean of their places."""
    return [1 + (row > value).sum() + ((row == value).sum() - 1) / 2 for value in row]


def test_ranks_and_friedman_s_test_are_those_of_their_formulas():
    values = np.random.default_rng(0).integers(0, 6, size=(7, 5)).astype(float)  # with ties
    found = dataset_ranks.ranks(values, list("vwxyz"))
    by_dataset = np.array([ranked(row) for row in values])
    expected = dict(zip("vwxyz", by_dataset.mean(axis=0), strict=True))
    assert found.average.tolist() == sorted(found.average)
    assert dict(zip(found.methods, found.average, strict=True)) == pytest.approx(expected)
    assert found.p_value == pytest.approx(friedman(by_dataset))
    lower = dataset_ranks.ranks(-values, list("vwxyz"), lower_is_better=True)
    assert (lower.methods, lower.average.tolist()) == (found.methods, found.average.tolist())


@pytest.mark.parametrize(("methods", "q"), [(3, 2.343), (4, 2.569), (10, 3.164)])
def test_the_critical_difference_has_the_quantiles_of_demsar_s_table_5(methods, q):
    expected = q * np.sqrt(methods * (methods + 1) / (6 * 14))
    assert dataset_ranks.critical_difference(methods, 14) == pytest.approx(expected, abs=5e-4)


def test_demsar_s_example():
    """Section 3.2.2: average ranks of 4 methods on 14 datasets; the critical difference is 1.25 at 0.05."""
    assert dataset_ranks.critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)
    assert dataset_ranks._groups(np.array([1.964, 2.0, 2.893, 3.143]), 1.25) == [(0, 3)]


def test_groups_are_the_longest_runs_within_the_critical_difference():
    assert dataset_ranks._groups(np.array([1.0, 2.0, 2.9, 4.5, 4.6]), 1.0) == [(0, 1), (1, 2), (3, 4)]
    assert dataset_ranks._groups(np.array([1.0, 3.0, 5.0]), 1.0) == []


def test_where_all_are_even_nothing_is_tested():
    found = dataset_ranks.ranks(np.ones((3, 3)), list("abc"))
    assert np.isnan(found.p_value) and found.average.tolist() == [2, 2, 2] and found.groups == [(0, 2)]


@pytest.mark.parametrize("values", [np.ones((1, 3)), np.ones((3, 2)), np.full((3, 3), np.nan)])
def test_too_few_to_rank(values):
    with pytest.raises(ValueError, match="at least 2 datasets and 3 methods, and all values"):
        dataset_ranks.ranks(values, list("abc"))
