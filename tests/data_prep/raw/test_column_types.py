"""What is inferred of columns as real tables have them."""

import datetime
import random

import numpy as np
import pytest
from PIL import Image

from umemma_jax.data_prep.build.dataframes import table_of
from umemma_jax.data_prep.raw.column_types import infer
from umemma_jax.errors import UserError

WORDS = (
    "the",
    "a",
    "soft",
    "blue",
    "red",
    "shirt",
    "dress",
    "fits",
    "well",
    "too",
    "small",
    "bought",
    "lovely",
    "cotton",
)


def texts(count, words, seed=0):
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=words)) + "." for _ in range(count)]


def drawn(count, values, seed=0):
    return random.Random(seed).choices(values, k=count)


def inferred(table, used=None, **options):
    return {column.name: column for column in infer(table_of(table), used or {}, **options)}


def types(table):
    return {name: column.type for name, column in inferred(table).items()}


def one(values, name="x", **options):
    return inferred({name: list(values)}, **options)[name]


def test_census():
    """As in the Adult data: `?` for what is missing, codes as numbers, categories of several words."""
    n = 200
    table = {
        "age": drawn(n, range(17, 90)),
        "workclass": drawn(n, ["Private", "State-gov", "?"]),
        "fnlwgt": drawn(n, range(12_285, 1_490_400)),
        "education": drawn(n, ["Bachelors", "Some-college", "11th"]),
        "marital-status": drawn(n, ["Married-civ-spouse", "Never-married", "?"]),
        "capital-gain": drawn(n, [0, 0, 0, "?", 2174, 99999]),
        "native-country": drawn(n, ["United-States"] * 30 + ["Mexico", "?", "Outlying-US(Guam-USVI-etc)"]),
    }
    assert types(table) == {
        "age": "number",
        "workclass": "category",
        "fnlwgt": "number",
        "education": "category",
        "marital-status": "category",
        "capital-gain": "number",
        "native-country": "category",
    }


def test_reviews():
    n = 200
    table = {
        "Unnamed: 0": list(range(n)),
        "Clothing ID": drawn(n, range(800, 850)),
        "Title": [title if number % 5 else "Love it!" for number, title in enumerate(texts(n, 4))],
        "Review Text": texts(n, 60),
        "Rating": drawn(n, range(1, 6)),
        "Department Name": drawn(n, ["Tops", "Dresses", "Bottoms"]),
        "written": [f"2024-03-{day:02}" for day in drawn(n, range(1, 29))],
    }
    assert types(table) == {
        "Unnamed: 0": None,
        "Clothing ID": "category",
        "Title": "text",
        "Review Text": "text",
        "Rating": "number",
        "Department Name": "category",
        "written": "date",
    }


def test_products():
    n = 120
    table = {
        "sku": [f"B{number:05}XZ" for number in range(n)],
        "product_id": random.Random(0).sample(range(10_000), n),
        "name": texts(n, 5),
        "brand": drawn(n, ["Acme", "Umbra", "Le Monde", "Nord"]),
        "price": [f"${price:,}.00" for price in drawn(n, range(900, 3000))],
        "discount": [f"{share} %" for share in drawn(n, range(60))],
        "in_stock": drawn(n, ["true", "false"]),
        "photo": [f"photos/{number}.jpg" for number in range(n)],
        "page": [f"https://shop.example/{number}" for number in range(n)],
        "currency": ["EUR"] * n,
        "on_sale": drawn(n, ["yes", None]),
        "old": [None] * n,
    }
    assert types(table) == {
        "sku": None,
        "product_id": None,
        "name": "text",
        "brand": "category",
        "price": "number",
        "discount": "number",
        "in_stock": "category",
        "photo": "image",
        "page": None,
        "currency": None,
        "on_sale": "category",
        "old": None,
    }


def test_patients():
    n = 150
    table = {
        "patient": [f"{number:032x}" for number in np.random.default_rng(0).integers(2**62, size=n)],
        "admitted": [datetime.datetime(2024, 1, 1) + datetime.timedelta(hours=hours) for hours in range(n)],
        "icd": drawn(n, ["C50.9", "I10", "E11.9", "J45"]),
        "hr": [rate if number % 3 else None for number, rate in enumerate(drawn(n, range(50, 140)))],
        "lactate": [
            value if number % 50 else "not done" for number, value in enumerate(drawn(n, ["1.5", "2.25", "3"]))
        ],
        "ward": drawn(n, ["4 B north wing, second floor left", "Intensive care unit of the new building"]),
        "note": texts(n, 30),
        "ecg": [{"array": np.zeros(8), "sampling_rate": 500}] * n,
    }
    assert types(table) == {
        "patient": None,
        "admitted": "date",
        "icd": "category",
        "hr": "number",
        "lactate": "number",
        "ward": "category",
        "note": "text",
        "ecg": "audio",
    }
    found = inferred(table)
    assert found["lactate"].strays == ("not done",)
    assert "'not done' count as missing" in found["lactate"].reason
    assert found["hr"].filled == pytest.approx(2 / 3)


def test_media_in_memory_and_in_files(tmp_path):
    picture = Image.new("RGB", (4, 4))
    (tmp_path / "1").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert one([picture] * 2).type == "image"
    assert one([np.zeros((4, 4, 3), np.uint8)] * 2).type == "image"
    assert one([{"bytes": b"\xff\xd8\xff\xe0", "path": None}] * 2).type == "image"
    assert one([str(tmp_path / "1")]).type == "image"  # by its first bytes
    assert one([[picture, picture], [picture]]).type == "video"
    assert one(["a.MP4", "b.mov"]).type == "video"
    assert one(["a.flac", "b.wav"]).type == "audio"
    assert one(["https://example.org/a.jpg"] * 3).reason.startswith("URLs, as 'https://example.org/a.jpg'")
    assert one(["a.jpg", "b.jpg", "not a file"]).type == "text"  # most are, but not nearly all


def test_lists():
    assert one([[1, 2], [3, 4]]).type == "numbers"
    assert one([np.zeros(3), np.ones(3)]).type == "numbers"
    assert one([[1, 2], [3]]).type is None
    assert one([["a", "b"], ["c"]]).type is None
    assert one([{"a": 1}] * 2).type is None


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (["1,5", "2,5", "3", "1,75"] * 9, "'1,5' has a comma before its decimals"),
        (["03/01/2024", "04/01/2024"] * 9, "'03/01/2024' may begin with the day or the month"),
        ([7] * 9, "always '7'"),
        ([1, 2, 3, 4], "an identifier: counts up from 1"),
        (["0007", "0008", "0009"], "an identifier: counts up from 7"),
    ],
)
def test_what_is_left_out_says_why(values, reason):
    found = one(values)
    assert found.type is None
    assert found.reason.startswith(reason)


def test_missing_marks_are_the_users():
    values = ["1.5", "2.5"] * 19 + ["n/k", "unknown"]
    assert one(values).strays == ("n/k", "unknown")
    found = one(values, missing=("N/K", "1.5"))
    assert (found.strays, found.filled, found.reason) == (
        ("unknown",),
        20 / 40,
        "numbers from 2.5 to 2.5; 'unknown' count as missing",
    )


def test_infinite_numbers_and_many_strays_are_no_missing_values():
    found = one([*np.arange(0, 50, 0.5), "inf", "n/k", float("inf")])
    assert (found.type, found.strays) == ("number", ("n/k",))
    assert one([*range(100, 2000, 2), *map(chr, range(97, 118))]).type != "number"


def test_what_the_user_says_counts():
    table = {"note": drawn(40, ["yes", "no"]), "code": drawn(40, [1, 2, 3]), "id": list(range(40)), "kind": ["a"] * 40}
    given = {"note": "text", "code": "category", "id": "number"}
    found = inferred(table, {"kind": "label"}, columns=given)
    assert {name: column.type for name, column in found.items()} == {**given, "kind": None}
    assert found["note"].reason == "as you say"
    assert found["kind"].reason == "is the label"
    assert inferred(table, columns={"note": None})["note"].type is None


@pytest.mark.parametrize(
    ("used", "given", "message"),
    [
        ({"kind": "label"}, {"kind": "text"}, "column 'kind' is the label: it cannot be an input as well"),
        ({"kin": "label"}, {}, r"data: no column 'kin'; it has: kind, note \(is 'kind' meant\?\)"),
        ({}, {"Note": "text"}, r"no column 'Note'.*\(is 'note' meant\?\)"),
        ({}, {"note": "txt"}, "column 'note': no type 'txt': number, category, date"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(used, given, message):
    with pytest.raises(UserError, match=message) as error:
        inferred({"kind": ["a", "b"], "note": ["x y", "z"]}, used, columns=given)
    assert "\n" not in str(error.value)
