"""The whole report against brute force: each number from the logits anew, by its definition."""

import itertools
import json

import numpy as np
import pytest
from scipy import special
from sklearn import metrics as sk

from tests.evaluation.said import split
from umemma_jax.evaluation import robustness
from umemma_jax.evaluation.pattern_calibration import PatternCalibration, of_results
from umemma_jax.evaluation.split_logits import PriorCorrected, SplitLogits
from umemma_jax.missing_rates import independent_ranks, keep_independent
from umemma_jax.patterns import all_patterns, pattern_names, pattern_numbers

RATES = (0.0, 0.4, 1.0)


def report(test, validation=None, **changes):
    options = robustness.Options(**{"rates": RATES, "seeds": 2, "resamples": 200, **changes})
    return robustness.report(test, validation, options).results


def decisions(test, results):
    """By pattern what the headline is of, with the calibration that the report states."""
    if not test.multi_label:
        return {name: test.patterns[name].argmax(axis=1) for name in test.names}
    fitted = PatternCalibration.from_dict(of_results(results))
    return {
        name: fitted.probabilities(test.patterns[name], left, True) > fitted.thresholds[left]
        for name, left in zip(test.names, test.left, strict=True)
    }


def headline(test, decided, rows):
    if test.multi_label:
        return sk.f1_score(test.label[rows], decided[rows], average="macro", zero_division=0)
    return np.mean(decided[rows] == test.label[rows])


@pytest.fixture(scope="module", params=itertools.product([False, True], [False, True]), ids=str)
def scene(request):
    """A test split of three modalities, multi-label or not, complete or not, and its report."""
    multi_label, complete = request.param
    forms = {"modalities": ("a", "b", "c"), "multi_label": multi_label, "complete": complete}
    test, validation = split(**forms), split(**forms, seed=1)
    return test, report(test, validation)


def test_a_report_is_json_and_says_what_its_headline_is(scene):
    test, results = scene
    json.dumps(results, allow_nan=False)
    assert results["headline"] == ("tuned_macro_f1" if test.multi_label else "accuracy")
    for name, rows in zip(test.names, test.left >= 0, strict=True):
        expected = headline(test, decisions(test, results)[name], rows)
        assert results["patterns"][name][results["headline"]] == pytest.approx(expected)
        assert results["patterns"][name]["examples"] == rows.sum()


def test_ceilings_are_compared_over_the_examples_that_both_count(scene):
    test, results = scene
    decided, metric = decisions(test, results), results["headline"]
    # The model under test is the uni-modal models' own ensemble: each pattern is one of its ceilings, at difference 0,
    # but for the prior.
    assert results["ceilings"]["a"][metric] == pytest.approx(results["patterns"]["a"][metric])
    assert set(results["ceilings"]) == set("abc") and set(results["ensembles"]) == {"a+b+c", "a+b", "a+c", "b+c"}
    for name, ceiling in results["robustness"]["ceilings"].items():
        kept = [m in name.split("+") for m in "abc"]
        own = test.available[:, "abc".index(ceiling["model"])] if ceiling["model"] in "abc" else True
        rows = (test.available & kept).any(axis=1) & own
        assert ceiling["examples"] == rows.sum()
        assert ceiling["pattern"] == pytest.approx(headline(test, decided[name], rows))
        low, high = results["uncertainty"]["to_ceiling"][name]
        assert low - 1e-6 <= ceiling["pattern"] - ceiling["value"] <= high + 1e-6
        for m in name.split("+"):
            both = (test.available & kept).any(axis=1) & test.available[:, "abc".index(m)]
            alone = headline(test, decided[m], both)
            assert ceiling["pattern"] - ceiling["value"] <= headline(test, decided[name], both) - alone + 1e-9


def test_summaries_over_patterns(scene):
    test, results = scene
    values = {name: results["patterns"][name][results["headline"]] for name in test.names}
    found = results["robustness"]
    assert found["worst_pattern"]["value"] == min(values.values()) == values[found["worst_pattern"]["pattern"]]
    assert found["uniform_mean"] == pytest.approx(np.mean(list(values.values())))
    assert found["deployment"]["mean"] == pytest.approx(found["uniform_mean"])
    curve = [c["mean"][results["headline"]] for c in results["missing_rates"] if c["kind"] == "b"]
    area = 0.4 * (curve[0] + curve[1]) / 2 + 0.6 * (curve[1] + curve[2]) / 2
    assert found["area"]["b"] == pytest.approx(area / values["a+b+c"])


def test_what_is_lost_is_over_the_examples_that_the_pattern_counts(scene):
    test, results = scene
    decided, lost = decisions(test, results), results["robustness"]["lost"]
    assert set(lost) == set(test.names[1:])
    for name, value in lost.items():
        rows = (test.available & [m in name.split("+") for m in "abc"]).any(axis=1)
        assert value == pytest.approx(headline(test, decided["a+b+c"], rows) - headline(test, decided[name], rows))
        low, high = results["uncertainty"]["lost"][name]
        assert low <= value <= high


def test_counter_intuitive_examples_are_right_with_fewer_and_wrong_with_more(scene):
    test, results = scene
    decided = decisions(test, results)
    has_all = (test.available & [True, True, False]).sum(axis=1) == 2
    fewer, more = (decided[name][has_all] == test.label[has_all] for name in ("a", "a+b"))
    pairs = results["robustness"]["counter_intuitive"]["pairs"]
    assert pairs["a < a+b"] == pytest.approx(np.mean(fewer & ~more))


def test_shapley_values_are_means_over_all_orders_and_add_up(scene):
    test, results = scene
    decided, rows, found = decisions(test, results), test.available.all(axis=1), results["shapley"]
    names = {frozenset(name.split("+")): name for name in test.names}

    def value(kept):
        return headline(test, decided[names[kept]], rows) if kept else found["empty"]

    for m in "abc":
        gains = []
        for order in itertools.permutations("abc"):
            before = frozenset(order[: order.index(m)])
            gains.append(value(before | {m}) - value(before))
        assert found["values"][m] == pytest.approx(np.mean(gains))
    assert found["examples"] == rows.sum()
    assert sum(found["values"].values()) == pytest.approx(value(frozenset("abc")) - found["empty"])


def test_information_is_of_the_calibrated_likelihoods(scene):
    test, results = scene
    fitted, rows, found = (
        PatternCalibration.from_dict(of_results(results)),
        test.available.all(axis=1),
        results["information"],
    )
    entropy = {}
    for number, name in enumerate(test.names):
        scaled = test.patterns[name][rows].astype(float) / fitted.temperatures[number]
        if test.multi_label:
            entropy[name] = -special.log_expit(np.where(test.label[rows], scaled, -scaled)).mean()
        else:
            entropy[name] = -special.log_softmax(scaled, axis=1)[np.arange(rows.sum()), test.label[rows]].mean()
    assert {name: found["entropy"][name] for name in test.names} == pytest.approx(entropy, rel=1e-5)
    assert found["complementary"]["a"] == pytest.approx(entropy["b+c"] - entropy["a+b+c"], rel=1e-4)
    nothing = found["entropy"][""]
    alone = sum(nothing - entropy[m] for m in "abc")
    assert found["redundancy"] == pytest.approx(alone - (nothing - entropy["a+b+c"]), rel=1e-4)
    assert found["bayes_error_at_most"]["a"] == pytest.approx(1 - np.exp(-entropy["a"]), rel=1e-5)


def test_cells_have_intervals_likelihoods_and_their_share_of_complete_examples(scene):
    test, results = scene
    for cell in results["missing_rates"]:
        low, high = cell["interval"]
        assert low <= cell["mean"][results["headline"]] <= high and high - low < 0.3
        assert 0 < cell["nll"] < 2
        lossless = cell["rate"] == 0
        assert (
            cell["complete"] == pytest.approx(test.available.all(axis=1).mean()) if lossless else cell["complete"] < 1
        )
    if test.available.all():
        cell = next(c for c in results["missing_rates"] if (c["kind"], c["rate"]) == ("b", 0.4))
        assert cell["complete"] == pytest.approx(0.6)
        whole = next(c for c in results["missing_rates"] if (c["kind"], c["rate"]) == ("b", 1.0))
        assert whole["interval"] == pytest.approx(results["uncertainty"]["patterns"]["a+c"], abs=1e-6)


def test_maps_of_two_rates_lose_each_modality_on_its_own(scene):
    test, results = scene
    decided = np.stack(list(decisions(test, results).values()))
    (found,) = (one for one in results["rate_maps"] if one["modalities"] == ["a", "c"])
    assert len(results["rate_maps"]) == 3 and found["rates"] == list(RATES)
    counts = [round(0.4 * len(test.label)), 0, len(test.label)]
    values = []
    for seed in range(2):
        kept = keep_independent(test.available, independent_ranks(*test.available.shape, seed), counts)
        choice = pattern_numbers(kept)
        rows = choice >= 0
        values.append(headline(test, decided[choice, np.arange(len(choice))], rows))
    assert found["values"][1][2] == pytest.approx(np.mean(values))
    assert found["values"][0][0] == pytest.approx(results["patterns"]["a+b+c"][results["headline"]])


def test_the_worst_class_is_that_of_the_lowest_recall_or_f1(scene):
    test, results = scene
    for name, rows in zip(test.names, test.left >= 0, strict=True):
        decided, label, found = decisions(test, results)[name][rows], test.label[rows], results["worst_class"][name]
        score = sk.f1_score if test.multi_label else sk.recall_score
        each = score(label, decided, average=None, zero_division=0)
        assert found["value"] == pytest.approx(each.min()) == each[test.classes.index(found["class"])]


def test_maps_and_areas_are_of_ascending_rates():
    ascending, other = (report(split(), rates=rates) for rates in ((0.0, 0.3, 1.0), (0.0, 1.0, 0.3)))
    assert other["rate_maps"] == ascending["rate_maps"]
    assert other["robustness"]["area"] == ascending["robustness"]["area"]


# Intervals.


def test_differences_are_paired():
    """Two patterns that err on the same examples differ for sure, though neither is known well."""
    test = split(examples=300)
    worse = {name: logits.copy() for name, logits in test.patterns.items()}
    worse["a"] = worse["a+b"].copy()
    right = worse["a"].argmax(axis=1) == test.label
    worse["a"][np.flatnonzero(right)[:15]] *= -1
    found = report(SplitLogits(test.modalities, test.classes, test.label, test.available, worse, {}))["uncertainty"]
    assert found["ceilings"] == found["ensembles"] == found["to_ceiling"] == {}
    (low, high), (a_low, a_high) = found["lost"]["a"], found["patterns"]["a"]
    assert 0 < low < 15 / 300 < high and high - low < a_high - a_low


def test_an_interval_is_that_of_a_binomial():
    found = report(split(examples=2000), resamples=2000)
    share, (low, high) = found["patterns"]["a"]["accuracy"], found["uncertainty"]["patterns"]["a"]
    deviation = np.sqrt(share * (1 - share) / 2000)
    assert [low, high] == pytest.approx([share - 1.96 * deviation, share + 1.96 * deviation], abs=0.3 * deviation)


# Calibration.


def overconfident(test, factor):
    """The same decisions with logits that are too large, from a calibrated model."""
    patterns = {name: factor * test.patterns[name] for name in test.names}
    return SplitLogits(test.modalities, test.classes, test.label, test.available, patterns, {})


def test_temperatures_mend_overconfidence_and_sets_cover_what_they_promise():
    test, validation = (overconfident(split(examples=4000, seed=seed), 4) for seed in (0, 1))
    results = report(test, validation)
    for name, found in results["calibration"]["patterns"].items():
        assert found["temperature"] > 1.5
        assert found["after"]["ece_equal_mass"] < found["before"]["ece_equal_mass"] / 2
        assert found["after"]["nll"] < found["before"]["nll"]
        for scores, bins in (("before", "reliability_before"), ("after", "reliability")):
            assert sum(found[bins]["examples"]) == 4000 and len(found[bins]["accuracy"]) == 15
            gaps = np.abs(np.subtract(found[bins]["confidence"], found[bins]["accuracy"]))
            error = np.average(gaps, weights=found[bins]["examples"])
            assert error == pytest.approx(found[scores]["ece_equal_mass"])
        assert abs(results["conformal"]["patterns"][name]["coverage"] - 0.9) < 0.02
    assert results["calibration"]["examples"] == 4000


def test_without_validation_the_report_says_what_it_has_not():
    results = report(split())
    assert results["calibration"]["examples"] == 0 and "conformal" not in results and "thresholds" not in results
    found = results["calibration"]["patterns"]["a"]
    assert found["temperature"] is found["after"] is None and found["aurc"] > 0
    assert results["prior"] == "uniform"
    assert results["information"]["entropy"][""] == pytest.approx(np.log(4))


def test_risk_of_the_confident_is_lower_where_confidence_tells():
    test = split(examples=1000)
    found = report(test)["calibration"]["patterns"]["a"]["aurc"]
    assert found < (1 - report(test)["patterns"]["a"]["accuracy"]) / 2


# Information that is known.


def test_information_of_a_joint_that_is_known():
    """Two signs of y: a tells it at 10 % noise, b is a copy of a, c is noise: of known entropies, in nats."""
    rng, examples = np.random.default_rng(0), 200_000
    label = rng.integers(2, size=examples)
    a = label ^ (rng.random(examples) < 0.1)
    likelihood = np.log([[0.9, 0.1], [0.1, 0.9]])[a].astype(np.float32)
    nothing = np.log(np.full((examples, 2), 0.5, np.float32))
    patterns = {name: likelihood if set("ab") & set(name) else nothing for name in pattern_names("abc")}
    available = np.ones((examples, 3), bool)
    test = SplitLogits(("a", "b", "c"), ("x", "y"), label, available, patterns, {})
    found = report(test, rates=(0.0,), seeds=1, resamples=2)["information"]
    known = -(0.9 * np.log(0.9) + 0.1 * np.log(0.1))
    assert found["entropy"]["a"] == found["entropy"]["a+b+c"] == pytest.approx(known, abs=0.005)
    assert found["entropy"][""] == found["entropy"]["c"] == pytest.approx(np.log(2), abs=1e-6)
    assert found["complementary"] == pytest.approx(dict.fromkeys("abc", 0.0), abs=1e-6)
    assert found["redundancy"] == pytest.approx(np.log(2) - known, abs=0.005)
    assert found["bayes_error_at_most"]["a+b+c"] >= 0.1


# Forms.


def test_six_modalities():
    modalities = tuple("abcdef")
    results = report(
        split(examples=60, modalities=modalities), split(examples=60, modalities=modalities, seed=1), seeds=1
    )
    json.dumps(results, allow_nan=False)
    assert len(results["patterns"]) == 63 and len(results["ensembles"]) == 57 and len(results["rate_maps"]) == 15
    assert len(results["missing_rates"]) == 7 * len(RATES)
    best = results["patterns"]["a+b+c+d+e+f"]["accuracy"]
    assert sum(results["shapley"]["values"].values()) == pytest.approx(best - results["shapley"]["empty"])


def test_deployment_weights_of_some_patterns():
    results = report(split(), deployment={"b+a": 3, "b": 1, "a": 0})
    found, values = results["robustness"]["deployment"], results["patterns"]
    assert found["weights"] == {"a+b": 0.75, "b": 0.25}
    assert found["mean"] == pytest.approx(0.75 * values["a+b"]["accuracy"] + 0.25 * values["b"]["accuracy"])


@pytest.mark.parametrize("multi_label", [False, True])
def test_what_no_example_defines_is_none(multi_label):
    """No test example has b, so that nothing is known of it, and of information nothing at all."""
    test, validation = split(multi_label=multi_label), split(multi_label=multi_label, seed=1)
    test.available[:, 1] = False
    results = report(test, validation)
    json.dumps(results, allow_nan=False)
    assert results["patterns"]["b"][results["headline"]] is None
    assert results["uncertainty"]["patterns"]["b"] == results["uncertainty"]["lost"]["b"] == [None, None]
    assert results["uncertainty"]["lost"]["a"] == [0, 0]
    assert results["worst_class"]["b"] == {"class": None, "value": None, "examples": 0}
    assert results["shapley"]["values"] == {"a": None, "b": None}
    assert results["information"]["complementary"] == {"a": None, "b": None}
    assert results["robustness"]["uniform_mean"] is None
    assert results["robustness"]["worst_pattern"]["pattern"] in ("a", "a+b")


def test_what_an_example_lacks_is_never_read():
    clean = split(complete=False)
    given = {name: clean.patterns[name].copy() for name in clean.names}
    for name, pattern in zip(clean.names, all_patterns(2), strict=True):
        given[name][~(clean.available & pattern).any(axis=1)] = 7
    unimodal = {m: np.where(clean.available[:, [k]], x, -7) for k, (m, x) in enumerate(clean.unimodal.items())}
    other = SplitLogits(clean.modalities, clean.classes, clean.label, clean.available, given, unimodal)
    assert report(clean, clean) == report(other, other)


def test_the_same_seed_gives_the_same_report():
    assert report(split(), split(seed=1)) == report(split(), split(seed=1))
    assert report(split(), bootstrap_seed=1)["uncertainty"] != report(split())["uncertainty"]


def test_the_prior_moves_the_ensemble_and_not_its_members():
    test = split(examples=400)
    prior = np.log([0.7, 0.1, 0.1, 0.1])
    shifted = SplitLogits(
        test.modalities,
        test.classes,
        test.label,
        test.available,
        PriorCorrected(("a", "b"), test.available, test.unimodal, prior),
        test.unimodal,
    )
    plain, found = report(test, prior=np.zeros(4)), report(shifted, prior=prior, prior_source="training examples")
    assert found["prior"] == "training examples" and plain["prior"] == "given"
    assert found["ceilings"] == plain["ceilings"] and found["ensembles"] != plain["ensembles"]
    assert found["ensembles"]["a+b"] == found["patterns"]["a+b"]
