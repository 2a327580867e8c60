"""What a piece of software does to take part: fit to a table, predict its test rows with and without each modality.

Runs in the environment of that software, so it imports pandas and the standard library alone.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

COMPLETE = "complete"
PARTS = ("train", "validation", "test")
SINGLE_ROWS = 20  # predicted alone, for the latency of one row


class Table(NamedTuple):
    """A table as all see it.

    Attributes:
      label: column to predict, a class.
      modalities: columns of each.
      types: number, category, text or image, by column.
      parts: train, validation and test.
    """

    label: str
    modalities: dict[str, list[str]]
    types: dict[str, str]
    parts: dict[str, pd.DataFrame]

    def of_type(self, type: str) -> list[str]:
        """Columns of that type."""
        return [column for column, found in self.types.items() if found == type]


class Settings(NamedTuple):
    """How to fit.

    Attributes:
      seconds: that training may take.
      text: folder of a pre-trained BERT; None for what the software takes by itself.
      folder: of its own files.
    """

    seconds: float
    text: Path | None
    folder: Path


Predict = Callable[[pd.DataFrame], Sequence[str]]


def write_table(table: Table, folder: Path) -> None:
    """Writes it as CSV and JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {"label": table.label, "modalities": table.modalities, "types": table.types}
    (folder / "table.json").write_text(json.dumps(record, indent=2), encoding="utf-8")
    for part, rows in table.parts.items():
        rows.to_csv(folder / f"{part}.csv", index=False)


def read_table(folder: Path) -> Table:
    """Reads what `write_table` has written: labels, categories and texts as str, numbers as float."""
    record = json.loads((folder / "table.json").read_text(encoding="utf-8"))
    dtypes = {column: float if type == "number" else str for column, type in record["types"].items()}
    dtypes[record["label"]] = str
    parts = {part: pd.read_csv(folder / f"{part}.csv", dtype=dtypes) for part in PARTS}
    return Table(**record, parts=parts)


def take_part(fit: Callable[[Table, Settings], Predict]) -> None:
    """The command line of a piece of software: `fit` returns what predicts rows without labels.

    Writes OUT/predictions.csv, the label and a column for each pattern, and OUT/times.json.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--table", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--text", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    table = read_table(arguments.table)
    begin = time.perf_counter()
    predict = fit(table, Settings(arguments.seconds, arguments.text, arguments.out))
    times = {"fit_seconds": time.perf_counter() - begin}
    test = table.parts["test"]
    rows = test.drop(columns=table.label)
    usual = table.parts["train"][table.label].mode()[0]  # for rows of which nothing is left, where there is no answer
    found = {
        name: [usual if answer is None else answer for answer in predict(part)] for name, part in patterns(table, rows)
    }
    times["row_milliseconds"] = 1000 * statistics.median(_seconds(predict, rows.iloc[[n]]) for n in range(SINGLE_ROWS))
    arguments.out.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"label": test[table.label], **found}).to_csv(arguments.out / "predictions.csv", index=False)
    (arguments.out / "times.json").write_text(json.dumps(times), encoding="utf-8")


def patterns(table: Table, rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows as they are, and with each modality in turn emptied."""
    yield COMPLETE, rows
    for modality, columns in table.modalities.items():
        emptied = rows.copy()
        for column in columns:
            emptied[column] = pd.Series([None] * len(rows), index=rows.index, dtype=rows[column].dtype)
        yield f"without {modality}", emptied


def _seconds(predict: Predict, row: pd.DataFrame) -> float:
    begin = time.perf_counter()
    predict(row)
    return time.perf_counter() - begin
