"""umemma_jax/reporting/verdict.py: what is said of methods against the references."""

import pytest

from tests.example_results import COLLAPSED, example_results
from tests.reporting.test_markdown import table_rows
from umemma_jax.evaluation import verdict as numbers
from umemma_jax.reporting.markdown import comparison_markdown, comparison_summary
from umemma_jax.reporting.results import compare

VALUES = {
    "ume": {"complete": [0.80, 0.81, 0.79], "nll": [0.50, 0.52, 0.51]},
    "ume_mma": {"complete": [0.80, 0.80, 0.80], "nll": [0.49, 0.53, 0.51]},
    "late_fusion": {"complete": [0.90, 0.91, 0.89], "nll": [0.62, 0.63, 0.61]},
}


def pattern(name, difference, p_value, finding):
    against = {"pattern": name, "method": "late_fusion", "reference": "ume", "difference": difference}
    interval = [difference - 0.1, difference + 0.1]
    return {**against, "interval": interval, "p_value": p_value, "holm": p_value, "finding": finding}


def compared(values):
    rows = [example_results(COLLAPSED, method=method, seed=seed) for method in values for seed in range(3)]
    runs = {method: numbers.of_seeds(own) for method, own in values.items()}
    paired = {"metric": "accuracy", "level": 0.95, "resamples": 1000, "seed": 0, "false_discovery_rate": 0.05}
    verdict = {
        "references": ["ume", "ume_mma"],
        "error_rate": 0.05,
        "measures": numbers.by_measure(runs, ("complete", "nll"), ["ume", "ume_mma"]),
        "patterns": [pattern("image", -0.3, 4e-9, "worse"), pattern("audio", 0.0, 1.0, "undecided")],
    }
    return compare(rows, {**paired, "differences": [], "verdict": verdict})


def test_a_method_that_is_better_is_named_with_its_difference():
    summary = comparison_summary(compared(VALUES))
    assert "Better than UME average by more than the error: late fusion (complete +10.0 (+10.0 to +10.0))." in summary
    assert "Better than UME-MMA by more than the error: late fusion (complete +10.0 (+7.5 to +12.5))." in summary


def test_where_none_is_better_it_is_said():
    values = {name: own for name, own in VALUES.items() if name != "late_fusion"}
    summary = comparison_summary(compared(values))
    for reference in ("UME average", "UME-MMA"):
        assert f"No method beats {reference} by more than the error, by any measure." in summary


@pytest.fixture(scope="module")
def markdown():
    return comparison_markdown(compared(VALUES))


def test_all_measures_and_comparisons_are_tables(markdown):
    (standing,) = table_rows(markdown, "late fusion")
    assert standing == ["late fusion", "90.0 ± 1.0", "0.620 ± 0.010"]
    compared = [row for row in table_rows(markdown, "complete") if len(row) == 6]
    assert compared[1] == ["complete", "late fusion", "UME average", "+10.0 (+10.0 to +10.0)", "< 0.001", "better"]


def test_of_patterns_only_findings_are_listed(markdown):
    assert "Of 2 comparisons under single patterns 1 come to a finding." in markdown
    (row,) = table_rows(markdown, "image  ")
    assert row == ["image", "late fusion", "UME average", "\u221230.0 (\u221240.0 to \u221220.0)", "< 0.001", "worse"]


def test_nats_are_no_percentages(markdown):
    row = next(row for row in table_rows(markdown, "NLL") if row[1:3] == ["late fusion", "UME average"])
    assert row[3].startswith("+0.110 (+0.08") and row[-1] == "worse"
