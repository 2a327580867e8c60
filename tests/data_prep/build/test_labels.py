"""Which classes the fields of a column are."""

import datetime
import decimal
import itertools
import json
import os
import subprocess
import sys

import pytest

from umemma_jax.data_prep.build import labels
from umemma_jax.data_prep.build.labels import read_labels, sorted_classes
from umemma_jax.data_prep.build.prep_report import Report
from umemma_jax.data_prep.build.rows import MISSING_MARKS, Row
from umemma_jax.errors import UserError


def read(*fields, separator=None, missing=MISSING_MARKS):
    """Labels of rows by number, whether there can be several, and the report."""
    rows = [Row({} if field is None else {"kind": field}, str(number)) for number, field in enumerate(fields)]
    report = Report()
    found, multi_label = read_labels(rows, "kind", separator, missing, report)
    entries = {kind: problem["entries"] for kind, problem in json.loads(report.encoded()).items()}
    return {int(where): names for where, names in found.items()}, multi_label, entries


@pytest.mark.parametrize("mark", ["NaN", "nan", "None", "NULL", "null", "NA", "n/a", "<NA>", "#N/A", "NaT", "?", None])
def test_no_label(mark):
    found, multi_label, report = read("a", mark, "b")
    assert (found, multi_label) == ({0: ["a"], 2: ["b"]}, False)
    assert report == {labels.NO_LABEL: ["1" if mark is None else f"1: {mark!r}"]}


def test_what_counts_as_missing_can_be_said():
    assert read("NA", "none", "-", missing=("-",))[0] == {0: ["NA"], 1: ["none"]}


def test_missing_entries_of_lists():
    found, multi_label, report = read(["a", None], [None], [], ["b", float("nan"), "NULL"])
    assert (found, multi_label) == ({0: ["a"], 2: [], 3: ["b"]}, True)
    assert report == {
        labels.NO_ENTRY: ["0: ['a', None]", "3: ['b', nan, 'NULL']"],
        labels.NO_LABEL: ["1: [None]"],
    }


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ([1.0, 2.0, 1], ["1", "2", "1"]),
        (["1.0", "2.00", "1"], ["1", "2", "1"]),
        ([decimal.Decimal("1.00"), decimal.Decimal("2"), 1], ["1", "2", "1"]),
        ([1.5, 2.0, 1], ["1.5", "2", "1"]),
        (["1.0", "1.1", "v2.0"], ["1.0", "1.1", "v2.0"]),
        ([-1.0, "+3.0", "0"], ["-1", "+3", "0"]),
        ([True, False, True], ["True", "False", "True"]),
        ([datetime.date(2020, 1, 2), "a", "b"], ["2020-01-02", "a", "b"]),
        ([decimal.Decimal("1" * 38), 2, "3"], ["1" * 38, "2", "3"]),
    ],
)
def test_names_of_numbers(fields, names):
    assert [name for (name,) in read(*fields)[0].values()] == names


def test_order_of_classes():
    assert sorted_classes({"10", "9", "2"}) == ["2", "9", "10"]
    assert sorted_classes({"10", "9", "b"}) == ["10", "9", "b"]
    assert sorted_classes({"-2", "-10", "1.5", "+1"}) == ["-10", "-2", "+1", "1.5"]
    for names in itertools.permutations(["1", "01", "1.0", "0"]):
        assert sorted_classes(names) == ["0", "01", "1", "1.0"]
    assert sorted_classes({"9" * 5000, "1" + "0" * 5000}) == ["9" * 5000, "1" + "0" * 5000]


def test_order_of_classes_does_not_depend_on_the_hash_seed():
    module = "umemma_jax.data_prep.build.labels"
    command = f"from {module} import sorted_classes; print(sorted_classes({{'1', '01', '001', '2', '02'}}))"
    found = {
        subprocess.run(
            [sys.executable, "-c", command], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True
        ).stdout
        for seed in "123"
    }
    assert found == {"['001', '01', '1', '02', '2']\n"}


def test_labels_that_look_alike_are_told_and_kept_apart():
    fields = ["Red", "red", "dark blue", "dark  blue", "caf\u00e9", "cafe\u0301", "\ufb01g", "fig\u200b", "1", "01"]
    found, _, report = read(*fields)
    assert [name for (name,) in found.values()] == fields
    assert len(report[labels.ALIKE]) == 5
    assert "'Red' (1 x), 'red' (1 x)" in report[labels.ALIKE]


@pytest.mark.parametrize(
    ("fields", "separator", "names", "multi_label"),
    [
        (["a", "b|a", "b"], "|", [["a"], ["b", "a"], ["b"]], True),
        (["a|b", "b| c", "c|a|a"], "|", [["a", "b"], ["b", "c"], ["c", "a"]], True),
        (["a", "a|nan", "b"], "|", [["a"], ["a"], ["b"]], False),
        (["a|b", "a", "b"], "", [["a|b"], ["a"], ["b"]], False),
        (["a;b", "c|d"], ";", [["a", "b"], ["c|d"]], True),
        (["oil|gas", "coal"], "|", [["oil", "gas"], ["coal"]], True),
        ([["oil|gas"], ["coal"]], None, [["oil|gas"], ["coal"]], True),
    ],
)
def test_separators(fields, separator, names, multi_label):
    found = read(*fields, separator=separator)
    assert (list(found[0].values()), found[1]) == (names, multi_label)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (["coal", "oil|gas"], r"1: label 'oil\|gas': say --label-separator='\|' if it is several labels"),
        (["a", "b|a", "b"], r"1: label 'b\|a': say --label-separator"),
        (["Sci|Fi", "Sci|Art", "War"], r"0: label 'Sci\|Fi': say --label-separator"),
        ([{"a": 1}], r"0: \{'a': 1\} in column 'kind' is no label"),
        (["a", "two\nlines"], r"1: 'two\\nlines' in column 'kind' is no label"),
        (["a", "\x1b[31m"], r"1: '\\x1b\[31m' in column 'kind' is no label"),
        (["a" * 201], r"0: 'a+\.\.\.a+' in column 'kind' is no label: give one value in one line of up to 200"),
        ([float("inf")], r"0: inf in column 'kind' is no label"),
        ([["a", ["b"]]], r"0: \['b'\] in column 'kind' is no label"),
        ([x / 7 for x in range(200)], "--label=kind: 200 different numbers in 200 rows, no classes: say --target=num"),
        ([x / 8 % 25 for x in range(2000)], "--label=kind: 200 different numbers in 2000 rows, no classes: say "),
        (list(range(200)), "--label=kind: 200 different numbers in 200 rows, no classes: say --target=numbers"),
        ([f"id {x}" for x in range(60)], "--label=kind: 60 different labels in 60 rows, no classes: name another col"),
        ([f"id {x // 2}" for x in range(100_000)], "50000 different labels in 100000 rows, no classes: name another"),
    ],
)
def test_no_classes(fields, message):
    with pytest.raises(UserError, match=message) as error:
        read(*fields)
    assert "\n" not in str(error.value)


def test_numbers_that_may_be_meant_as_such_are_told():
    found, _, report = read(*[18 + x % 82 for x in range(1000)])
    assert len({name for (name,) in found.values()}) == 82
    assert report == {labels.NUMBERS: ["82 different ones, from 18 to 99"]}
    assert read(*[x % 10 for x in range(100)])[2] == {}
