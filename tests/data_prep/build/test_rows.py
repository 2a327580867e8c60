import json
import sys

import pytest

from data_prep.build.rows import read_rows
from umemma_jax.errors import UserError

VALUES = [
    {"a": "x, y", "b": '"quoted"', "c": "two\nlines"},
    {"a": "é 🍕"},
    {"b": "only b"},
]


def write(tmp_path, form):
    path = tmp_path / f"table.{form}"
    if form == "csv":
        path.write_text('a,b,c\n"x, y","""quoted""","two\nlines"\né 🍕,, \n,only b,\n', encoding="utf-8")
    if form == "tsv":
        path.write_text('a\tb\tc\nx, y\t"""quoted"""\t"two\nlines"\né 🍕\t\t \n\tonly b\t\n', encoding="utf-8")
    if form == "jsonl":
        lines = [
            json.dumps(VALUES[0]),
            "",
            json.dumps({"a": " é 🍕 ", "b": None}),
            json.dumps({"b": "only b", "c": ""}),
        ]
        path.write_text("\n".join(lines))
    if form == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        columns = {name: [row.get(name) for row in VALUES] for name in "abc"}
        parquet.write_table(sys.modules["pyarrow"].table(columns), path)
    return path


@pytest.mark.parametrize(
    ("form", "places"),
    [
        ("csv", ["line 2", "line 4", "line 5"]),
        ("tsv", ["line 2", "line 4", "line 5"]),
        ("jsonl", ["line 1", "line 3", "line 4"]),
        ("parquet", ["row 1", "row 2", "row 3"]),
    ],
)
def test_reads(tmp_path, form, places):
    path = write(tmp_path, form)
    rows = read_rows(path, ["a", "b", "c"])
    assert [row.values for row in rows] == VALUES
    assert [row.where for row in rows] == [f"{path}, {place}" for place in places]
    assert [row.values for row in read_rows(path, ["b"])] == [{"b": '"quoted"'}, {}, {"b": "only b"}]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_absent_column(tmp_path, form):
    with pytest.raises(UserError, match="no column 'd'; it has: a, b, c"):
        read_rows(write(tmp_path, form), ["a", "d"])


def test_half_a_character(tmp_path):
    path = tmp_path / "table.jsonl"
    path.write_text('{"a": "cut \\ud83d"}\n')
    assert [row.values for row in read_rows(path, "a")] == [{"a": "cut ?"}]


def test_numbers_lists_and_nan(tmp_path):
    path = tmp_path / "table.jsonl"
    path.write_text('{"a": 1, "b": [1, 2], "c": NaN}\n{"a": 0, "b": [], "c": 1.5}\n')
    assert [row.values for row in read_rows(path, "abc")] == [{"a": 1, "b": [1, 2]}, {"a": 0, "b": [], "c": 1.5}]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("t.csv", b"a,b\n1,2\n1,2,3\n", "t.csv, line 3: 3 fields instead of 2"),
        ("t.csv", b'a,b\n"1\n\n",2\n1\n', "t.csv, line 5: 1 fields instead of 2"),
        ("t.csv", b"", "t.csv: empty"),
        ("t.csv", b"a,a\n1,2\n", "line 1: two columns have the same name"),
        ("t.csv", b"a\n\xff\n", "t.csv: not UTF-8"),
        ("t.csv", b'a\n"' + b"x" * 200_000, "line 2: field larger than field limit"),
        ("t.jsonl", b'{"a": 1}\n{"a": \n', "t.jsonl, line 2: not JSON"),
        ("t.jsonl", b"[1]\n", "t.jsonl, line 1: not a JSON object"),
        ("t.parquet", b"no parquet", "t.parquet: not a readable Parquet file"),
        ("t.xlsx", b"", "t.xlsx: not known by its ending: give one of .csv, .tsv, .jsonl, .parquet"),
    ],
)
def test_one_line(tmp_path, name, content, complaint):
    if name == "t.parquet":
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        read_rows(tmp_path / name, ["a"])
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


def test_absent_file(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_rows(tmp_path / "absent.csv", ["a"])


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match="Parquet files need pyarrow: pip install pyarrow"):
        read_rows(tmp_path / "t.parquet", ["a"])
