import decimal
import json
import sys

import pytest

from umemma_jax.data import bounds
from umemma_jax.data_prep.build.rows import read_rows
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
        ("t.csv", b"a,a\n1,2\n", "t.csv: 2 columns have the same name, 'a'"),
        ("t.csv", b"a\n\xff\n", "t.csv, line 2: not UTF-8"),
        ("t.csv", b'a\n"' + b"x" * 200_000, "line 2: a quotation mark is not closed"),
        ("t.jsonl", b'{"a": 1}\n{"a": \n', "t.jsonl, line 2: not JSON"),
        ("t.csv", b"a\n" + b"x" * ((1 << 24) + 1), "line 2: field larger than field limit"),
        ("t.csv", b"a;b\n1;2\n", "no column 'a'; it has: a;b (separated by semicolons?"),
        ("t.csv", b"A ,b\n1,2\n", "no column 'a'; it has: A, b (is 'A' meant?)"),
        ("t.csv", b"1,2\n3,4\n", "no column 'a'; it has: 1, 2 (is its first line the header?)"),
        ("t.jsonl", b'{"a": 1, "b": 2, "a": 3}\n', "t.jsonl, line 1: not JSON ('a' comes 2 times)"),
        ("t.jsonl", b'{"a": ' + b"[" * 100_000 + b"\n", "t.jsonl, line 1: not JSON (nested too deeply)"),
        ("t.jsonl", b'{"a": 1' + b"0" * 5000 + b"}\n", "t.jsonl, line 1: not JSON"),
        (
            "t.csv",
            ",".join(f"x{n}" for n in range(90)).encode(),
            "x18, x19 and 70 more (is its first line the header?)",
        ),
        ("t.jsonl", b"\n", "t.jsonl: empty"),
        ("t.jsonl", b'{"a": 1}\n{"a": "\xff"}', "t.jsonl, line 2: not UTF-8"),
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


def test_parquet_of_every_type(tmp_path):
    """What Python has no type for is refused, and so are two columns of one name."""
    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = sys.modules["pyarrow"]
    path = tmp_path / "t.parquet"

    def read(*columns, names="a"):
        parquet.write_table(arrow.Table.from_arrays(columns, list(names)), path)
        return [row.values.get("a") for row in read_rows(path, ["a"])]

    assert read(arrow.array(["x", None, ""]).dictionary_encode()) == ["x", None, None]
    assert read(arrow.array([b" x ", b"\xff", b"RIFF\0"])) == ["x", b"\xff", b"RIFF\0"]
    assert read(arrow.array([decimal.Decimal("1.50")])) == [decimal.Decimal("1.50")]
    assert read(arrow.array([[1, None]])) == [[1, None]]
    assert read(arrow.array([1.5, float("nan"), None])) == [1.5, None, None]
    for columns, names, complaint in (
        ([arrow.array([1 << 50], arrow.timestamp("ms"))], "a", "not a readable Parquet file"),
        ([arrow.array([1]), arrow.array([2])], "aa", "2 columns have the same name, 'a'"),
    ):
        with pytest.raises(UserError) as error:
            read(*columns, names=names)
        assert complaint in str(error.value) and "\n" not in str(error.value)


def test_no_file(tmp_path):
    (tmp_path / "t.csv").mkdir()
    with pytest.raises(UserError, match=r"t\.csv: is no file: give a table"):
        read_rows(tmp_path / "t.csv", ["a"])


def test_absent_file(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_rows(tmp_path / "absent.csv", ["a"])


@pytest.mark.parametrize(
    ("columns", "bound", "expected"),
    [
        ({"a": ["x"] * 1000}, {"TABLE_ROWS": 999}, "rows: 1000 is more than 999, which UMEMMA_BOUNDS=off allows"),
        ({"a": ["y" * 100_000]}, {"TABLE_BYTES": 90_000}, "decoded bytes: 1"),  # as its pages state
        ({"a": ["z" * 1000] * 1000}, {"TABLE_BYTES": 90_000}, "decoded bytes: 1"),  # of a dictionary of one value
    ],
)
def test_a_parquet_table_that_expands_is_refused_by_what_it_states(tmp_path, monkeypatch, columns, bound, expected):
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "t.parquet"
    parquet.write_table(sys.modules["pyarrow"].table(columns | {"b": ["w" * 200_000] * len(columns["a"])}), path)
    assert len(read_rows(path, ["a"])) == len(columns["a"])
    for name, value in bound.items():
        monkeypatch.setattr(bounds, name, value)
    with pytest.raises(UserError) as error:
        read_rows(path, ["a"])
    assert str(error.value).startswith(f"{path}: not a readable Parquet file ({expected}")


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match="Parquet files need pyarrow: pip install pyarrow"):
        read_rows(tmp_path / "t.parquet", ["a"])
