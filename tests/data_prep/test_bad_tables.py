"""What people give by mistake ends in one line that says where, and leaves nothing behind."""

import itertools
import json
import math

import pytest

from umemma_jax.data.dataset import open_dataset
from umemma_jax.data_prep import table
from umemma_jax.data_prep.build.dataframes import table_of
from umemma_jax.data_prep.build.labels import NO_LABEL
from umemma_jax.data_prep.build.prep_report import FILE_NAME
from umemma_jax.data_prep.raw.columns import Column
from umemma_jax.errors import UserError

TEXT, NUMBER = Column("text", "text", ("note",)), Column("tabular", "tabular", ("size",))


def rows(count=40, **changes):
    """Rows with a number, a text and one of two labels; `changes` gives columns other values, in turn."""
    values = {"size": [0.5, 1.5, 2.5, None], "note": [f"It is number {n} of all." for n in range(count)], "kind": "ab"}
    turns = {name: itertools.cycle(column) for name, column in (values | changes).items()}
    return [{name: next(turn) for name, turn in turns.items()} for _ in range(count)]


def prepare(folder, data, modalities=None, label="kind", **chosen):
    """As `fit` does; what columns hold is inferred unless modalities are given."""
    given, choices = table_of(data), table.Choices(modalities=modalities, label=label, **chosen)
    if modalities is None:
        choices, _ = table.inferred(given, choices)
    table.prepare_rows(str(folder / "out"), given.rows, choices, given.path, "mine")
    return folder / "out"


def test_what_is_not_bad(tmp_path):
    info = open_dataset(prepare(tmp_path, rows())).info
    assert list(info.modalities) == ["tabular", "note"]


@pytest.mark.parametrize(
    ("data", "chosen", "message"),
    [
        ([], {}, "data: no rows: give at least one"),
        (rows(1), {}, "no column is left to be an input (size: always '0.5'; note: always 'It is number 0 of all.'"),
        (rows(1), {"modalities": [TEXT]}, "--label=kind: every row has the same label, 'a'"),
        (rows(kind="a"), {}, "--label=kind: every row has the same label, 'a': there is nothing to tell apart"),
        (
            rows(),
            {"modalities": [Column("text", "text", ("kind",))]},
            "--text=kind: is the label: it cannot be an input",
        ),
        (rows(), {"types": {"kind": "text"}}, "column 'kind' is the label: it cannot be an input as well"),
        (rows(), {"label": "kin"}, "data: no column 'kin'; it has: size, note, kind (is 'kind' meant?)"),
        (rows(), {"types": {"Note": "text"}}, "data: no column 'Note'; it has: size, note, kind (is 'note' meant?)"),
        (rows(), {"leave_out": ["sise"]}, "data: no column 'sise'; it has: size, note, kind (is 'size' meant?)"),
        (rows(size=[None], note=["?"]), {}, "no column is left to be an input (size: no row has a value; note: no row"),
        (
            rows(size=["NA"]),
            {"modalities": [NUMBER, TEXT]},
            "--tabular=size: none of the 40 rows has a value: leave it",
        ),
        (rows(note=["", None]), {"modalities": [NUMBER, TEXT]}, "--text=note: none of the 40 rows has a value"),
        (
            rows(kind=[1, "b"]),
            {},
            "data[1]: label 'b' in column 'kind' is a text, and 1 a number: make all of one type",
        ),
        (rows(kind=[[True], "b"]), {}, "data[1]: label 'b' in column 'kind' is a text, and True a truth value"),
        (rows(kind=[None, math.nan, "?"]), {}, "--label=kind: none of the 40 rows has a label: name another column"),
        (rows(size=[1.5, 2.5, math.inf]), {}, "data[2]: inf in column 'size' is no finite number: correct it or leave"),
        (rows(size=["1.5", "2.5", "-Infinity"]), {}, "data[2]: '-Infinity' in column 'size' is no finite number"),
        (rows(100_000, kind=map(str, range(100_000))), {}, "--label=kind: 100000 different numbers in 100000 rows"),
    ],
)
def test_one_line_and_nothing_is_left(tmp_path, data, chosen, message):
    if "100000" in message:
        chosen = {"target": "classes"}
    with pytest.raises(UserError) as error:
        prepare(tmp_path, data, **chosen)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_rows_without_label_are_dropped_and_counted(tmp_path):
    out = prepare(tmp_path, rows(kind=["a", "b", math.nan, None]))
    assert sum(split.examples for split in open_dataset(out).info.splits.values()) == 20
    assert json.loads((out / FILE_NAME).read_text())[NO_LABEL]["count"] == 20


def test_missing_marks_count_everywhere(tmp_path):
    """In numbers, categories, texts, labels, and where types are inferred."""
    data = rows(size=["1.5", "-", "2.5"], note=["-", *(f"It is number {n}." for n in range(39))], kind=["a", "b", "-"])
    data = [{**row, "colour": "red" if n % 2 else "-" if n % 4 else "blue"} for n, row in enumerate(data)]
    info = open_dataset(prepare(tmp_path, data, na_values=("-",))).info
    modality = info.modalities["tabular"]
    assert modality.columns == ("size", "colour")
    assert modality.levels.keys() == {"colour"}
    assert modality.levels["colour"].keys() == {"red", "blue"}
    assert info.classes == ("a", "b")
    assert sum(split.present["note"] for split in info.splits.values()) < sum(
        split.examples for split in info.splits.values()
    )


def test_what_the_strays_of_training_are_stays_missing(tmp_path):
    """A text in a column of numbers is a missing value in that column alone."""
    data = rows(100, size=[*(n / 2 for n in range(49)), "n/k"], note=["n/k", "It is one."])
    info = open_dataset(prepare(tmp_path, data)).info
    assert info.source["modalities"][0]["strays"] == {"size": ["n/k"]}
    assert sum(info.modalities["tabular"].missing) > 0
