"""UPMC Food101: photos and page titles of 101 dishes, from the raw download.

python -m data_prep.food101 --raw=DIR --out=DIR

The raw folder holds `images/{train,test}/<class>/<class>_<n>.jpg` and `texts/{train,test}_titles.csv` without header,
whose fields are image name, title, class (Wang et al., "Recipe recognition with large multimodal food dataset", ICME
Workshops 2015; not ETHZ Food-101). Real copies are damaged here and there. What happens then:

- row without image, image without row, empty title, unreadable image: the example is kept with what is left of it;
- nothing is left: the example is dropped;
- an image lies in the folder of another class than its row says: the row's class counts.

Each is counted and listed in `prep_report.json` beside the data.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from umemma_jax import command
from umemma_jax.data.dataset import DatasetWriter, Modality
from umemma_jax.data_prep.build import console
from umemma_jax.data_prep.build.assemble import RawExample, stratified, trained_classes, write_dataset
from umemma_jax.data_prep.build.delimited import not_decodable, read_records
from umemma_jax.data_prep.build.layout import check_layout
from umemma_jax.data_prep.build.prep_report import Report
from umemma_jax.data_prep.build.splits import SPLITS, read_split_file
from umemma_jax.data_prep.build.tasks import FileTask
from umemma_jax.data_prep.raw.photos import ToJpeg, find_images
from umemma_jax.errors import UserError

FOLDERS = ("train", "test")  # of the raw data
NEEDED = ("images/train", "images/test", "texts/train_titles.csv", "texts/test_titles.csv")
FIELDS = ("image name", "title", "class")

ROW_WITHOUT_IMAGE = "row without image (kept, text only)"
IMAGE_WITHOUT_ROW = "image without row (kept, image only)"
EMPTY_TITLE = "empty title (kept, image only)"
OTHER_FOLDER = "image in another class's folder (the row's class counts)"
NOT_IN_SPLIT_FILE = "not in the split file (dropped)"
NOT_IN_RAW_DATA = "in the split file, not in the raw data"


@dataclass(frozen=True)
class Row:
    """One record of a titles file.

    Attributes:
      name: of the image, which is the example's id.
      title: without white space around it; may be empty.
      label: class name.
      where: file and line, for errors.
    """

    name: str
    title: str
    label: str
    where: str


@dataclass(frozen=True)
class Pair:
    """What there is of one example, and where it comes from: the row, the image, or both."""

    name: str
    label: str
    title: str
    image: Path | None
    where: str


def prepare(
    out: str,
    seed: int = 0,
    overwrite: bool = False,
    *,
    raw: str,
    split: str | None = None,
    validation_share: float = 0.1,
    size: int = 256,
    max_pixels: int | None = None,
    processes: int | str = 1,
    max_unreadable: float = console.MAX_UNREADABLE,
    drop_unseen: bool = False,
) -> None:
    """Prepares the dataset: splits train, val and test.

    Args:
      out: folder to make.
      seed: of the validation split.
      overwrite: whether `out` may be replaced.
      raw: folder with `images` and `texts`.
      split: JSON file {"train": [image name, ...], "val": ..., "test": ...}, as of missing-aware prompts
        (arXiv 2303.03369); None draws val from train.
      validation_share: share of train to draw, every class in proportion; 0 leaves val out.
      size: images keep at most so many pixels on their shorter side.
      max_pixels: files of more are refused; None: as `umemma_jax.data_prep.raw.limits` says.
      processes: how many read images; or HOST:PORT of a Dask scheduler whose workers do.
      max_unreadable: share of the images that may be unreadable.
      drop_unseen: whether examples of classes that training never sees are dropped.

    Raises:
      UserError: the raw data are not as described above in a way that cannot be mended, or `out` is in use.
    """
    folder = Path(raw)
    check_layout(folder, NEEDED, "UPMC Food101")
    report = Report()
    pairs = {name: _read_pairs(folder, name, report) for name in FOLDERS}
    _check_names(pair for of_folder in pairs.values() for pair in of_folder)
    if split is not None:
        by_split = _split_as_listed(pairs, Path(split), report)
    else:
        by_split = _draw_validation(pairs, validation_share, np.random.default_rng(seed))
    classes = sorted({pair.label for of_split in by_split.values() for pair in of_split})
    places = {pair.name: pair.where for of_split in by_split.values() for pair in of_split}
    to_jpeg = ToJpeg(size, max_pixels)
    examples = [_example(name, pair, classes, to_jpeg) for name in SPLITS for pair in by_split.get(name, ())]
    examples, classes = trained_classes(examples, classes, lambda example: places[example.id], report, drop_unseen)
    writer = DatasetWriter(
        out,
        name="food101",
        description="Photos of dishes and the titles of the web pages that they are from (UPMC Food101).",
        classes=classes,
        modalities={
            "image": Modality(kind="image", encoding="jpeg"),
            "text": Modality(kind="text", encoding="utf-8"),
        },
        source={
            "command": "data_prep.food101",
            "raw": raw,
            "split": split,
            "validation_share": None if split else validation_share,
            "seed": seed,
            "size": size,
            "max_pixels": max_pixels,
        },
        overwrite=overwrite,
    )
    write_dataset(writer, out, examples, report, processes, max_unreadable)


def read_titles(path: Path) -> Iterator[Row]:
    """Reads a titles file: CSV in UTF-8, no header, fields may be quoted.

    Raises:
      UserError: it cannot be read, or a record has not three fields, or no image name or class.
    """
    try:
        records = read_records(path, ",", header=False)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise not_decodable(path, error) from error
    return (_row(record.fields, record.where) for record in records)


def _row(fields: list[str], where: str) -> Row:
    if len(fields) != len(FIELDS):
        raise UserError(
            f"{where}: {len(fields)} fields instead of {len(FIELDS)} ({', '.join(FIELDS)}): "
            "put quotation marks around a title with commas"
        )
    name, title, label = (field.strip() for field in fields)
    if not name or not label or "/" in name:
        raise UserError(f"{where}: image name {name!r}, class {label!r}: neither may be empty, nor a path: correct it")
    return Row(name, title, label, where)


def _read_pairs(raw: Path, folder: str, report: Report) -> list[Pair]:
    """Brings rows and images of "train" or "test" together: rows in their order, then images without row."""
    images: dict[str, Path] = {}
    for path in find_images(raw / "images" / folder, report):
        if path.name in images:
            raise UserError(f"{path}: there is another image of this name, {images[path.name]}: rename or remove one")
        images[path.name] = path
    pairs = []
    for row in read_titles(raw / "texts" / f"{folder}_titles.csv"):
        image = images.pop(row.name, None)
        if image is None:
            report.add(ROW_WITHOUT_IMAGE, f"{row.name} ({row.where})")
        elif image.parent.name != row.label:
            report.add(OTHER_FOLDER, f"{image}: {row.label} ({row.where})")
        if not row.title:
            report.add(EMPTY_TITLE, f"{row.name} ({row.where})")
        pairs.append(Pair(row.name, row.label, row.title, image, row.where))
    for name, path in images.items():
        report.add(IMAGE_WITHOUT_ROW, str(path))
        pairs.append(Pair(name, path.parent.name, "", path, str(path)))
    return pairs


def _check_names(pairs: Iterator[Pair]) -> None:
    places: dict[str, str] = {}
    for pair in pairs:
        if pair.name in places:
            raise UserError(f"{pair.where}: {pair.name} is in {places[pair.name]} already: remove one of the two")
        places[pair.name] = pair.where


def _split_as_listed(pairs: Mapping[str, list[Pair]], path: Path, report: Report) -> dict[str, list[Pair]]:
    """Splits as a file says, in its order."""
    listed = read_split_file(path, SPLITS, required=("train", "test"))
    remaining = {pair.name: pair for of_folder in pairs.values() for pair in of_folder}
    by_split: dict[str, list[Pair]] = {split: [] for split in listed}
    for split, names in listed.items():
        for name in names:
            if name in remaining:
                by_split[split].append(remaining.pop(name))
            else:
                report.add(NOT_IN_RAW_DATA, f"{name} ({split})")
    for name, pair in remaining.items():
        report.add(NOT_IN_SPLIT_FILE, f"{name} ({pair.where})")
    for split, found in by_split.items():
        if not found:
            raise UserError(f"{path}: none of the examples of {split!r} is in the raw data: is it of another dataset?")
    return by_split


def _draw_validation(pairs: Mapping[str, list[Pair]], share: float, rng: np.random.Generator) -> dict[str, list[Pair]]:
    train = pairs["train"]
    _, labels = np.unique([pair.label for pair in train], return_inverse=True)
    parts = stratified(labels, [share], rng)
    return {
        "train": [pair for pair, part in zip(train, parts, strict=True) if part == 0],
        "val": [pair for pair, part in zip(train, parts, strict=True) if part == 1],
        "test": pairs["test"],
    }


def _example(split: str, pair: Pair, classes: list[str], to_jpeg: ToJpeg) -> RawExample:
    tasks = {"image": FileTask(to_jpeg, pair.image)} if pair.image else {}
    values = {"text": pair.title} if pair.title else {}
    return RawExample(split, pair.name, classes.index(pair.label), tasks, values)


def main() -> None:
    """Runs the command line."""
    parser = console.Parser("data_prep.food101", "UPMC Food101: photos and titles of 101 dishes.")
    parser.add_argument("--raw", required=True, metavar="DIR", help="folder with images/ and texts/")
    parser.add_argument("--split", metavar="FILE", help="JSON of image names by split (default: draw val from train)")
    parser.add_argument(
        "--validation-share", type=console.share, default=0.1, metavar="SHARE", help="of train (default: 0.1)"
    )
    console.add_image_arguments(parser)
    console.add_drop_unseen_argument(parser)
    console.run(parser, prepare)


if __name__ == "__main__":
    command.run(main)
