"""Hand-made raw files with photos, in the layouts of UPMC Food101 and MM-IMDb."""

import csv
import io
import json

import numpy as np
from PIL import Image

CLASSES = ("pad_thai", "pizza", "ramen")
TRAIN_PER_CLASS, TEST_PER_CLASS = 20, 4


def photo_bytes(seed, size=(24, 16)):
    """A small JPEG of smooth noise, different for each seed."""
    colours = np.random.default_rng(seed).integers(256, size=(2, 2, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(colours).resize(size).save(buffer, "JPEG")
    return buffer.getvalue()


def write_titles(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def write_food101(folder, per_class=(TRAIN_PER_CLASS, TEST_PER_CLASS)):
    """Photos and titles of a few classes; returns folder -> rows."""
    number = 0
    all_rows = {}
    for split, count in zip(("train", "test"), per_class, strict=True):
        rows = []
        for label in CLASSES:
            (folder / "images" / split / label).mkdir(parents=True)
            for _ in range(count):
                name = f"{label}_{number}.jpg"
                (folder / "images" / split / label / name).write_bytes(photo_bytes(number))
                rows.append((name, f"How to make {label} {number}", label))
                number += 1
        write_titles(folder / "texts" / f"{split}_titles.csv", rows)
        all_rows[split] = rows
    return all_rows


GENRES = ("Comedy", "Drama", "War")


def write_mm_imdb(folder, counts=(20, 5, 8)):
    """Movies with two plots, number n of the genres n % 3 and (n + 1) % 3; returns split -> ids."""
    (folder / "dataset").mkdir(parents=True)
    splits, number = {}, 0
    for split, count in zip(("train", "dev", "test"), counts, strict=True):
        splits[split] = []
        for _ in range(count):
            id = f"{number:07d}"
            (folder / "dataset" / f"{id}.jpeg").write_bytes(photo_bytes(number))
            write_movie(folder, id, [f"Plot {number}.", f"A longer plot {number}."], number_genres(number))
            splits[split].append(id)
            number += 1
    (folder / "split.json").write_text(json.dumps(splits))
    return splits


def number_genres(number):
    return [GENRES[number % 3], GENRES[(number + 1) % 3]]


def write_movie(folder, id, plots, genres):
    (folder / "dataset" / f"{id}.json").write_text(json.dumps({"title": id, "plot": plots, "genres": genres}))
