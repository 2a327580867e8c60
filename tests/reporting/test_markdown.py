"""umemma_jax/reporting/markdown.py: the words and tables of the reports."""

import json

from tests.example_results import (
    all_undefined,
    analysed,
    audio_undefined,
    example_results,
    multi_label,
    three_modalities,
)
from umemma_jax.reporting.markdown import comparison_markdown, report_markdown, summary
from umemma_jax.reporting.results import compare


def table_rows(markdown, first_cell):
    """Cells of the rows that begin with the words given."""
    rows = [line.strip("| ").split("|") for line in markdown.splitlines() if line.startswith(f"| {first_cell}")]
    return [[cell.strip() for cell in row] for row in rows]


def test_pattern_table():
    markdown = report_markdown(example_results())
    assert table_rows(markdown, "complete") == [["complete (image + audio)", "99.3", "98.3", "\u2013", "\u2013"]]
    assert table_rows(markdown, "image alone") == [["image alone (audio missing)", "94.9", "93.9", "95.1", "\u22120.2"]]
    assert table_rows(markdown, "audio alone") == [["audio alone (image missing)", "97.0", "96.0", "97.2", "\u22120.2"]]


def test_what_no_example_defines_is_a_dash():
    markdown = report_markdown(audio_undefined())
    assert table_rows(markdown, "audio alone") == [["audio alone (image missing)", "0", *["\u2013"] * 4]]
    assert table_rows(markdown, "image alone")[0][-2:] == ["95.1", "\u22120.2"]
    assert "No validation example can judge audio alone" in markdown
    assert set(table_rows(report_markdown(all_undefined()), "50 %")[0][1:]) == {"\u2013"}


def test_a_comparison_of_what_is_not_defined_is_a_dash():
    markdown = comparison_markdown(compare([audio_undefined(seed=0), audio_undefined(seed=1)]))
    accuracy, _, difference = table_rows(markdown, "audio alone")
    assert accuracy[1:] == ["\u2013", "\u2013"]
    assert difference[1:] == ["\u2013"]
    assert table_rows(markdown, "image alone")[0][1:] == ["94.9 ± 0.0", "95.1 ± 0.0"]


def test_grid_tables_are_of_the_headline_metric_first():
    rows = table_rows(report_markdown(example_results()), "50 %")
    assert rows == [
        ["50 %", "98.2 ± 0.2", "97.1 ± 0.2", "97.6 ± 0.2"],
        ["50 %", "97.2 ± 0.2", "96.1 ± 0.2", "96.6 ± 0.2"],
    ]


def test_multi_label_report_has_all_metrics_of_every_pattern_and_uni_modal_model():
    markdown = report_markdown(multi_label())
    assert "![macro-F1 against missing rate](robustness.png)" in markdown
    patterns, tuned = table_rows(markdown, "image alone")
    assert patterns[1:] == ["64.9", "66.9", "65.9", "63.9", "69.9", "65.1", "\u22120.2"]
    assert tuned[1:] == ["65.9", "67.9", "66.9", "64.9"]
    assert table_rows(markdown, "image |") == [["image", "65.1", "67.1", "66.1", "64.1", "70.1", "66.1"]]
    headers = table_rows(markdown, "pattern") + table_rows(markdown, "model")
    assert headers[0][1:6] == ["macro-F1, %", "micro-F1, %", "weighted F1, %", "samples F1, %", "mAP, %"]
    assert headers[1][1:] == headers[0][1:5]
    assert headers[2][1:] == [*headers[0][1:6], "macro-F1 at the tuned threshold, %"]


def test_multi_label_grid_has_every_f1_at_both_thresholds():
    markdown = report_markdown(multi_label())
    titles = [line.split(" in %")[0] for line in markdown.splitlines() if "seeded missing tables per cell" in line]
    untuned = ["Macro-F1", "Micro-F1", "Weighted F1", "Samples F1"]
    assert titles == untuned + [f"{title} at the tuned threshold" for title in untuned]
    assert [row[1] for row in table_rows(markdown, "0 %")][:4] == [
        "69.3 ± 0.0",
        "71.3 ± 0.0",
        "70.3 ± 0.0",
        "68.3 ± 0.0",
    ]


def test_multi_label_report_without_tuned_thresholds_or_ceilings():
    results = multi_label(ceilings={})
    del results["thresholds"]
    markdown = report_markdown(results)
    assert "At the thresholds tuned" not in markdown and "uni-modal models" not in markdown


def test_multi_label_summary_fits_a_terminal():
    (row,) = table_rows(summary(multi_label()), "image alone")
    assert row[1:] == ["64.9", "66.9", "65.1", "\u22120.2"]


def test_report_without_ceilings_has_no_such_columns():
    markdown = report_markdown(example_results(ceilings={}))
    assert table_rows(markdown, "image alone") == [["image alone (audio missing)", "94.9", "93.9"]]
    assert "eiling" not in markdown


def test_three_modalities_name_the_best_of_what_is_left():
    markdown = report_markdown(three_modalities())
    assert table_rows(markdown, "audio + text") == [
        ["audio + text (image missing)", "95.1", "94.1", "90.5 (text)", "+4.6"]
    ]
    patterns = [row[0] for row in table_rows(markdown, "")]
    first = patterns.index("complete (image + audio + text)")
    assert patterns[first + 6] == "text alone (image, audio missing)"


def test_other_metrics_keep_their_names():
    text = json.dumps(example_results()).replace("accuracy", "mAP").replace("macro_f1", "micro_f1")
    markdown = report_markdown(json.loads(text))
    assert "| mAP, % | micro-F1, % |" in markdown
    assert "mAP in %, mean" in markdown
    assert "Micro-F1 in %, mean" in markdown


def test_large_split_has_two_decimals():
    assert table_rows(report_markdown(example_results(examples=10_000)), "image alone")[0][1] == "94.90"


def test_report_defines_its_words_and_says_how_to_repeat_it():
    markdown = report_markdown(example_results())
    assert "- **missing rate**: 7 of 10 examples lose the modality at 70 %." in markdown
    assert "```\npython main.py --mode=eval\n```" in markdown
    assert "jax 0.10.2" in markdown
    assert table_rows(markdown, "encoder pass") == [["encoder pass", "0.412 s"]]
    assert table_rows(markdown, "compilations") == [["compilations", "encode 1"]]


def test_command_and_versions_may_be_absent():
    results = example_results()
    del results["command"], results["versions"]
    assert "```" not in report_markdown(results)


def test_what_the_data_itself_lacks_is_told():
    results = example_results()
    results["naturally_missing"]["audio"] = 20
    results["patterns"]["audio"]["examples"] = 430
    markdown = report_markdown(results)
    assert "audio in 20 of 450 examples" in markdown
    assert table_rows(markdown, "audio alone")[0][:3] == ["audio alone (image missing)", "430", "97.0"]
    assert "in the data itself" not in report_markdown(example_results())


def test_the_first_page_is_of_what_is_lost_why_and_how_sure():
    markdown = report_markdown(analysed(example_results()))
    headings = [line for line in markdown.splitlines() if line.startswith("## ")]
    assert headings[:4] == ["## What is lost when what is missing", "## Why", "## How sure", "## Every pattern"]
    lost, why = table_rows(markdown, "image   ")[:1], table_rows(markdown, "image    ")
    assert lost == [["image", "97.0", "96.0 to 98.0", "2.3", "1.3 to 3.3", "97.2"]]
    assert why == [["image", "1.989", "0.144", "6.4", "+44.2"]]
    first_page = markdown[: markdown.index("## Every pattern")]
    assert table_rows(first_page, "without audio") == [
        ["without audio", "2.5", "0.8", "0.414", "0.314", "89.7", "1.26"]
    ]


def test_every_further_number_has_a_table():
    markdown = report_markdown(analysed(example_results()))
    tables = [line.removeprefix("### ") for line in markdown.splitlines() if line.startswith("### ")]
    assert tables == [
        "How sure each pattern's value is",
        "Calibration, before and after a temperature",
        "Conformal sets at 90 %",
        "Worst class",
        "What each pattern leaves open",
        "Right with fewer modalities, wrong with more",
        "Cost of each pattern",
        "Intervals of accuracy, %",
        "Share of the examples that keep every modality, %",
        "Calibrated NLL, nats",
        "image and audio missing at rates of their own: accuracy, %",
    ]
    assert not [line for line in report_markdown(example_results()).splitlines() if line.startswith("### ")]


def test_a_name_with_a_bar_stays_in_its_cell():
    results = analysed(example_results())
    results["worst_class"]["image"]["class"] = "cats | dogs"
    assert "cats \\| dogs" in report_markdown(results)


def test_a_model_of_anyone_has_no_stand_in_and_no_cost():
    results = {key: value for key, value in example_results().items() if key not in ("seed", "stand_in", "timing")}
    markdown = report_markdown(results)
    assert "stand-in" not in markdown and "Seed" not in markdown and "## Cost" not in markdown


def test_summary_is_the_pattern_table():
    lines = summary(example_results()).splitlines()
    assert lines[0] == "av_mnist_small: UME-MMA with modalities missing"
    assert table_rows("\n".join(lines), "image alone")[0][1:] == ["94.9", "93.9", "95.1", "\u22120.2"]
