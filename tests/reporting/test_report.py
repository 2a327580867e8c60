"""umemma_jax/reporting/report.py: files that people read."""

import io
import json
import struct
import subprocess
import sys

import numpy as np
import pytest

from tests.example_results import COLLAPSED, analysed, example_results, multi_label
from tests.reporting.test_markdown import table_rows
from umemma_jax import missing_rates
from umemma_jax.errors import UserError
from umemma_jax.reporting.definitions import definitions
from umemma_jax.reporting.markdown import report_markdown
from umemma_jax.reporting.reading import read_report
from umemma_jax.reporting.report import write_comparison, write_report
from umemma_jax.reporting.results import compare


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
    results["definitions"] = definitions(results)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["report"]
    files = {path.name: path for path in (tmp_path / "run" / "report").iterdir()}
    assert set(files) == {"report.json", "report.md", "report.html", "robustness.png", "robustness.svg"}
    assert read_report(files["report.json"]) == results
    assert files["report.md"].read_text() == report_markdown(results)
    png = files["robustness.png"].read_bytes()
    assert png.startswith(b"\x89PNG")
    assert struct.unpack(">II", png[16:24]) == (1660, 920)


def test_what_is_known_of_more_is_drawn(tmp_path):
    write_report(analysed(example_results()), tmp_path)
    figures = {"robustness", "reliability", "information", "rate_maps"}
    assert {path.stem for path in tmp_path.glob("*.png")} == {path.stem for path in tmp_path.glob("*.svg")} == figures
    for path in tmp_path.glob("*.svg"):
        assert "<dc:date>" not in path.read_text() and path.read_text().startswith("<?xml")


def test_same_results_give_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        write_report(analysed(example_results()), tmp_path / name)
        write_comparison(compare(four_methods()), tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_multi_label_comparison(tmp_path):
    write_comparison(compare([multi_label(seed=0), multi_label(seed=1)]), tmp_path / "comparison")
    markdown = (tmp_path / "comparison" / "comparison.md").read_text()
    headings = [line.removeprefix("## ") for line in markdown.splitlines() if line.startswith("## ")]
    assert headings[:4] == ["Macro-F1, %", "Macro-F1 at the tuned threshold, %", "Micro-F1, %", "Weighted F1, %"]
    assert headings[-2:] == ["Distance from the ceiling, points of macro-F1", "Macro-F1 at every missing rate, %"]
    assert table_rows(markdown, "image alone")[5][1:] == ["69.9 ± 0.0", "70.1 ± 0.0"]


def test_missing_tables_are_saved_beside(tmp_path):
    tables = {"image@0.5": np.random.default_rng(0).random((5, 450, 2)) < 0.5}
    write_report(example_results(), tmp_path / "report", tables)
    with np.load(io.BytesIO((tmp_path / "report" / "missing_tables.npz").read_bytes())) as saved:
        np.testing.assert_array_equal(saved["image@0.5"], tables["image@0.5"])


def test_missing_tables_are_saved_as_numpy_saves_them_one_after_the_other(tmp_path):
    tables = missing_rates.GridTables(np.ones((450, 2), bool), (0.0, 0.5), 5, ("image", "audio"))
    write_report(example_results(), tmp_path / "report", tables)
    expected = io.BytesIO()
    np.savez_compressed(expected, **tables)
    assert (tmp_path / "report" / "missing_tables.npz").read_bytes() == expected.getvalue()


def test_other_files_are_put_beside(tmp_path):
    write_report(example_results(), tmp_path / "report", beside={"decisions.npz": b"content"})
    assert (tmp_path / "report" / "decisions.npz").read_bytes() == b"content"


def test_written_again_it_replaces_its_own_files_only(tmp_path):
    write_report(example_results(), tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    write_report(example_results(seed=1), tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["seed"] == 1
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 6


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


def test_comparison_folder(tmp_path):
    write_comparison(compare(four_methods()), tmp_path / "comparison")
    files = {path.name: path for path in (tmp_path / "comparison").iterdir()}
    assert set(files) == {"comparison.json", "comparison.md", "comparison.png", "comparison.svg"}
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


def test_reports_are_written_without_jax():
    code = "import sys; from umemma_jax.reporting import report; assert not {'jax', 'flax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
