import doctest

import pytest

from umemma_jax.data_prep.raw import grouping
from umemma_jax.data_prep.raw.column_types import ColumnType
from umemma_jax.data_prep.raw.columns import Column
from umemma_jax.data_prep.raw.grouping import describe, modalities
from umemma_jax.errors import UserError


def column(name, type, strays=()):
    return ColumnType(name, type, "so", 1.0, strays)


def test_modalities():
    columns = [
        column("age", "number", ("n/k",)),
        column("job", "category"),
        column("born", "date"),
        column("id", None),
        column("self", "text"),
        column("my note", "text"),
        column("my-note", "text"),
        column("Größe", "image"),
        column("tabular", "numbers"),
    ]
    assert modalities(columns) == [
        Column("tabular", "tabular", ("age", "job", "born"), {"job": "category", "born": "date"}, {"age": ("n/k",)}),
        Column("text", "self_2", ("self",)),
        Column("text", "my_note", ("my note",)),
        Column("text", "my_note_2", ("my-note",)),
        Column("image", "Gr_e", ("Größe",)),
        Column("tabular", "tabular_2", ("tabular",)),
    ]


def test_groups_of_columns():
    columns = [*(column(name, "number") for name in ("hr", "bp", "lab_na", "lab_k", "age")), column("note", "text")]
    found = modalities(columns, {"vitals": ["bp", "hr"], "labs": "lab_*", "history": "note"})
    assert [(modality.name, modality.kind, modality.columns) for modality in found] == [
        ("vitals", "tabular", ("bp", "hr")),
        ("labs", "tabular", ("lab_na", "lab_k")),
        ("history", "text", ("note",)),
        ("tabular", "tabular", ("age",)),
    ]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"a": ["hr", "note"]}, "modality 'a': column 'note' is text: only numbers, categories and dates"),
        ({"a": ["hr"], "b": ["hr"]}, "modality 'b': column 'hr' is left out or in another modality"),
        ({"a": ["id"]}, r"column 'id' is left out or in another modality \(so\)"),
        ({"a": ["hx"]}, r"modality 'a': no column 'hx'; it has: hr, note, id"),
        ({"a": "lab_*"}, r"modality 'a': no input is called 'lab_\*'; there are: hr, note"),
    ],
)
def test_groups_that_cannot_be(groups, message):
    columns = [column("hr", "number"), column("note", "text"), column("id", None)]
    with pytest.raises(UserError, match=message):
        modalities(columns, groups)


def test_nothing_left():
    with pytest.raises(UserError, match=r"no column is left to be an input \(id: so\)"):
        modalities([column("id", None)])


def test_the_description_is_a_table():
    columns = [column("age", "number"), column("a\nb", None)]
    assert describe(columns, modalities(columns)).splitlines() == [
        "column  type    modality  filled  why",
        "age     number  tabular    100 %  so",
        r"'a\nb'  -       -          100 %  so",
    ]


def test_the_examples_of_the_documentation():
    assert doctest.testmod(grouping) == (0, 2)
