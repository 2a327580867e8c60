"""The whole report of a regression, of a model that is the best possible one."""

import json

import numpy as np
import pytest

from tests.evaluation.numbers_said import TARGETS, split, spread_left
from umemma_jax.evaluation import decisions, paired
from umemma_jax.evaluation.bootstrap import Resamples
from umemma_jax.evaluation.robustness import Options, report

OPTIONS = Options(rates=(0.0, 0.5, 1.0), seeds=2, resamples=50)


@pytest.fixture(scope="module")
def found():
    return report(split(4000, seed=2), split(2000, seed=1), OPTIONS)


def test_the_best_possible_numbers_under_every_pattern(found):
    results = found.results
    assert (results["metric"], results["headline"]) == ("r2", "r2")
    for pattern, scores in results["patterns"].items():
        assert scores["rmse"] == pytest.approx(20 * spread_left(pattern), rel=0.05)
        assert scores["r2"] == pytest.approx(1 - spread_left(pattern) ** 2, abs=0.03)
        low, high = results["uncertainty"]["patterns"][pattern]
        assert low < scores["r2"] < high
        assert results["conformal"]["patterns"][pattern]["coverage"] == pytest.approx(0.9, abs=0.02)
    json.dumps(results, allow_nan=False)


def test_the_ensemble_is_as_good_as_the_exact_model(found):
    results = found.results
    assert results["robustness"]["share_of_ceiling"] == pytest.approx(dict.fromkeys(results["patterns"], 1.0))
    assert results["ensembles"]["a+b"]["r2"] == pytest.approx(results["patterns"]["a+b"]["r2"])
    assert results["ceilings"]["a"]["r2"] == pytest.approx(results["patterns"]["a"]["r2"])


def test_shapley_values_add_up_from_the_training_mean(found):
    shapley = found.results["shapley"]
    assert shapley["empty"] == pytest.approx(0, abs=0.005)
    complete = found.results["patterns"]["a+b"]["r2"]
    assert sum(shapley["values"].values()) == pytest.approx(complete - shapley["empty"])


def test_information_is_that_of_the_joint(found):
    """I(b; y | a) of Gaussians is the log of the ratio of what is left."""
    information = found.results["information"]
    for modality, rest in (("b", "a"), ("a", "b")):
        expected = np.log(spread_left(rest) / spread_left("a+b"))
        assert information["complementary"][modality] == pytest.approx(expected, abs=0.03)
        gap = spread_left(rest) ** 2 - spread_left("a+b") ** 2
        assert information["mse_gap_at_most"][modality] > gap
    assert information["entropy"][""] == pytest.approx(0.5 * np.log(2 * np.pi * np.e), abs=0.02)
    assert "bayes_error_at_most" not in information


def test_several_targets_have_numbers_of_their_own():
    results = report(split(300, targets=TARGETS, complete=False), None, OPTIONS).results
    for pattern, scores in results["patterns"].items():
        own = results["by_target"][pattern]
        for name in ("r2", "rmse", "mae", "spearman"):
            assert scores[name] == pytest.approx(np.mean([own[target.name][name] for target in TARGETS]))
    assert [target["name"] for target in results["targets"]] == ["price", "views"]
    assert "conformal" not in results
    json.dumps(results, allow_nan=False)


def test_predictions_are_kept_for_comparisons(found, tmp_path):
    (tmp_path / decisions.FILE_NAME).write_bytes(decisions.encode(found.decisions))
    kept = decisions.read(tmp_path, ["a+b", "a", "b"], 4000)
    np.testing.assert_array_equal(kept.decided, found.decisions.decided)
    shared = Resamples(4000, 50)
    measured = paired.measured(kept, shared)
    assert measured.values.tolist() == [scores["r2"] for scores in found.results["patterns"].values()]
    worse = paired.Measured(measured.values - 3, measured.resampled - 3)
    (first, *_) = paired.differences({"one": [measured], "other": [worse]}, ["a+b", "a", "b"], np.inf)
    assert first["difference"] == pytest.approx(-3)
