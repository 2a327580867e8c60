"""umemma_jax/reporting/results.py: words, ceilings and means over seeds."""

import numpy as np
import pytest

from tests.example_results import audio_undefined, example_results, multi_label, three_modalities
from umemma_jax.errors import UserError
from umemma_jax.reporting import results as r


def test_percent_has_one_decimal_and_two_on_large_splits():
    assert r.percent(0.97222, 450) == "97.2"
    assert r.percent(0.97222, 5000) == "97.2"
    assert r.percent(0.97222, 5001) == "97.22"


def test_a_number_that_is_not_defined_is_a_dash():
    assert r.percent(None, 450) == r.points(None, 450) == "\u2013"
    assert r.difference(0.5, None) is r.difference(None, 0.5) is None
    assert r.difference(0.75, 0.5) == 0.25


def test_points_carry_their_sign():
    assert r.points(0.0021, 450) == "+0.2"
    assert r.points(-0.0021, 450) == "\u22120.2"
    assert r.points(-0.0001, 450) == "0.0"


def test_patterns_say_what_is_missing():
    modalities = ["image", "audio", "text"]
    assert r.pattern_label("image+audio+text", modalities) == "complete (image + audio + text)"
    assert r.pattern_label("image+text", modalities) == "image + text (audio missing)"
    assert r.pattern_label("text", modalities) == "text alone (image, audio missing)"


def test_ceiling_is_the_best_uni_modal_model_of_what_is_left():
    ceilings = three_modalities()["ceilings"]
    assert r.best_left(ceilings, "image+audio", "accuracy") == ("image", 0.815)
    assert r.best_left(ceilings, "audio+text", "accuracy") == ("text", 0.905)
    assert r.best_left(ceilings, "audio", "accuracy") == ("audio", 0.79)


def test_ceiling_is_of_those_that_are_defined():
    ceilings = audio_undefined()["ceilings"]
    assert r.best_left(ceilings, "image+audio", "accuracy") == ("image", 0.951)
    assert r.best_left(ceilings, "audio+image", "accuracy") == ("image", 0.951)
    assert r.best_left(ceilings, "audio", "accuracy") == ("audio", None)


def test_a_mean_over_seeds_of_which_one_has_no_number_is_none():
    nothing = {"mean": None, "std": None}
    comparison = r.compare([audio_undefined(seed=0), example_results(seed=1)])
    content = comparison["methods"]["ume_mma"]
    assert content["patterns"]["audio"]["accuracy"] == content["differences"]["audio"] == nothing
    assert comparison["ceilings"]["audio"]["macro_f1"] == nothing
    assert_mean_std(content["patterns"]["image"]["accuracy"], [0.949, 0.949])
    assert comparison["not_validated"] == {"ceilings": ["audio"], "thresholds": ["audio"]}


def test_what_validation_could_not_judge_is_said():
    assert r.not_validated(example_results()) == []
    ceilings, thresholds = r.not_validated(audio_undefined())
    assert ceilings.startswith("No validation example can judge audio alone: what stands as ceiling is of the last")
    assert thresholds == "No validation example can tune the thresholds of audio: they stay 0.50."


def test_the_headline_metric_comes_first_and_tuned_ones_last():
    assert r.metrics(example_results()) == r.grid_metrics(example_results()) == ["accuracy", "macro_f1"]
    untuned = ["macro_f1", "micro_f1", "weighted_f1", "samples_f1"]
    tuned = [f"tuned_{name}" for name in untuned]
    assert r.metrics(multi_label()) == [*untuned, "mAP", *tuned]
    assert r.grid_metrics(multi_label()) == untuned + tuned


def test_metrics_have_the_names_that_people_write():
    assert [r.metric_label(name) for name in ("weighted_f1", "mAP", "tuned_macro_f1")] == [
        "weighted F1",
        "mAP",
        "macro-F1 at the tuned threshold",
    ]


def seeded_rows():
    """Two methods x three seeds with noise; the second one, as a rule, trains no uni-modal models."""
    rng = np.random.default_rng(0)
    rows = []
    for method in ("ume_mma", "late_fusion"):
        for seed in (2, 0, 1):
            patterns = dict(zip(("image+audio", "image", "audio"), rng.uniform(0.5, 1, 3), strict=True))
            ceilings = dict(zip(("image", "audio"), rng.uniform(0.5, 1, 2), strict=True))
            rows.append(example_results(patterns, ceilings if method == "ume_mma" else {}, method=method, seed=seed))
    return rows


def assert_mean_std(found, values):
    assert found["mean"] == pytest.approx(np.mean(values))
    assert found["std"] == pytest.approx(np.std(values, ddof=1))


def test_comparison_agrees_with_numpy():
    rows = seeded_rows()
    comparison = r.compare(rows)
    assert list(comparison["methods"]) == ["ume_mma", "late_fusion"]
    for method, content in comparison["methods"].items():
        own = [row for row in rows if row["method"] == method]
        assert content["seeds"] == [0, 1, 2]
        for pattern, scores in content["patterns"].items():
            assert set(scores) == {"accuracy", "macro_f1"}
            for metric in scores:
                assert_mean_std(scores[metric], [row["patterns"][pattern][metric] for row in own])
        for number, cell in enumerate(content["missing_rates"]):
            assert_mean_std(cell["macro_f1"], [row["missing_rates"][number]["mean"]["macro_f1"] for row in own])
    for modality, scores in comparison["ceilings"].items():
        assert_mean_std(scores["accuracy"], [row["ceilings"][modality]["accuracy"] for row in rows[:3]])


def test_comparison_of_multi_label_results_has_all_metrics_where_they_exist():
    rows = [multi_label(seed=0), multi_label(seed=1)]
    comparison = r.compare(rows)
    content = comparison["methods"]["ume_mma"]
    assert comparison["metrics"] == list(content["patterns"]["image"]) == r.metrics(rows[0])
    assert_mean_std(content["patterns"]["image"]["mAP"], [row["patterns"]["image"]["mAP"] for row in rows])
    assert content["missing_rates"][0].keys() - {"kind", "rate"} == set(r.grid_metrics(rows[0]))
    ceilings = [row["ceilings"]["image"]["macro_f1"] for row in rows]
    below = [row["patterns"]["image"]["macro_f1"] - c for row, c in zip(rows, ceilings, strict=True)]
    assert_mean_std(content["differences"]["image"], below)


def test_differences_are_from_the_ceiling_of_the_same_seed():
    rows = seeded_rows()
    ceilings = {row["seed"]: row["ceilings"]["audio"]["accuracy"] for row in rows[:3]}
    late_fusion = [row["patterns"]["audio"]["accuracy"] - ceilings[row["seed"]] for row in rows[3:]]
    differences = r.compare(rows)["methods"]["late_fusion"]["differences"]
    assert_mean_std(differences["audio"], late_fusion)
    assert set(differences) == {"image", "audio"}, "the complete pattern has no ceiling"


def test_one_seed_has_no_deviation_and_no_ceilings_no_differences():
    comparison = r.compare([example_results(ceilings={})])
    content = comparison["methods"]["ume_mma"]
    assert content["patterns"]["image"]["accuracy"] == {"mean": 0.949, "std": None}
    assert content["differences"] == {}
    assert comparison["ceilings"] == {}


def test_what_cannot_be_compared_is_named():
    one = example_results()
    with pytest.raises(UserError, match="nothing to compare"):
        r.compare([])
    with pytest.raises(UserError, match='dataset is "av_mnist_large" and "av_mnist_small"'):
        r.compare([one, example_results(seed=1) | {"dataset": "av_mnist_large"}])
    with pytest.raises(UserError, match="method ume_mma, seed 0 comes twice"):
        r.compare([one, example_results()])
    other = example_results(seed=1)
    other["missing_rates"] = other["missing_rates"][1:]
    with pytest.raises(UserError, match="seed 1 has other missing rates"):
        r.compare([one, other])
