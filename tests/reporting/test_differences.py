"""umemma_jax/reporting/differences.py: what is said of paired differences, and what is not."""

import json

import pytest

from tests.example_results import COLLAPSED, example_results, three_modalities
from tests.reporting.test_markdown import table_rows
from umemma_jax.reporting.differences import supported_differences
from umemma_jax.reporting.markdown import comparison_markdown, comparison_summary
from umemma_jax.reporting.report import write_comparison
from umemma_jax.reporting.results import compare

DIFFERENCES = {  # of UME-MMA minus late fusion
    "image+audio": (0.001, [-0.006, 0.008], 0.8, False),
    "image": (0.356, [0.331, 0.38], 1e-12, True),
    "audio": (-0.02, [-0.03, -0.01], 0.001, True),
}


def difference(pattern, value, interval, p_value, supported, methods=("ume_mma", "late_fusion")):
    words = {"difference": value, "interval": interval, "p_value": p_value, "supported": supported}
    return {"pattern": pattern, "methods": list(methods), **words}


def compared(differences, seeds=3, examples=450):
    rows = [
        example_results(COLLAPSED, method=method, seed=seed, examples=examples)
        for method in ("late_fusion", "ume_mma")
        for seed in range(seeds)
    ]
    settings = {"metric": "accuracy", "level": 0.95, "resamples": 1000, "seed": 0, "false_discovery_rate": 0.05}
    return compare(rows, {**settings, "differences": differences})


@pytest.fixture
def comparison():
    return compared([difference(pattern, *words) for pattern, words in DIFFERENCES.items()])


def test_differences_are_told_in_words(comparison):
    assert comparison_summary(comparison).splitlines() == [
        "Complete, UME-MMA and late fusion cannot be told apart: +0.1 points (\u22120.6 to +0.8).",
        "Without audio, UME-MMA is better than late fusion by 35.6 points (33.1 to 38.0).",
        "Without image, late fusion is better than UME-MMA by 2.0 points (1.0 to 3.0).",
        "Differences are of accuracy, paired by example and seed; intervals of 95 % are over the examples and the 3 "
        "training seeds, so few that they are wide.",
        "Of 3 comparisons, those are called supported of which at most 5 % are expected to be chance "
        "(Benjamini-Hochberg); the intervals are not widened for there being many.",
    ]


def test_and_in_a_table(comparison):
    markdown = comparison_markdown(comparison)
    assert "## Which differences the data support" in markdown.splitlines()
    (row,) = table_rows(markdown, "Without audio")
    assert row == ["Without audio", "UME-MMA \u2212 late fusion", "+35.6", "+33.1 to +38.0", "yes"]
    (row,) = table_rows(markdown, "Complete")
    assert row[2:] == ["+0.1", "\u22120.6 to +0.8", "no"]


def test_an_interval_beside_0_is_not_enough_among_many():
    (sentence, *_) = supported_differences(compared([difference("image", 0.01, [0.001, 0.019], 0.04, False)])).sentences
    assert sentence == (
        "Without audio, UME-MMA and late fusion cannot be told apart among 1 comparisons: +1.0 points (+0.1 to +1.9)."
    )


def test_of_one_seed_it_is_said_what_is_not_known():
    sentences = supported_differences(compared([difference("image", *DIFFERENCES["image"])], seeds=1)).sentences
    assert "with one training seed they say nothing of how another would turn out" in sentences[1]


def test_many_examples_carry_two_decimals():
    part = supported_differences(compared([difference("image", *DIFFERENCES["image"])], examples=6000))
    assert part.sentences[0].endswith("by 35.60 points (33.10 to 38.00).")


def test_what_no_example_defines_is_a_dash():
    part = supported_differences(compared([difference("image", None, [None, None], None, False)]))
    assert part.rows == [["Without audio", "UME-MMA \u2212 late fusion", "\u2013", "\u2013", "\u2013"]]
    assert part.sentences[1].startswith("Of 0 comparisons")


def test_sentences_are_about_the_last_method_and_few_patterns_the_table_has_all():
    methods = ("late_fusion", "ume", "ume_mma")
    rows = [three_modalities() | {"method": method} for method in methods]
    pairs = [("ume_mma", "ume"), ("ume_mma", "late_fusion"), ("ume", "late_fusion")]
    every = [difference(p, 0.1, [0.05, 0.15], 1e-4, True, pair) for p in rows[0]["patterns"] for pair in pairs]
    settings = {"metric": "accuracy", "level": 0.95, "resamples": 1000, "seed": 0, "false_discovery_rate": 0.05}
    part = supported_differences(compare(rows, {**settings, "differences": every}))
    assert len(part.rows) == 7 * 3
    told = [sentence for sentence in part.sentences if "better" in sentence]
    assert len(told) == 4 * 2 and all(" UME-MMA is better than " in sentence for sentence in told)


def test_written_differences_are_those_given(comparison, tmp_path):
    write_comparison(comparison, tmp_path / "report")
    written = json.loads((tmp_path / "report" / "comparison.json").read_text())
    assert written["paired"] == comparison["paired"]
    assert written["paired"]["differences"][1]["interval"] == [0.331, 0.38]


def test_without_paired_differences_the_comparison_is_as_it_was():
    plain = compare([example_results(), example_results(seed=1)])
    assert "paired" not in plain and "support" not in comparison_markdown(plain)
