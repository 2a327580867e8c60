"""MM-IMDb: posters, plots and genres of movies, from the raw download.

python -m data_prep.mm_imdb --raw=DIR --out=DIR

The raw folder holds `dataset/<id>.jpeg`, `dataset/<id>.json` with `plot` (a list) and `genres`, and `split.json` with
the ids of train, dev and test (Arevalo et al., "Gated multimodal units for information fusion", arXiv 1702.01992). The
split dev is named val here. Labels are multi-label. Only genres with enough training movies are kept: the benchmark has
the 23 most common ones, which --genres can name. What happens to damaged data:

- poster missing or unreadable, no plot: the movie is kept with what is left;
- nothing is left, no <id>.json, or none of the kept genres: the movie is dropped.

Each is counted and listed in `prep_report.json` beside the data.
"""

import argparse
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umemma_jax import command
from umemma_jax.data.dataset import DatasetWriter, Modality
from umemma_jax.data_prep.build import console, json_text
from umemma_jax.data_prep.build.assemble import RawExample, trained_classes, write_dataset
from umemma_jax.data_prep.build.layout import check_layout
from umemma_jax.data_prep.build.prep_report import Report
from umemma_jax.data_prep.build.rows import MISSING_MARKS, is_missing
from umemma_jax.data_prep.build.splits import read_split_file
from umemma_jax.data_prep.build.tasks import FileTask
from umemma_jax.data_prep.raw.photos import ToJpeg
from umemma_jax.errors import UserError

SPLITS = {"train": "train", "dev": "val", "test": "test"}  # in the split file -> in the prepared dataset
MIN_SHARE = 0.005  # of the training movies must have a genre, if --min-count does not say how many
TEXTS = ("longest", "all")

NO_JSON = "in the split file, but no <id>.json (dropped)"
NO_KEPT_GENRE = "movie without any kept genre (dropped)"
NO_POSTER = "movie without poster (kept, text only)"
NO_PLOT = "movie without plot (kept, image only)"
NOT_IN_SPLIT_FILE = "not in the split file (passed over)"
RARE_GENRE = "genre not kept"


@dataclass(frozen=True)
class Movie:
    """What <id>.json says, and where the poster is."""

    id: str
    split: str
    plots: tuple[str, ...]
    genres: tuple[str, ...]
    poster: Path | None
    where: Path


def prepare(
    out: str,
    seed: int = 0,
    overwrite: bool = False,
    *,
    raw: str,
    text: str = "longest",
    min_count: int | None = None,
    genres: tuple[str, ...] | None = None,
    size: int = 256,
    max_pixels: int | None = None,
    processes: int | str = 1,
    max_unreadable: float = console.MAX_UNREADABLE,
    drop_unseen: bool = False,
) -> None:
    """Prepares the dataset: splits train, val and test.

    Args:
      out: folder to make.
      seed: for provenance only, nothing is random.
      overwrite: whether `out` may be replaced.
      raw: folder with `dataset` and `split.json`.
      text: "longest" plot of each movie, or "all", one after another.
      min_count: genres with fewer training movies are not kept; None means `MIN_SHARE` of the training movies.
      genres: those to keep, whatever their number; None goes by `min_count`.
      size: posters keep at most so many pixels on their shorter side.
      max_pixels: files of more are refused; None: as `umemma_jax.data_prep.raw.limits` says.
      processes: how many read posters; or HOST:PORT of a Dask scheduler whose workers do.
      max_unreadable: share of the posters that may be unreadable.
      drop_unseen: whether examples of classes that training never sees are dropped.

    Raises:
      UserError: the raw data are not as described above in a way that cannot be mended, or `out` is in use.
    """
    if genres is not None and min_count is not None:
        raise UserError("--genres and --min-count: give one of the two")
    folder = Path(raw)
    check_layout(folder, ("dataset", "split.json"), "MM-IMDb")
    report = Report()
    movies = _read_movies(folder, report)
    classes = _kept_genres(movies, genres, min_count, report)
    places = {movie.id: str(movie.where) for movie in movies}
    to_jpeg = ToJpeg(size, max_pixels)
    made = (_example(movie, classes, text, to_jpeg, report) for movie in movies)
    examples = [example for example in made if example is not None]
    examples, classes = trained_classes(examples, classes, lambda example: places[example.id], report, drop_unseen)
    writer = DatasetWriter(
        out,
        name="mm_imdb",
        description="Posters and plots of movies, with their genres (MM-IMDb).",
        classes=classes,
        modalities={
            "image": Modality(kind="image", encoding="jpeg"),
            "text": Modality(kind="text", encoding="utf-8"),
        },
        multi_label=True,
        source={
            "command": "data_prep.mm_imdb",
            "raw": raw,
            "text": text,
            "min_count": min_count,
            "genres": genres,
            "seed": seed,
            "size": size,
            "max_pixels": max_pixels,
        },
        overwrite=overwrite,
    )
    write_dataset(writer, out, examples, report, processes, max_unreadable)


def _read_movies(raw: Path, report: Report) -> list[Movie]:
    """The movies of the split file, in its order."""
    listed = read_split_file(raw / "split.json", tuple(SPLITS), required=("train", "test"))
    unlisted = {path.stem for path in (raw / "dataset").glob("*.json")} | {
        path.stem for path in (raw / "dataset").glob("*.jpeg")
    }
    wanted = [(SPLITS[name], id) for name, ids in listed.items() for id in ids]
    movies = []
    for split, id in console.progress(wanted, "reading plots and genres", len(wanted)):
        unlisted.discard(id)
        path = raw / "dataset" / f"{id}.json"
        if path.is_file():
            movies.append(_read_movie(path, split))
        else:
            report.add(NO_JSON, f"{id} ({split})")
    for id in sorted(unlisted):
        report.add(NOT_IN_SPLIT_FILE, id)
    if not movies:
        raise UserError(f"{raw / 'split.json'}: none of its movies is in {raw / 'dataset'}: is it of another dataset?")
    return movies


def _read_movie(path: Path, split: str) -> Movie:
    try:
        record = json_text.parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}): download it again") from error
    plots = _strings(path, record, "plot")
    genres = tuple(genre for genre in _strings(path, record, "genres") if not is_missing(genre, MISSING_MARKS))
    poster = path.with_suffix(".jpeg")
    return Movie(path.stem, split, plots, genres, poster if poster.is_file() else None, path)


def _strings(path: Path, record: Any, field: str) -> tuple[str, ...]:
    """A list of strings; a field that is absent is an empty one."""
    values = record.get(field, []) if isinstance(record, dict) else None
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise UserError(f"{path}: field {field!r} is no list of strings: correct it or download it again")
    encodable = (value.encode(errors="replace").decode() for value in values)  # JSON can hold what UTF-8 cannot
    return tuple(stripped for value in encodable if (stripped := value.strip()))


def _kept_genres(
    movies: list[Movie], genres: tuple[str, ...] | None, min_count: int | None, report: Report
) -> list[str]:
    """The classes, sorted by name."""
    trained = Counter(genre for movie in movies if movie.split == "train" for genre in set(movie.genres))
    if genres is not None:
        for genre in genres:
            if not trained[genre]:
                raise UserError(f"--genres: no training movie is of {genre!r}; there are: {', '.join(sorted(trained))}")
        kept = set(genres)
    else:
        if min_count is None:
            min_count = math.ceil(MIN_SHARE * sum(movie.split == "train" for movie in movies))
        kept = {genre for genre, count in trained.items() if count >= min_count}
    if not kept:
        raise UserError(f"--min-count={min_count}: no genre has so many training movies: give a smaller number")
    for genre in sorted({genre for movie in movies for genre in movie.genres} - kept):
        report.add(RARE_GENRE, f"{genre} ({trained[genre]} training movies)")
    return sorted(kept)


def _example(movie: Movie, classes: list[str], text: str, to_jpeg: ToJpeg, report: Report) -> RawExample | None:
    label = tuple(number for number, genre in enumerate(classes) if genre in movie.genres)
    if not label:
        report.add(NO_KEPT_GENRE, f"{movie.id} ({', '.join(movie.genres) or 'no genre at all'})")
        return None
    tasks, values = {}, {}
    if not movie.plots:
        report.add(NO_PLOT, movie.id)
    else:
        values = {"text": max(movie.plots, key=len) if text == "longest" else "\n".join(movie.plots)}
    if movie.poster is None:
        report.add(NO_POSTER, movie.id)
    else:
        tasks = {"image": FileTask(to_jpeg, movie.poster)}
    return RawExample(movie.split, movie.id, label, tasks, values)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of different names: a,b,c")
    return names


def main() -> None:
    """Runs the command line."""
    parser = console.Parser("data_prep.mm_imdb", "MM-IMDb: posters, plots and genres of movies.")
    parser.add_argument("--raw", required=True, metavar="DIR", help="folder with dataset/ and split.json")
    parser.add_argument(
        "--text", choices=TEXTS, default="longest", help="which plots to keep of those that a movie has"
    )
    parser.add_argument(
        "--min-count",
        type=console.count,
        metavar="N",
        help=f"training movies that a genre needs to be kept (default: {100 * MIN_SHARE:g} %% of them)",
    )
    parser.add_argument("--genres", type=_names, metavar="A,B,...", help="genres to keep (default: by --min-count)")
    console.add_image_arguments(parser)
    console.add_drop_unseen_argument(parser)
    console.run(parser, prepare)


if __name__ == "__main__":
    command.run(main)
