"""Metrics of regression against scikit-learn and SciPy, and their bootstrap against doing it by hand."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from umemma_jax.evaluation.bootstrap import Resamples
from umemma_jax.evaluation.headline import headline_of
from umemma_jax.evaluation.regression import R2, scores, scores_by_target

RNG = np.random.default_rng(0)
LABEL = np.float32(RNG.normal(size=(80, 2)) * [3, 0.01] + [1e4, 0])
PREDICTED = np.float32(LABEL + RNG.normal(size=(80, 2)) * [1, 0.02])


def test_metrics_are_means_over_the_targets():
    found = scores(PREDICTED, LABEL)
    exact = np.float64(PREDICTED), np.float64(LABEL)
    assert found["r2"] == pytest.approx(reference.r2_score(exact[1], exact[0]))
    assert found["rmse"] == pytest.approx(reference.root_mean_squared_error(exact[1], exact[0]))
    assert found["mae"] == pytest.approx(reference.mean_absolute_error(exact[1], exact[0]))
    ranks = [stats.spearmanr(PREDICTED[:, t], LABEL[:, t]).statistic for t in range(2)]
    assert found["spearman"] == pytest.approx(np.mean(ranks))


def test_metrics_of_each_target():
    found = scores_by_target(PREDICTED, LABEL, ["price", "views"])
    assert found["views"] == pytest.approx(scores(PREDICTED[:, 1:], LABEL[:, 1:]))


def test_what_is_undefined():
    assert all(np.isnan(value) for value in scores(PREDICTED[:0], LABEL[:0]).values())
    same = scores(PREDICTED[:1], LABEL[:1])
    assert np.isnan(same["r2"]) and np.isnan(same["spearman"]) and same["rmse"] > 0


def test_the_headline_and_its_resamples():
    resamples, counted = Resamples(80, 25, seed=3), RNG.random((3, 80)) < 0.7
    decided = np.stack([PREDICTED, PREDICTED[::-1], LABEL])
    headline = headline_of(LABEL, 0, resamples)
    assert isinstance(headline, R2)
    found, rng = headline.resampled(decided, counted), np.random.default_rng(3)
    draws = [rng.integers(80, size=80) for _ in range(25)]
    for p in range(3):
        kept = np.flatnonzero(counted[p])
        value = reference.r2_score(np.float64(LABEL[kept]), np.float64(decided[p][kept]))
        assert headline.value(decided[p], counted[p]) == pytest.approx(value)
        for r, rows in enumerate(draws):
            rows = rows[counted[p][rows]]
            expected = reference.r2_score(np.float64(LABEL[rows]), np.float64(decided[p][rows]))
            assert found[p, r] == pytest.approx(expected, abs=2e-4, rel=1e-3)


def test_means_over_tables():
    headline = R2(LABEL, Resamples(80, 10))
    cells = [np.stack([PREDICTED, PREDICTED[::-1]]), np.stack([LABEL, PREDICTED])]
    everything = np.ones(80, bool)
    found = headline.resampled_means(cells, everything)
    for cell, row in zip(cells, found, strict=True):
        expected = headline.resampled(cell, np.broadcast_to(everything, (2, 80))).mean(axis=0)
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-6)
