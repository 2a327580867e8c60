import datetime
import decimal
import doctest

import numpy as np
import pytest
from PIL import Image

from umemma_jax.data_prep.build import dataframes
from umemma_jax.data_prep.build.dataframes import table_of
from umemma_jax.data_prep.build.rows import Row
from umemma_jax.errors import UserError

PICTURE = Image.new("RGB", (2, 2))
ROWS = [{"title": " Blue ", "price": 12.5}, {"title": None, "price": 3.0}, {"title": "Red", "price": None}]
WANTED = [{"title": "Blue", "price": 12.5}, {"price": 3.0}, {"title": "Red"}]


def values(data):
    return [row.values for row in table_of(data).rows]


def columns_of(rows):
    return {name: [row[name] for row in rows] for name in rows[0]}


def pandas_frame():
    return pytest.importorskip("pandas").DataFrame(ROWS, index=[7, 7, 8])


def polars_frame():
    return pytest.importorskip("polars").DataFrame(ROWS)


def lazy_frame():
    return polars_frame().lazy()


def arrow_table():
    return pytest.importorskip("pyarrow").Table.from_pylist(ROWS)


@pytest.mark.parametrize("frame", [pandas_frame, polars_frame, lazy_frame, arrow_table])
def test_data_frames_are_rows(frame):
    table = table_of(frame())
    assert table.columns == ("title", "price")
    assert table.rows == [Row(of_row, f"data[{n}]") for n, of_row in enumerate(WANTED)]


def test_rows_and_columns_of_python():
    assert values(ROWS) == values(iter(ROWS)) == values(columns_of(ROWS)) == WANTED
    assert values(ROWS[0]) == WANTED[:1]  # one row
    assert values({"price": np.array([1.5, np.nan])}) == [{"price": 1.5}, {}]
    assert values([{"vector": [1, 2]}]) == [{"vector": [1, 2]}]


def test_files_have_all_their_columns(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(",title,empty\n0,Blue,\n1,,\n")
    table = table_of(str(path))
    assert (table.path, table.columns) == (path, ("title", "empty"))  # the first has no name, as pandas' index
    assert table.rows == [Row({"title": "Blue"}, f"{path}, line 2"), Row({}, f"{path}, line 3")]
    assert table_of(table) is table


def test_columns_without_a_value_and_those_that_only_some_rows_have_are_columns():
    assert table_of([{"a": None}, {"b": 1}]).columns == ("a", "b")


def test_objects_stay_as_they_are():
    pixels = np.zeros((2, 2, 3), np.uint8)
    sound = {"array": np.zeros(4), "sampling_rate": 8000}
    given = {"picture": PICTURE, "pixels": pixels, "sound": sound, "file": b"\x89PNG\r\n", "wav": b"RIFF\0\0"}
    (found,) = values(given)
    assert all(found[name] is value for name, value in given.items())


def test_missing_values_of_every_library():
    pandas = pytest.importorskip("pandas")
    none = [None, float("nan"), np.float32("nan"), np.datetime64("NaT"), decimal.Decimal("NaN"), pandas.NA, pandas.NaT]
    assert values([{"a": value} for value in none] + [{"a": b" "}]) == [{}] * 8
    frame = pandas.DataFrame(
        {
            "whole": pandas.array([1, None], "Int64"),
            "text": pandas.array(["x", None], "string"),
            "class": pandas.Categorical(["u", None]),
            "time": pandas.to_datetime(["2024-03-01", None]),
        }
    )
    assert values(frame) == [{"whole": 1, "text": "x", "class": "u", "time": datetime.datetime(2024, 3, 1)}, {}]


def test_numpy_scalars_become_pythons():
    (found,) = values(
        [{"a": np.float32(0.5), "b": np.int64(3), "c": np.str_("x"), "d": np.datetime64("2024-03-01", "ns")}]
    )
    assert list(found.values()) == [0.5, 3, "x", datetime.datetime(2024, 3, 1)]
    assert [type(value) for value in found.values()] == [float, int, str, datetime.datetime]


def duplicate_columns():
    return pytest.importorskip("pandas").DataFrame([[1, 2]], columns=["a", "a"])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (duplicate_columns, r"data: .*'a' 2 times: rename all but one"),
        (lambda: {1: [0], "1": [0]}, "data: 2 columns have the same name, '1'"),
        (lambda: pandas_frame()[:0], "data: no rows: give at least one"),
        (list, "data: no rows"),
        (lambda: {"a": [], "b": []}, "data: no rows"),
        (lambda: {"a": [1, 2], "b": [1]}, "data: column 'b' has 1 values, 'a' 2: give as many of each"),
        (lambda: ["x.jpg"], r"data\[0\]: 'x.jpg' is no row: give a dict"),
        (lambda: 5, "data: int is no table: give a DataFrame, a list of dicts"),
        (lambda: "data.xlsx", r"data\.xlsx: not known by its ending"),
    ],
)
def test_what_is_no_table_is_refused_in_one_line(data, message):
    with pytest.raises(UserError, match=message) as error:
        table_of(data())
    assert "\n" not in str(error.value)


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n")
    with pytest.raises(UserError, match=r"t\.csv: no rows"):
        table_of(tmp_path / "t.csv")


def test_the_examples_of_the_documentation():
    assert doctest.testmod(dataframes) == (0, 3)
