"""umemma_jax/report.py: files that people read."""

import io
import json
import struct

import numpy as np
import pytest

from tests.example_results import COLLAPSED, example_results, multi_label, three_modalities
from umemma_jax.errors import UserError
from umemma_jax.report import report_markdown, summary, write_comparison, write_report


def table_rows(markdown, first_cell):
    """Cells of the rows that begin with the words given."""
    rows = [line.strip("| ").split("|") for line in markdown.splitlines() if line.startswith(f"| {first_cell}")]
    return [[cell.strip() for cell in row] for row in rows]


def four_methods():
    return [
        example_results(
            COLLAPSED if method == "late_fusion" else {**COLLAPSED, "image": 0.95}, method=method, seed=seed
        )
        for method in ("late_fusion", "ume_mma")
        for seed in (0, 1)
    ]


def test_report_folder(tmp_path):
    results = example_results()
    write_report(results, tmp_path / "run" / "report")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["report"]
    files = {path.name: path for path in (tmp_path / "run" / "report").iterdir()}
    assert set(files) == {"report.json", "report.md", "robustness.png"}
    assert json.loads(files["report.json"].read_text()) == results
    assert files["report.md"].read_text() == report_markdown(results)
    png = files["robustness.png"].read_bytes()
    assert png.startswith(b"\x89PNG")
    assert struct.unpack(">II", png[16:24]) == (1660, 920)


def test_same_results_give_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        write_report(example_results(), tmp_path / name)
        write_comparison(four_methods(), tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_pattern_table():
    markdown = report_markdown(example_results())
    assert table_rows(markdown, "complete") == [["complete (image + audio)", "99.3", "98.3", "\u2013", "\u2013"]]
    assert table_rows(markdown, "image alone") == [["image alone (audio missing)", "94.9", "93.9", "95.1", "\u22120.2"]]
    assert table_rows(markdown, "audio alone") == [["audio alone (image missing)", "97.0", "96.0", "97.2", "\u22120.2"]]


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
    assert tuned[1:] == ["0.40", "65.9", "67.9", "66.9", "64.9"]
    assert table_rows(markdown, "image |") == [["image", "65.1", "67.1", "66.1", "64.1", "70.1", "0.45", "66.1"]]
    headers = table_rows(markdown, "pattern") + table_rows(markdown, "model")
    assert headers[0][1:6] == ["macro-F1, %", "micro-F1, %", "weighted F1, %", "samples F1, %", "mAP, %"]
    assert headers[1][1:] == ["threshold", *headers[0][1:5]]
    assert headers[2][1:] == [*headers[0][1:6], "tuned threshold", "macro-F1 there, %"]


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
    assert "At the threshold tuned" not in markdown and "uni-modal models" not in markdown


def test_multi_label_summary_fits_a_terminal():
    (row,) = table_rows(summary(multi_label()), "image alone")
    assert row[1:] == ["64.9", "66.9", "65.1", "\u22120.2"]


def test_multi_label_comparison(tmp_path):
    write_comparison([multi_label(seed=0), multi_label(seed=1)], tmp_path / "comparison")
    markdown = (tmp_path / "comparison" / "comparison.md").read_text()
    headings = [line.removeprefix("## ") for line in markdown.splitlines() if line.startswith("## ")]
    assert headings[:5] == ["Macro-F1, %", "Micro-F1, %", "Weighted F1, %", "Samples F1, %", "mAP, %"]
    assert headings[-2:] == ["Distance from the ceiling, points of macro-F1", "Macro-F1 at every missing rate, %"]
    assert table_rows(markdown, "image alone")[4][1:] == ["69.9 ± 0.0", "70.1 ± 0.0"]


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
    assert patterns[2] == "complete (image + audio + text)"
    assert patterns[8] == "text alone (image, audio missing)"


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


def test_missing_tables_are_saved_beside(tmp_path):
    tables = {"image@0.5": np.random.default_rng(0).random((5, 450, 2)) < 0.5}
    write_report(example_results(), tmp_path / "report", tables)
    with np.load(io.BytesIO((tmp_path / "report" / "missing_tables.npz").read_bytes())) as saved:
        np.testing.assert_array_equal(saved["image@0.5"], tables["image@0.5"])


def test_written_again_it_replaces_its_own_files_only(tmp_path):
    write_report(example_results(), tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    write_report(example_results(seed=1), tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["seed"] == 1
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 4


def test_a_number_that_is_none_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match="Out of range"):
        write_report(example_results() | {"seed": float("nan")}, tmp_path / "report")
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*file/report: .*choose another folder"):
        write_report(example_results(), tmp_path / "file" / "report")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_disk_full_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", fail)
    with pytest.raises(UserError, match="No space left on device; free space"):
        write_report(example_results(), tmp_path / "report")
    assert list(tmp_path.iterdir()) == []


def test_summary_is_the_pattern_table():
    lines = summary(example_results()).splitlines()
    assert lines[0] == "av_mnist_small: UME-MMA with modalities missing"
    assert table_rows("\n".join(lines), "image alone")[0][1:] == ["94.9", "93.9", "95.1", "\u22120.2"]


def test_comparison_folder(tmp_path):
    write_comparison(four_methods(), tmp_path / "comparison")
    files = {path.name: path for path in (tmp_path / "comparison").iterdir()}
    assert set(files) == {"comparison.json", "comparison.md", "comparison.png"}
    markdown = files["comparison.md"].read_text()
    accuracy, macro_f1, difference = table_rows(markdown, "image alone")
    assert accuracy == ["image alone (audio missing)", "36.0 ± 0.0", "95.0 ± 0.0", "95.1 ± 0.0"]
    assert macro_f1 == ["image alone (audio missing)", "35.0 ± 0.0", "94.0 ± 0.0", "94.1 ± 0.0"]
    assert difference == ["image alone (audio missing)", "\u221259.1 ± 0.0", "\u22120.1 ± 0.0"]
    assert [row[1:] for row in table_rows(markdown, "100 %")] == [
        ["93.3 ± 0.0", "93.3 ± 0.0"],
        ["36.0 ± 0.0", "95.0 ± 0.0"],
        ["64.7 ± 0.0", "94.2 ± 0.0"],
    ]
    assert list(json.loads(files["comparison.json"].read_text())["methods"]) == ["late_fusion", "ume_mma"]
    assert files["comparison.png"].read_bytes().startswith(b"\x89PNG")
