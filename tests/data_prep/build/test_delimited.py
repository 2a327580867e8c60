"""Records of CSV, of which none may swallow others."""

import csv
import io
import random

import pytest

from umemma_jax.data_prep.build.delimited import read_records
from umemma_jax.errors import UserError


def written(rows):
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def titles(count=60):
    """Rows of different titles, sorted by class; every fifth ends in an inch sign, as shops write them."""
    words = ["Best", "cake ever", "19", "of", "the-world!", "How to", "bake", "& eat"]
    draw = random.Random(0)
    rows = []
    for number in range(count):
        label = ("cake", "pie", "soup")[number * 3 // count]
        title = " ".join(draw.sample(words, draw.randrange(2, 7))) + ('"' if number % 5 == 4 else "")
        rows.append([f"{label}_{number}.jpg", title, label])
    return rows


def naive(rows):
    """As programs write it that know nothing of quoting."""
    return "".join(",".join(row) + "\n" for row in rows)


@pytest.mark.parametrize("number", range(0, 58, 3))
@pytest.mark.parametrize("columns", [(0, 1, 2), (2, 1, 0), (0, 2, 1), (1, 2), (0, 1)])
def test_a_quote_that_never_closes_is_named_by_its_line(tmp_path, number, columns):
    """Where it is not, nothing is swallowed: the field ends in its line."""
    rows = titles()
    rows[number][1] = '"' + rows[number][1].rstrip('"')
    rows = [[row[column] for column in columns] for row in rows]
    path = tmp_path / "titles.csv"
    path.write_text(naive([["a", "b", "c"][: len(columns)], *rows]))
    with pytest.raises(UserError, match=f"titles.csv, line {number + 2}: a quotation mark is not closed"):
        read_records(path, ",", header=True)


TEXT = 'He said: "No!"\nThen, after a while,\nshe "went", too.'


@pytest.mark.parametrize(
    "rows",
    [
        [[str(number), TEXT, "good" if number % 2 else "bad"] for number in range(20)],
        [[TEXT, "good" if number % 2 else "bad"] for number in range(20)],
        [["good" if number % 2 else "bad", TEXT] for number in range(20)],
        [[f"photo_{number}.jpg", TEXT] for number in range(20)],
        [[TEXT if number else "Soft, 2\nand warm, 3", str(number % 5)] for number in range(20)],
        [['5"x7" print', '19" rack', "x"], ['He said "a,b"', 'O"Brien', "y"], ['a "b"', '"c"', '"']],
        [[TEXT], ["one"], ["two\nthree"]],
        [
            [f"A title, {number}", f"I love it, but\nit shrank, really, {number}", str(number % 5)]
            for number in range(20)
        ],
    ],
)
def test_fields_of_several_lines_are_read(tmp_path, rows):
    path = tmp_path / "texts.csv"
    path.write_text(written(rows), newline="")
    found = read_records(path, ",", header=False)
    assert [[field.replace("\r\n", "\n") for field in record.fields] for record in found] == rows


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\n"])
def test_encodings_and_line_ends(tmp_path, encoding, end):
    path = tmp_path / "a.csv"
    path.write_bytes(f"photo,title{end}1.jpg,Crème{end}".encode(encoding))
    assert [record.fields for record in read_records(path, ",", header=True)] == [
        ["photo", "title"],
        ["1.jpg", "Crème"],
    ]


def test_a_text_of_more_than_128_kilobytes(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f"1,{'long ' * 40_000}\n")
    (record,) = read_records(path, ",", header=False)
    assert len(record.fields[1]) == 200_000
    assert csv.field_size_limit() == 131_072  # of everyone else


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"a,b\n1,2\0\n", "line 2: holds a NUL"),
        ("a,b\n1,2\n".encode("utf-16-le"), "line 1: holds a NUL"),
        (b'a,b\n1,"2\n3"x,4\n', "line 2: a quotation mark is not closed"),
        (b'a,b,c\n1.jpg"salt, or ""pepper""",x\n', "line 2: a quotation mark is not closed"),
        (b'a,b\n1,"2\n3,4\n5', "line 2: a quotation mark is not closed"),
        (b"a," + b"x" * ((1 << 24) + 1), "line 1: field larger than field limit"),
    ],
)
def test_what_is_refused(tmp_path, data, complaint):
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    with pytest.raises(UserError) as error:
        read_records(path, ",", header=False)
    assert complaint in str(error.value) and "\n" not in str(error.value)
