"""umemma_jax/evaluation/verdict.py: Holm's procedure, measures of a run, and what is found better or worse."""

import numpy as np
import pytest
from scipy import stats

from umemma_jax.evaluation import paired, verdict
from umemma_jax.evaluation.bootstrap import Resamples
from umemma_jax.evaluation.decisions import Decisions
from umemma_jax.missing_rates import missing_table


def step_down(p_values, error_rate):
    """Holm (1979): from the smallest p-value on, reject while p <= error_rate / (number of those left)."""
    rejected = [False] * len(p_values)
    for done, number in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[number] > error_rate / (len(p_values) - done):
            break
        rejected[number] = True
    return rejected


def test_what_holm_s_procedure_rejects_is_what_its_p_values_say():
    rng = np.random.default_rng(0)
    for _ in range(200):
        p_values = rng.random(7) ** 4
        for error_rate in (0.01, 0.05, 0.2):
            assert (verdict.holm(p_values) <= error_rate).tolist() == step_down(p_values.tolist(), error_rate)


def test_holm_s_p_values_are_those_of_the_literature():
    """Those that R's documentation of p.adjust would give, by hand: each times the number left, never falling."""
    found = verdict.holm(np.array([0.04, 0.01, np.nan, 0.03]))
    np.testing.assert_allclose(found, [0.06, 0.03, np.nan, 0.06])
    assert verdict.holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]


def decisions(rng, examples=60, chance=0.7):
    """Two modalities, of which some examples lack one; three classes."""
    label = rng.integers(3, size=examples)
    available = rng.random((examples, 2)) < 0.8
    available[~available.any(axis=1)] = True
    right = rng.random((3, examples)) < chance
    decided = np.where(right, label, (label + 1) % 3)
    counted = np.stack([np.ones(examples, bool), *available.T])
    return Decisions(("a+b", "a", "b"), 3, label, counted, decided)


def test_a_run_is_summed_up_as_its_report_does():
    found, resamples, rates, seeds = decisions(np.random.default_rng(1)), Resamples(60, 30), (1.0, 0.0, 0.5), 2
    run = paired.measured(found, resamples)
    summed_up = verdict.summed_up(found, run, resamples, rates, seeds)

    right = found.decided == found.label
    alone = [right[p][found.counted[p]].mean() for p in range(3)]

    def height(rate):
        """Example by example: what is left of it by the table decides which pattern answers."""
        tables = [missing_table(found.counted[1:].T, "mixed", rate, seed, ("a", "b")) for seed in range(seeds)]
        number = {(True, True): 0, (True, False): 1, (False, True): 2}
        return np.mean([[right[number[tuple(kept)], n] for n, kept in enumerate(table)] for table in tables])

    area = (height(0.0) + 2 * height(0.5) + height(1.0)) / 4 / alone[0]
    np.testing.assert_allclose(summed_up.values, [alone[0], np.mean(alone), min(alone), area])
    assert summed_up.resampled.shape == (4, 30)
    np.testing.assert_allclose(summed_up.resampled[:3], [run.resampled[0], *_mean_and_least(run.resampled)])
    assert summed_up.resampled[3].std() > 0 and abs(summed_up.resampled[3].mean() - area) < 0.05


def _mean_and_least(resampled):
    return resampled.mean(axis=0), resampled.min(axis=0)


@pytest.fixture
def runs():
    rng, values = np.random.default_rng(0), {"ume": 0.8, "ume_mma": 0.82, "good": 0.9, "poor": 0.6}
    return {
        name: verdict.of_seeds({"complete": value + 0.01 * rng.random(5), "nll": 1 - value + 0.01 * rng.random(5)})
        for name, value in values.items()
    }


def test_methods_are_compared_with_both_references_and_these_with_each_other_once(runs):
    found = verdict.by_measure(runs, ("complete", "nll"), ["ume", "ume_mma"])
    pairs = [(one["method"], one["reference"]) for one in found["complete"]["comparisons"]]
    assert pairs == [
        ("ume_mma", "ume"), ("good", "ume"), ("good", "ume_mma"), ("poor", "ume"), ("poor", "ume_mma")
    ]  # fmt: skip
    for measure in ("complete", "nll"):  # of the latter lower is better
        findings = {(one["method"], one["reference"]): one["finding"] for one in found[measure]["comparisons"]}
        assert findings["good", "ume_mma"] == "better" and findings["poor", "ume"] == "worse"


def test_calibration_is_compared_by_a_paired_t_test_over_the_seeds_and_corrected(runs):
    found = verdict.by_measure(runs, ("complete", "nll"), ["ume", "ume_mma"])["nll"]
    by_name = {name: np.array(values) for name, values in found["methods"].items()}
    tests = [stats.ttest_rel(by_name[one["method"]], by_name[one["reference"]]) for one in found["comparisons"]]
    for one, expected in zip(found["comparisons"], tests, strict=True):
        assert one["p_value"] == pytest.approx(expected.pvalue, rel=1e-6)
        np.testing.assert_allclose(one["interval"], expected.confidence_interval(0.95))
    expected = verdict.holm(np.array([test.pvalue for test in tests]))
    np.testing.assert_allclose([one["holm"] for one in found["comparisons"]], expected, rtol=1e-6)


def test_of_one_seed_without_resamples_nothing_is_found():
    runs = {name: verdict.of_seeds({"ece": [value]}) for name, value in {"ume": 0.1, "x": 0.2}.items()}
    (one,) = verdict.by_measure(runs, ("ece",), ["ume"])["ece"]["comparisons"]
    assert one["difference"] == pytest.approx(0.1)
    assert (one["p_value"], one["interval"], one["finding"]) == (None, [None, None], "undecided")


def test_patterns_are_one_family():
    """Ten patterns in which nothing differs but by chance make what one pattern shows less certain."""
    rng, resamples = np.random.default_rng(0), Resamples(300, 200)
    names = tuple("abcdefghij")
    right = {"ume": rng.random((10, 300)) < 0.7, "x": rng.random((10, 300)) < 0.7}
    right["x"][0] = rng.random(300) < 0.81
    label = np.ones(300, int)

    def found(patterns):
        runs = {
            name: [
                paired.measured(
                    Decisions(names[:patterns], 2, label, np.ones((patterns, 300), bool), rows[:patterns].astype(int)),
                    resamples,
                )
            ]
            for name, rows in right.items()
        }
        return verdict.of_patterns(runs, names[:patterns], ["ume"])

    (alone,), (among, *_) = found(1), found(10)
    assert alone["p_value"] == among["p_value"] == alone["holm"]
    assert among["holm"] == pytest.approx(10 * among["p_value"])
    assert alone["finding"] == "better" and among["pattern"] == "a"
