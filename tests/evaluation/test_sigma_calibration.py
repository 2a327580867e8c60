"""Standard deviations and intervals that are right, whatever a model says of them."""

import numpy as np
import pytest
from scipy import stats

from tests.evaluation.numbers_said import TARGETS, split, spread_left
from umemma_jax.data.targets import standardised
from umemma_jax.evaluation import sigma_calibration
from umemma_jax.evaluation.sigma_calibration import fit, nll, quantiles, sigma_scales

RNG = np.random.default_rng(0)


def test_scales_make_the_labels_most_likely():
    errors = np.abs(RNG.normal(size=(2000, 2)) * [1.7, 0.4])
    found = sigma_scales(errors)
    for target in range(2):
        tried = np.linspace(0.9, 1.1, 41) * found[target]
        likelihood = [stats.norm.logpdf(errors[:, target], scale=s).sum() for s in tried]
        assert tried[np.argmax(likelihood)] == pytest.approx(found[target], rel=0.01)
    assert sigma_scales(np.zeros((1, 1)))[0] > 0.5  # one row that fits by chance proves nothing
    assert np.isnan(sigma_scales(errors[:0])).all()


def test_the_likelihood_is_that_of_scipy():
    mean, variance, label = RNG.normal(size=(5, 2)), RNG.uniform(0.1, 2, (5, 2)), RNG.normal(size=(5, 2))
    expected = -stats.norm.logpdf(label, mean, np.sqrt(variance)).mean(axis=1)
    np.testing.assert_allclose(nll(mean, variance, label), expected)


def test_quantiles_are_those_of_split_conformal_prediction():
    assert quantiles(np.arange(1.0, 20)[:, None], 0.1)[0] == 18  # the 18th of 19: ceil(20 x 0.9)
    assert np.isnan(quantiles(np.arange(8.0)[:, None], 0.1)).all()  # fewer than 9 promise nothing at 90 %


@pytest.mark.parametrize("sharper", [1.0, 4.0, 0.6])
def test_intervals_hold_the_target_as_often_as_was_promised(sharper):
    """90 % within 2 points, under every pattern, of models that believe too much or too little."""
    fitted = fit(split(4000, targets=TARGETS, sharper=sharper, seed=1), alpha=0.1)
    test = split(8000, targets=TARGETS, sharper=sharper, seed=2)
    label = standardised(test.label, test.targets)
    report = sigma_calibration.report(test, fitted, {})
    for p, name in enumerate(test.names):
        low, high = fitted.intervals(test.patterns[name], test.left[p])
        inside = (low <= label) & (label <= high)
        assert inside.mean(axis=0) == pytest.approx([0.9, 0.9], abs=0.02)
        entry = report["conformal"]["patterns"][name]
        assert entry["coverage"] == pytest.approx(inside.mean())
        widths = [2 * 1.645 * spread_left(name) * target.std for target in TARGETS]
        if sharper == 1.0 or "+" not in name:  # experts that are too sure are no exact product
            assert entry["widths"] == pytest.approx(widths, rel=0.05)


def test_calibration_is_better_afterwards_and_exact_models_need_none():
    right, sure = (
        sigma_calibration.report(
            split(4000, sharper=sharper, seed=2), fit(split(4000, sharper=sharper, seed=1), 0.1), {}
        )["calibration"]["patterns"]
        for sharper in (1.0, 9.0)
    )
    for name, entry in right.items():
        assert entry["scales"] == pytest.approx([1], abs=0.05)
        assert entry["before"]["calibration_error"] < 0.02
        expected = 0.5 * np.log(2 * np.pi * np.e) + np.log(spread_left(name))
        assert entry["after"]["nll"] == pytest.approx(expected, abs=0.03)
    for entry in sure.values():
        assert entry["scales"][0] > 2
        assert entry["after"]["calibration_error"] < 0.02 < 0.15 < entry["before"]["calibration_error"]
        assert entry["after"]["nll"] < entry["before"]["nll"]


def test_what_a_report_says_can_be_read_back():
    test = split(300, targets=TARGETS)
    fitted = fit(split(300, targets=TARGETS, seed=1), alpha=0.2)
    content = sigma_calibration.of_results(sigma_calibration.report(test, fitted, {}))
    found = sigma_calibration.SigmaCalibration.from_dict(content)
    np.testing.assert_allclose(found.scales, fitted.scales)
    np.testing.assert_allclose(found.quantiles, fitted.quantiles)
    assert (found.names, found.alpha, found.examples) == (fitted.names, 0.2, 300)


def test_without_examples_of_a_pattern_nothing_is_promised():
    validation = split(40, complete=False, seed=1)
    without = ~validation.available.all(axis=1)
    some = sigma_calibration.fit(_rows(validation, without), alpha=0.1)
    assert np.isnan(some.scales[0]).all() and np.isnan(some.quantiles[0]).all()
    test = split(50)
    entry = sigma_calibration.report(test, some, {})
    assert np.isnan(entry["conformal"]["patterns"]["a+b"]["coverage"])
    assert entry["calibration"]["patterns"]["a+b"]["after"] is None


def _rows(said, rows):
    unimodal = {name: values[rows] for name, values in said.unimodal.items()}
    cut = type(said)(said.modalities, (), said.label[rows], said.available[rows], {}, unimodal, said.targets)
    return cut.ensembles(np.zeros(2 * len(said.targets)))
