import json

import pytest

from umemma_jax.data_prep.build import prep_report
from umemma_jax.data_prep.build.prep_report import Report
from umemma_jax.errors import UserError


def test_counts_all_and_lists_some(tmp_path, monkeypatch):
    monkeypatch.setattr(prep_report, "LISTED", 2)
    report = Report()
    for name in ("a", "b", "c"):
        report.add("odd", name)
    report.add("even", "crème 🍕")
    assert (report.count("odd"), report.count("even"), report.count("none")) == (3, 1, 0)
    path = report.write(tmp_path)
    assert path == tmp_path / "prep_report.json"
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "odd": {"count": 3, "entries": ["a", "b"]},
        "even": {"count": 1, "entries": ["crème 🍕"]},
    }
    assert [path.name for path in tmp_path.iterdir()] == ["prep_report.json"]


def test_names_that_are_not_utf8(tmp_path, capsys):
    report = Report()
    report.add("odd", b"caf\xe9.jpg".decode(errors="surrogateescape"))
    report.print_summary(report.write(tmp_path))
    assert "1 x odd, e.g. caf\\udce9.jpg" in capsys.readouterr().out


def test_of_many_kinds_the_first_are_printed(tmp_path, capsys):
    report = Report()
    for number in range(prep_report.PRINTED + 3):
        report.add(f"kind {number}", "x")
    report.print_summary(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == [*(f"  1 x kind {n}, e.g. x" for n in range(prep_report.PRINTED)), "  and 3 more kinds"]


def test_cannot_be_written(tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        Report().write(tmp_path / "absent")
