"""Tables that are damaged or odd: of the rows that are kept, each has its own label, text, photo and numbers.

A row that is lost is in the prep report, unless the damage took it from the file.
"""

import contextlib
import csv
import io
import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.trial import outcome
from umemma_jax.data import example
from umemma_jax.data.dataset import open_dataset
from umemma_jax.data_prep import table
from umemma_jax.data_prep.build.prep_report import FILE_NAME
from umemma_jax.data_prep.raw.columns import Column

COUNT = 400
ROWS = 60
CLASSES = ("cake", "pie", "soup")
WORDS = (
    "Best",
    "cake ever",
    "19",
    "of",
    "the-world",
    "How to",
    "bake",
    "& eat",
    "Crème",
    'a "real" one',
    "salt, pepper",
)
MARKS = ("", " ", "NA", "n/a", "NaN", "nan", "None", "NULL", "null", "?")
MODALITIES = (
    Column("image", "image", ("photo",)),
    Column("text", "text", ("title",)),
    Column("tabular", "size", ("height", "weight")),
)

Row = dict[str, Any]


def run(rng: np.random.Generator, count: int, folder: Path) -> Iterator[tuple[str, str, str]]:
    """Damages tables and prepares them; (kind of damage, outcome, what was said)."""
    rows = _rows(rng, folder)
    kinds = [*TEXTS, *VALUES]
    with contextlib.suppress(ImportError):
        import pyarrow  # noqa: F401

        kinds += [*PARQUET]
    for number in range(count):
        kind = kinds[number % len(kinds)]
        path, keeps = _damaged(kind, rows, rng, folder / f"table{number}")
        report = io.StringIO()

        def read(path: Path = path, report: io.StringIO = report) -> Path:
            out = path.with_suffix(".out")
            with contextlib.redirect_stdout(report):
                table.prepare(
                    str(out), table=str(path), modalities=MODALITIES, label="kind", split="part", id="id", size=8
                )
            return out

        yield kind, *outcome(read, lambda out, keeps=keeps: _own(out, rows, keeps))


def _rows(rng: np.random.Generator, folder: Path) -> list[Row]:
    """Rows sorted by class, whose photos are files that differ."""
    from PIL import Image

    (folder / "img").mkdir()
    rows = []
    for number in range(ROWS):
        label = CLASSES[number * len(CLASSES) // ROWS]
        photo = folder / "img" / f"{label}_{number}.jpg"
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(photo)
        rows.append(
            {
                "id": f"no{number}",
                "photo": f"img/{photo.name}",
                "title": " ".join(rng.permutation(WORDS)[: rng.integers(2, 7)]) + (' 19"' if number % 5 == 4 else ""),
                "kind": label,
                "part": "train" if number % 4 else "test",
                "height": str(number / 4),
                "weight": str(-number),
                "note": "end",
            }
        )
    return rows


def _own(out: Path, rows: list[Row], keeps: bool) -> bool:
    """Whether each example is a row with all that belongs to it, and, with `keeps`, each row an example or told of."""
    truth = {row["id"]: row for row in rows}
    dataset, found = open_dataset(out), 0
    for split in dataset.info.splits:
        source = dataset.source(split)
        for number, id in enumerate(source.ids()):
            row, features = truth.get(_bare(id)), source.features(number)
            label = dataset.info.classes[example.int64_values(features, "label")[0]]
            if row is None or _bare(label) != row["kind"] or not _belongs(features, row, out.parent):
                return False
            found += 1
    told = sum(kind["count"] for kind in json.loads((out / FILE_NAME).read_text()).values())
    return found == len(rows) or not keeps or found + told >= len(rows)


def _belongs(features: example.Features, row: Row, folder: Path) -> bool:
    photo, title, size = (example.bytes_value(features, name) for name in ("image", "text", "size"))
    numbers = np.float32([row["height"], row["weight"]])
    found = numbers if size is None else np.frombuffer(size, "<f4")
    return (
        (photo is None or photo == (folder / row["photo"]).read_bytes())
        and (title is None or _bare(title.decode()) == _bare(row["title"]))
        and bool(np.all((found == numbers) | np.isnan(found)))
    )


def _bare(text: str) -> str:
    """A text without what the damage may have put into it: marks, and the form of its characters."""
    return re.sub(r"\W", "", unicodedata.normalize("NFC", text))


# --- damage -----------------------------------------------------------------------------------------------------------


def _damaged(kind: str, rows: list[Row], rng: np.random.Generator, path: Path) -> tuple[Path, bool]:
    """Writes a table, and says whether no row may get lost without a word."""
    path = path.with_name(f"{path.name}.{kind.partition(':')[0]}")
    if kind in PARQUET:
        PARQUET[kind](rows, rng, path)
    elif kind in VALUES:
        path.write_bytes(_encoded(VALUES[kind]([dict(row) for row in rows], rng), path.suffix))
    else:
        path.write_bytes(TEXTS[kind](_encoded(rows, path.suffix), rng))
    return path, "shortened" not in kind


def _encoded(rows: list[Row], suffix: str) -> bytes:
    if suffix == ".jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter="\t" if suffix == ".tsv" else ",", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _place(data: bytes, signs: bytes, rng: np.random.Generator) -> int:
    """Where one of the signs stands, behind the first line; what a backslash escapes belongs to a text."""
    places = [k for k in range(data.index(b"\n"), len(data)) if data[k] in signs and data[k - 1] != ord("\\")]
    return int(rng.choice(places))


def _lost(signs: bytes) -> Callable[[bytes, np.random.Generator], bytes]:
    def damage(data: bytes, rng: np.random.Generator) -> bytes:
        place = _place(data, signs, rng)
        return data[:place] + data[place + 1 :]

    return damage


def _put_in(part: bytes, before: bytes) -> Callable[[bytes, np.random.Generator], bytes]:
    def damage(data: bytes, rng: np.random.Generator) -> bytes:
        place = _place(data, before, rng)
        return data[:place] + part + data[place:]

    return damage


def _unquoted(data: bytes, rng: np.random.Generator) -> bytes:
    """Titles as a program writes them that knows nothing of quoting, one of which starts with a quotation mark."""
    lines = data.decode().splitlines(keepends=True)
    rows = [line for line in csv.reader(lines)]
    for row in rows[1:]:
        row[2] = row[2].replace(",", "").replace('"', "") + ('"' if row[2].endswith('"') else "")
    row = rows[int(rng.integers(1, len(rows)))]
    row[2] = '"' + row[2]
    return "".join(",".join(row) + "\n" for row in rows).encode()


def _shortened(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(data.index(b"\n") + 1, len(data)))]


def _line_twice(data: bytes, rng: np.random.Generator) -> bytes:
    lines = data.splitlines(keepends=True)
    line = lines[int(rng.integers(1, len(lines)))]
    return b"".join([*lines, line])


def _reencoded(data: bytes, rng: np.random.Generator) -> bytes:
    encoding = str(rng.choice(["latin-1", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252"]))
    return data.decode().encode(encoding)


def _line_ends(data: bytes, rng: np.random.Generator) -> bytes:
    return data.replace(b"\n", bytes(rng.choice([b"\r\n", b"\r", b"\n\n"])))


def _semicolons(data: bytes, rng: np.random.Generator) -> bytes:
    return data.replace(b",", b";")


def _header(data: bytes, rng: np.random.Generator) -> bytes:
    header, _, rest = data.partition(b"\n")
    changed = [b"", header.replace(b"note", b"title"), header.upper(), header.replace(b",", b" , "), header[:-3]]
    return changed[int(rng.integers(len(changed)))] + b"\n" + rest


def _random_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    place = int(rng.integers(len(data)))
    return data[:place] + rng.bytes(int(rng.integers(1, 40))) + b"\xff" + data[place:]


def _key_twice(data: bytes, rng: np.random.Generator) -> bytes:
    lines = data.splitlines(keepends=True)
    place = int(rng.integers(len(lines)))
    lines[place] = lines[place].replace(b'{"id"', b'{"kind": "pie", "id"')
    return b"".join(lines)


def _deep(data: bytes, rng: np.random.Generator) -> bytes:
    return data + b'{"id": ' + b"[" * 100_000 + b"\n"


TEXTS: dict[str, Callable[[bytes, np.random.Generator], bytes]] = {
    "csv: a quotation mark that never closes": _unquoted,
    "csv: a quotation mark lost": _lost(b'"'),
    "tsv: a quotation mark lost": _lost(b'"'),
    "csv: a quotation mark more": _put_in(b'"', b',\nabt "'),
    "csv: a comma lost": _lost(b","),
    "csv: a comma more": _put_in(b",", b',\nabt "'),
    "csv: a line end lost": _lost(b"\n"),
    "csv: a line end more": _put_in(b"\n", b', "'),
    "csv: shortened": _shortened,
    "csv: a line twice": _line_twice,
    "csv: another encoding": _reencoded,
    "tsv: another encoding": _reencoded,
    "csv: other line ends": _line_ends,
    "csv: semicolons": _semicolons,
    "csv: another header": _header,
    "csv: a NUL": _put_in(b"\0", b'a,\n"'),
    "csv: random bytes": _random_bytes,
    "jsonl: a sign lost": _lost(b'{}":,'),
    "jsonl: shortened": _shortened,
    "jsonl: another encoding": _reencoded,
    "jsonl: random bytes": _random_bytes,
    "jsonl: a key twice": _key_twice,
    "jsonl: nested deeply": _deep,
}


def _holes(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    """A tenth of all that may be missing is, in any way of writing it."""
    for row in rows:
        for column in ("height", "weight", "kind"):
            if rng.random() < 0.1:
                row[column] = str(rng.choice(MARKS))
        for column in ("photo", "title"):
            if rng.random() < 0.1:
                row[column] = ""
    return rows


def _as_numbers(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    """Numbers as JSON has them, NaN and null among them."""
    for row in rows:
        for column in ("height", "weight"):
            row[column] = float(row[column]) if rng.random() < 0.8 else [None, float("nan")][int(rng.integers(2))]
    return rows


def _no_number(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    wrong = ("inf", "-Infinity", "1e99", "1,5", "tall", "12 %", "0x1F")
    rows[int(rng.integers(len(rows)))]["height"] = str(rng.choice(wrong))
    return rows


def _wrong_paths(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    changes = (str.upper, lambda path: path.replace("/", "\\"), lambda path: path[4:], lambda path: f"{path}\0")
    every = rng.random() < 0.5
    change = changes[int(rng.integers(len(changes) - 1))]
    for row in rows:
        if every or rng.random() < 0.2:
            row["photo"] = change(row["photo"])
    return rows


def _other_order(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    order = rng.permutation(list(rows[0]))
    return [{name: rows[place][name] for name in order} for place in rng.permutation(len(rows))]


def _nested(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    row, column = (
        rows[int(rng.integers(len(rows)))],
        str(rng.choice(["id", "photo", "title", "kind", "part", "height"])),
    )
    row[column] = [{"a": 1}, ["x", ["y"]], {}][int(rng.integers(3))]
    return rows


def _long(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    rows[int(rng.integers(len(rows)))]["note"] = "long " * 40_000
    return rows


def _several_lines(rows: list[Row], rng: np.random.Generator) -> list[Row]:
    for row in rows:
        if rng.random() < 0.3:
            row["title"] = row["title"].replace(" ", "\n").replace("a", ",a", 1)
    return rows


VALUES: dict[str, Callable[[list[Row], np.random.Generator], list[Row]]] = {
    "csv: holes": _holes,
    "jsonl: holes": _holes,
    "jsonl: numbers": _as_numbers,
    "csv: no number": _no_number,
    "csv: wrong paths": _wrong_paths,
    "csv: another order": _other_order,
    "jsonl: another order": _other_order,
    "jsonl: nested": _nested,
    "csv: a long field": _long,
    "csv: titles of several lines": _several_lines,
}


def _parquet(rows: list[Row], path: Path, **columns: Any) -> None:
    import pyarrow
    from pyarrow import parquet

    arrays = {name: pyarrow.array([row[name] for row in rows]) for name in rows[0]} | columns
    made = pyarrow.Table.from_arrays([*arrays.values()], [name.rstrip("+") for name in arrays])
    parquet.write_table(made, path, write_page_checksum=True)


def _types(rows: list[Row], rng: np.random.Generator, path: Path) -> None:
    """Numbers, dictionaries, decimals, binary: other types of the same values, and some of no use."""
    import datetime
    import decimal

    import pyarrow as arrow

    heights = [decimal.Decimal(row["height"]) for row in rows]
    choices = {
        "title": arrow.array([row["title"].encode() for row in rows]),
        "kind": arrow.array([row["kind"] for row in rows]).dictionary_encode(),
        "part": arrow.array([row["part"] for row in rows], arrow.large_string()),
        "height": arrow.array(heights, arrow.decimal128(38, 20)),
        "weight": arrow.array([float(row["weight"]) if rng.random() < 0.8 else None for row in rows]),
    }
    bad = {
        "height": arrow.array([datetime.datetime(2020, 1, 1)] * len(rows)),
        "weight": arrow.array([1 << 50] * len(rows), arrow.timestamp("ms")),
        "kind": arrow.array([{"a": row["kind"]} for row in rows]),
        "photo": arrow.array([[row["photo"]] for row in rows]),
        "title+": arrow.array([row["title"] for row in rows]),
    }
    some = {name: choices[name] for name in choices if rng.random() < 0.5}
    if rng.random() < 0.5:
        name = str(rng.choice(list(bad)))
        some[name] = bad[name]
    _parquet(rows, path, **some)


def _flipped(rows: list[Row], rng: np.random.Generator, path: Path) -> None:
    _parquet(rows, path)
    data = bytearray(path.read_bytes())
    data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)


def _cut(rows: list[Row], rng: np.random.Generator, path: Path) -> None:
    _parquet(rows, path)
    path.write_bytes(path.read_bytes()[: int(rng.integers(path.stat().st_size))])


PARQUET: dict[str, Callable[[list[Row], np.random.Generator, Path], None]] = {
    "parquet: other types": _types,
    "parquet: a bit flipped": _flipped,
    "parquet: shortened": _cut,
}
