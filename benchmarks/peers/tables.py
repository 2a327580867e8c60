"""The three tables: columns, types, modalities and splits."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.peers.protocol import PARTS, Table

HOLES = 0.4  # share of the numerals' numbers that is emptied
VALIDATION = 0.1  # share of the products' training pairs
SEED = 0

REVIEW_MODALITIES = {
    "review": ["Review Text"],
    "title": ["Title"],
    "table": [
        "Age",
        "Rating",
        "Positive Feedback Count",
        "Clothing ID",
        "Division Name",
        "Department Name",
        "Class Name",
    ],
}
NUMBERS = ("Age", "Rating", "Positive Feedback Count")


def reviews(data: Path) -> Table:
    """Texts, numbers and categories, with holes of their own."""
    rows = pd.read_csv(data / "clothing_reviews" / "reviews.csv", dtype=str)
    table = REVIEW_MODALITIES["table"]
    types = {"Review Text": "text", "Title": "text"} | {
        name: "number" if name in NUMBERS else "category" for name in table
    }
    label = "Recommended IND"
    parts = dict(zip(PARTS, ("train", "val", "test"), strict=True))
    split = {part: rows[rows["split"] == name][[*types, label]] for part, name in parts.items()}
    return Table(label, REVIEW_MODALITIES, types, split)


def products(data: Path) -> Table:
    """Photos and titles."""
    root = data / "product_pairs_upmc_layout"
    trained, test = (_products(root, part) for part in ("train", "test"))
    validated = np.random.default_rng(SEED).permutation(len(trained)) < VALIDATION * len(trained)
    parts = {"train": trained[~validated], "validation": trained[validated], "test": test}
    return Table("class", {"photo": ["photo"], "title": ["title"]}, {"photo": "image", "title": "text"}, parts)


def _products(root: Path, part: str) -> pd.DataFrame:
    with open(root / "texts" / f"{part}_titles.csv", encoding="utf-8", newline="") as file:
        rows = pd.DataFrame(csv.reader(file), columns=["photo", "title", "class"])
    folder = (root / "images" / part).resolve()
    pairs = zip(rows["class"], rows["photo"], strict=True)
    return rows.assign(photo=[str(folder / name / photo) for name, photo in pairs])


def numerals(data: Path) -> Table:
    """Six views, each of many numbers, with holes everywhere."""
    rows = pd.read_csv(data / "uci_mfeat" / "mfeat.csv", dtype={"label": str})
    columns = [name for name in rows if name not in ("id", "label", "split")]
    modalities: dict[str, list[str]] = {}
    for column in columns:
        modalities.setdefault(column.partition("_")[0], []).append(column)
    emptied = np.random.default_rng(SEED).random((len(rows), len(columns))) < HOLES
    rows[columns] = rows[columns].astype(float).mask(emptied)
    parts = dict(zip(PARTS, ("train", "val", "test"), strict=True))
    split = {part: rows[rows["split"] == name][[*columns, "label"]] for part, name in parts.items()}
    return Table("label", modalities, dict.fromkeys(columns, "number"), split)


TABLES: dict[str, Callable[[Path], Table]] = {"reviews": reviews, "products": products, "numerals": numerals}
