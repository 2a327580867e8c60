"""Reports of regression: what stands in them is of numbers, in their units, and never of classes."""

import json
import re

import pytest

from tests.evaluation.numbers_said import TARGETS, split
from tests.reporting.test_schema import VALIDATOR
from umemma_jax.evaluation.robustness import Options, report
from umemma_jax.reporting.definitions import definitions
from umemma_jax.reporting.figures import axis_range
from umemma_jax.reporting.markdown import comparison_markdown, report_markdown, summary
from umemma_jax.reporting.reading import read_report
from umemma_jax.reporting.report import write_comparison, write_report
from umemma_jax.reporting.results import best_left, compare

ABOUT = {"dataset": "houses", "split": "test", "method": "ume_mma", "seed": 0, "stand_in": "token"}
OPTIONS = Options(rates=(0.0, 0.5, 1.0), seeds=2, resamples=30)
OF_CLASSES = ("accuracy", "F1", "temperature", "ECE", "Brier", "class", "None", "nan")


def results_of(targets=TARGETS[:1], validated=True, **options):
    validation = split(200, targets=targets, seed=1, **options) if validated else None
    found = report(split(300, targets=targets, seed=2, **options), validation, OPTIONS).results
    return ABOUT | found


FORMS = {
    "one target": results_of(),
    "several": results_of(TARGETS),
    "three modalities, incomplete": results_of(modalities=("a", "b", "c"), complete=False),
    "not validated": results_of(validated=False),
}


@pytest.mark.parametrize("name", FORMS)
def test_report_json_is_as_described(name, tmp_path):
    write_report(FORMS[name], tmp_path)
    VALIDATOR.validate(json.loads((tmp_path / "report.json").read_text()))
    assert read_report(tmp_path / "report.json")["patterns"] == FORMS[name]["patterns"]


@pytest.mark.parametrize("name", FORMS)
def test_the_words_are_those_of_regression(name):
    text = report_markdown(FORMS[name] | {"definitions": definitions(FORMS[name])})
    assert not [word for word in OF_CLASSES if re.search(rf"\b{word}\b", text)]
    for word in ("R²", "RMSE", "MAE", "Spearman"):
        assert word in text
    assert "RMSE, %" not in text


def test_errors_are_in_the_unit_of_the_target():
    results = FORMS["one target"]
    text = report_markdown(results | {"definitions": {}})
    assert f"RMSE is {results['patterns']['a+b']['rmse']:.4g}" in text
    assert "in units of price, whose standard deviation is 20 in training" in text
    assert f"{100 * results['patterns']['a+b']['r2']:.1f}" in summary(results)


def test_each_of_several_targets_has_its_own_row():
    text = report_markdown(FORMS["several"] | {"definitions": {}})
    scores = FORMS["several"]["by_target"]["a"]["views"]
    (row,) = [line for line in text.splitlines() if "views" in line and line.startswith("| without b ")]
    assert f"{scores['rmse']:.4g}" in row


def test_the_best_ceiling_has_the_least_error():
    ceilings = {"a": {"r2": 0.5, "rmse": 2.0}, "b": {"r2": 0.2, "rmse": 5.0}}
    assert best_left(ceilings, "a+b", "rmse") == ("a", 2.0)
    assert best_left(ceilings, "a+b", "r2") == ("a", 0.5)


def test_comparisons(tmp_path):
    rows = [results_of() | {"method": method} for method in ("late_fusion", "ume_mma")]
    comparison = compare(rows)
    write_comparison(comparison, tmp_path)
    text = comparison_markdown(comparison)
    assert "## R², %" in text and "## RMSE\n" in text


def test_axes_reach_below_zero_where_r2_does():
    low, high, tick = axis_range([-0.32, 0.4])
    assert low <= -0.32 and high >= 0.4
    assert low / tick == pytest.approx(round(low / tick))
