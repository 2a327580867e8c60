import numpy as np
import pytest
from scipy import stats

from umemma_jax.evaluation import paired
from umemma_jax.evaluation.bootstrap import Resamples
from umemma_jax.evaluation.decisions import Decisions
from umemma_jax.evaluation.headline import Headline


def decided(right, patterns=("a",)):
    """Decisions of which `right`, bool [P, N], are right: the class is 1 everywhere."""
    right = np.atleast_2d(right)
    label = np.ones(right.shape[1], np.uint8)
    return Decisions(tuple(patterns), 2, label, np.ones(right.shape, bool), right.astype(np.uint8))


def measured(right, resamples):
    return paired.measured(decided(right), resamples)


def test_a_run_is_measured_as_the_report_measures_it():
    rng = np.random.default_rng(0)
    label, decisions = rng.random((50, 3)) < 0.3, rng.random((2, 50, 3)) < 0.4
    counted = rng.random((2, 50)) < 0.8
    resamples = Resamples(50, 30)
    found = paired.measured(Decisions(("a", "b"), 3, label, counted, decisions), resamples)
    headline = Headline(label, 3, resamples)
    for p in range(2):
        assert found.values[p] == headline.value(decisions[p], counted[p])
        np.testing.assert_allclose(found.resampled[p], headline.resampled(decisions[p], counted[p]), rtol=1e-6)


def test_every_two_methods_under_every_pattern_the_last_first():
    rng, resamples = np.random.default_rng(0), Resamples(80, 50)
    right = rng.random((3, 2, 2, 80)) < 0.7  # methods, seeds, patterns, examples
    runs = {
        name: [paired.measured(decided(seed, ("a", "b")), resamples) for seed in method]
        for name, method in zip("xyz", right, strict=True)
    }
    found = paired.differences(runs, ["a", "b"])
    assert [(one["pattern"], *one["methods"]) for one in found] == [
        (pattern, *pair) for pattern in "ab" for pair in (("z", "y"), ("z", "x"), ("y", "x"))
    ]
    for one in found:
        first, second = (right["xyz".index(name), :, "ab".index(one["pattern"])] for name in one["methods"])
        assert one["difference"] == pytest.approx(first.mean() - second.mean())


def test_with_one_seed_the_interval_is_that_of_a_paired_z_test():
    rng, resamples = np.random.default_rng(0), Resamples(500, 20000)
    first, second = rng.random((2, 500)) < [[0.8], [0.75]]
    (found,) = paired.differences({"y": [measured(second, resamples)], "x": [measured(first, resamples)]}, ["a"])
    each = first.astype(float) - second
    error = each.std() / np.sqrt(500)
    expected = each.mean() + error * stats.norm.ppf([0.025, 0.975])
    np.testing.assert_allclose(found["interval"], expected, atol=0.002)
    assert found["p_value"] == pytest.approx(2 * stats.norm.sf(abs(each.mean()) / error), rel=0.1)


def test_where_only_seeds_differ_the_interval_is_that_of_a_paired_t_test():
    first, second = np.array([0.83, 0.79, 0.84, 0.80]), np.array([0.80, 0.78, 0.80, 0.79])
    runs = {
        name: [paired.Measured(np.array([value]), np.full((1, 50), value)) for value in values]
        for name, values in {"y": second, "x": first}.items()
    }
    (found,) = paired.differences(runs, ["a"])
    expected = stats.ttest_rel(first, second)
    np.testing.assert_allclose(found["interval"], expected.confidence_interval(0.95))
    assert found["p_value"] == pytest.approx(expected.pvalue)


def test_an_interval_ends_where_fractions_do():
    runs = {
        name: [paired.Measured(np.array([value]), np.full((1, 50), value)) for value in values]
        for name, values in {"y": (0.2, 0.8), "x": (0.6, 0.3)}.items()
    }
    (found,) = paired.differences(runs, ["a"])
    assert found["interval"] == [-1, 1] and not found["supported"]


def test_an_interval_that_just_reaches_0_has_p_value_1_minus_its_level():
    rng, resamples = np.random.default_rng(0), Resamples(200, 400)
    chances = np.array([0.7, 0.8])
    runs = {n: [measured(rng.random(200) < p, resamples) for _ in range(3)] for n, p in zip("yx", chances, strict=True)}
    (found,) = paired.differences(runs, ["a"])
    shift = found["interval"][0]
    runs["x"] = [paired.Measured(run.values - shift, run.resampled - shift) for run in runs["x"]]
    (found,) = paired.differences(runs, ["a"])
    assert found["p_value"] == pytest.approx(1 - paired.LEVEL)


class Simulated:
    """Two methods whose difference in accuracy is 10 points, from other seeds and other examples at each draw."""

    EXAMPLES, DIFFERENCE = 300, 0.1

    def __init__(self, seeds, between_seeds, alike=0.8):
        self.seeds, self.between_seeds, self.alike = seeds, between_seeds, alike
        self.resamples = Resamples(self.EXAMPLES, 200)

    def runs(self, rng, difference=DIFFERENCE):
        """An example is as hard for one method as for the other in a share `alike` of cases."""
        hard, alike = rng.random(self.EXAMPLES), rng.random(self.EXAMPLES) < self.alike
        own = np.where(alike, hard, rng.random((2, self.EXAMPLES)))
        chances = [0.6, 0.6 + difference] + self.between_seeds * rng.normal(size=(self.seeds, 2))
        return {
            name: [measured(own[m] < chance, self.resamples) for chance in chances[:, m]] for m, name in enumerate("yx")
        }

    def intervals(self, draws):
        rng = np.random.default_rng(0)
        return np.array([paired.differences(self.runs(rng), ["a"])[0]["interval"] for _ in range(draws)])


def held(simulated):
    """How often the interval holds the true difference."""
    low, high = simulated.intervals(draws=1000).T
    return np.mean((low <= simulated.DIFFERENCE) & (high >= simulated.DIFFERENCE))


@pytest.mark.parametrize("between_seeds", [0.0, 0.02, 0.1])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_interval_holds_the_true_difference(seeds, between_seeds):
    assert 0.93 < held(Simulated(seeds, between_seeds)) < 0.99


def test_with_one_seed_it_holds_what_is_true_of_the_two_models_alone():
    assert 0.93 < held(Simulated(1, 0.0)) < 0.97
    assert held(Simulated(1, 0.1)) < 0.5


def test_it_is_narrower_than_without_pairing():
    alike, unlike = (np.mean(np.diff(Simulated(3, 0.0, share).intervals(20), axis=1)) for share in (0.9, 0.0))
    assert alike < 0.6 * unlike


def test_where_no_method_differs_few_are_said_to():
    """Six comparisons at a time: without a correction, more than one in twenty times some would."""
    rng, simulated = np.random.default_rng(0), Simulated(3, 0.0, alike=0.0)
    wrong = uncorrected = 0
    for _ in range(200):
        first, second = (simulated.runs(rng, difference=0.0) for _ in range(2))
        runs = {"w": first["y"], "x": first["x"], "y": second["y"], "z": second["x"]}
        found = paired.differences(runs, ["a"])
        wrong += any(one["supported"] for one in found)
        uncorrected += any(one["p_value"] < 0.05 for one in found)
    assert wrong <= 0.05 * 200 + 6 < uncorrected


def test_supported_is_what_benjamini_and_hochberg_find():
    p_values = np.array([0.001, np.nan, 0.02, 0.03, 0.06, 0.5])
    ranked = np.sort(p_values[~np.isnan(p_values)])
    limit = max(p for rank, p in enumerate(ranked, start=1) if p <= 0.05 * rank / len(ranked))
    assert paired._supported(p_values) == (p_values <= limit).tolist() == [True, False, True, True, False, False]


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_method_does_not_differ_from_itself(seeds):
    resamples = Resamples(60, 50)
    run = [measured(np.arange(60) < 40, resamples)] * seeds
    (found,) = paired.differences({"x": run, "y": run}, ["a"])
    assert found == {
        "pattern": "a",
        "methods": ["y", "x"],
        "difference": 0,
        "interval": [0, 0],
        "p_value": 1,
        "supported": False,
    }


def test_what_no_example_defines_is_none():
    resamples = Resamples(40, 50)
    run = decided(np.arange(80).reshape(2, 40) % 3 > 0, ("a", "b"))
    run.counted[1] = False
    other = decided(np.zeros((2, 40), bool), ("a", "b"))
    other.counted[1] = False
    found = paired.differences({"x": [paired.measured(other, resamples)], "y": [paired.measured(run, resamples)]}, "ab")
    assert found[0]["supported"] and found[0]["p_value"] == paired.SMALLEST_P_VALUE
    nothing = {"difference": None, "interval": [None, None], "p_value": None, "supported": False}
    assert found[1] == {"pattern": "b", "methods": ["y", "x"]} | nothing
    only = [paired.Measured(one.values[1:], one.resampled[1:]) for one in (paired.measured(run, resamples),) * 2]
    assert paired.differences({"x": only[:1], "y": only[1:]}, "b") == [found[1]]
