"""umemma_jax/reporting/headlines.py: what is lost when what is missing, why, and how sure."""

import pytest

from tests.example_results import (
    all_undefined,
    analysed,
    audio_undefined,
    example_results,
    multi_label,
    six_modalities,
    three_modalities,
    uncalibrated,
)
from umemma_jax.reporting.headlines import ceiling, headlines


def test_an_older_report_tells_what_is_lost():
    (lost,) = headlines(example_results())
    assert lost.sentences == ["With everything there, accuracy is 99.3 %."]
    assert lost.header == ["missing", "accuracy, %", "lost, points", "ceiling, %"]
    assert lost.rows == [["image", "97.0", "2.3", "97.2"], ["audio", "94.9", "4.4", "95.1"]]


def test_three_questions_are_answered():
    lost, why, sure = headlines(analysed(example_results()))
    assert (lost.title, why.title, sure.title) == ("What is lost when what is missing", "Why", "How sure")
    assert "Worst of all patterns: without audio, 94.9 %; worst class there: seven, recall 86.9 %, 41 examples." in (
        lost.sentences
    )
    assert why.sentences[0].startswith(
        "Of 2.303 nats there are to know about a label, all modalities together tell 2.245."
    )
    assert sure.rows[0] == ["everything there", "1.4", "0.5", "0.157", "0.057", "89.4", "1.04"]


def test_each_modality_lost_has_a_row():
    lost, why, sure = headlines(analysed(six_modalities()))
    assert [row[0] for row in lost.rows] == [row[0] for row in why.rows] == [f"view_{number}" for number in range(1, 7)]
    assert [row[0] for row in sure.rows][-1] == "only view_1", "the worst of all patterns"


def test_multi_label_headlines_are_at_tuned_thresholds():
    lost, *_ = headlines(analysed(multi_label()))
    assert lost.sentences[0] == "With everything there, tuned macro-F1 is 70.3 % (69.3 to 71.3)."
    assert "worst class there: seven, F1 57.9 %" in lost.sentences[1]


def test_what_is_lost_is_over_the_examples_that_the_interval_is_of():
    results = analysed(example_results())
    results["robustness"]["lost"]["image"] = 0.051  # the data lack the image in some of the examples
    lost, *_ = headlines(results)
    assert lost.rows[1] == ["audio", "94.9", "93.9 to 95.9", "5.1", "3.4 to 5.4", "95.1"]


def test_synergy_is_told_as_such():
    results = analysed(example_results())
    results["information"]["redundancy"] = -0.25
    _, why, _ = headlines(results)
    assert why.sentences[0].endswith("What each tells alone adds up to 0.250 less: together they tell more.")


def test_without_validation_nothing_is_called_calibrated():
    *_, sure = headlines(uncalibrated(analysed(example_results())))
    assert "There are no validation examples, so that nothing is calibrated." in sure.sentences
    assert sure.rows[0] == ["everything there", "1.4", "\u2013", "0.157", "\u2013"]


def test_the_ceiling_is_the_hardest_that_the_results_name():
    assert ceiling(three_modalities(), "image+audio") == ("image", 0.815)
    model, value = ceiling(analysed(three_modalities()), "image+audio")
    assert (model, value) == ("ensemble", pytest.approx(0.926))


@pytest.mark.parametrize("results", [audio_undefined(), all_undefined()], ids=["audio", "all"])
def test_what_no_example_defines_is_a_dash(results):
    text = str(headlines(analysed(results)))
    assert "None" not in text and "nan" not in text
    assert ["image", *["\u2013"] * 5] in headlines(analysed(results))[0].rows
