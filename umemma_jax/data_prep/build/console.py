"""The command line that all preparations share: arguments, progress, counts, a user's mistake in one line."""

import argparse
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

from umemma_jax import command
from umemma_jax.data.dataset import Dataset
from umemma_jax.data_prep.build.parallel import work_folder_path
from umemma_jax.data_prep.raw import limits
from umemma_jax.errors import UserError

T = TypeVar("T")

MAX_UNREADABLE = 0.05  # a larger share of unreadable files stops
_MOST_COLUMNS = 20  # classes that still make a readable table


class Parser(command.Parser):
    """A parser that knows the arguments of every preparation: --out, --seed and --overwrite."""

    def __init__(self, module: str, description: str) -> None:
        super().__init__(prog=command.program(module), description=description, allow_abbrev=False)
        self.add_argument("--out", required=True, metavar="DIR", help="folder to make")
        self.add_argument("--seed", type=_seed, default=0, help="of every random draw (default: 0)")
        self.add_argument("--overwrite", action="store_true", help="replace an existing folder")


def run(parser: Parser, prepare: Callable[..., None]) -> None:
    """Calls `prepare` with the command line's arguments.

    Raises:
      UserError: a mistake among them, what `prepare` raises, or an interruption.
    """
    arguments = argparse.Namespace()
    try:
        parser.parse_args(namespace=arguments)
        prepare(**vars(arguments))
    except KeyboardInterrupt as error:
        kept = "out" in arguments and work_folder_path(arguments.out).is_dir()
        continues = "; the same command continues" if kept else ""
        raise UserError(f"interrupted, nothing was written{continues}") from error


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def add_image_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --size, --max-pixels, --processes, --scheduler and --max-unreadable, for preparations that read images."""
    parser.add_argument(
        "--size", type=count, default=256, metavar="PIXELS", help="longest shorter side of an image (default: 256)"
    )
    parser.add_argument(
        "--max-pixels",
        type=count,
        metavar="N",
        help=f"a file of more is refused (default: {limits.PIXELS:,}; a frame of a video {limits.FRAME_PIXELS:,})",
    )
    parser.add_argument(
        "--processes", type=count, default=cores(), metavar="N", help=f"that read files (default: all cores, {cores()})"
    )
    parser.add_argument(
        "--scheduler",
        dest="processes",
        type=_address,
        metavar="HOST:PORT",
        help="of a Dask cluster whose workers read files, under the same paths, instead of processes here",
    )
    parser.add_argument(
        "--max-unreadable",
        type=share,
        default=MAX_UNREADABLE,
        metavar="SHARE",
        help=f"of the files, more stops (default: {MAX_UNREADABLE})",
    )


def add_drop_unseen_argument(parser: argparse.ArgumentParser) -> None:
    """Adds --drop-unseen."""
    parser.add_argument(
        "--drop-unseen", action="store_true", help="leave out the examples of classes that training never sees"
    )


def add_frame_rate_argument(parser: argparse.ArgumentParser) -> None:
    """Adds --fps."""
    parser.add_argument(
        "--fps", type=_frame_rate, default=1.0, metavar="HZ", help="frames of a second to keep (default: 1)"
    )


def add_sample_rate_argument(parser: argparse.ArgumentParser) -> None:
    """Adds --rate."""
    parser.add_argument("--rate", type=_sample_rate, default=16000, metavar="HZ", help="of sound (default: 16000)")


def count(text: str) -> int:
    """The type of an argument that is a whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return text


def names(text: str) -> tuple[str, ...]:
    """The type of an argument that lists names, with commas between them."""
    return tuple(name for name in text.split(",") if name)


def share(text: str) -> float:
    """The type of an argument that is a share, from 0 to below 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to below 1")
    return value


def progress(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Passes `items` on; shows a bar on a terminal, otherwise prints a line after each quarter."""
    if sys.stderr.isatty():
        yield from tqdm(items, desc=description, total=total)
        return
    quarters = {math.ceil(total * quarter / 4) for quarter in range(1, 5)}
    for done, item in enumerate(items, start=1):
        yield item
        if done in quarters:
            print(f"{description}: {done} of {total}", flush=True)


def print_counts(dataset: Dataset) -> None:
    """Prints how many examples of each class each split of a finished dataset has; of many classes, the extremes."""
    classes = dataset.info.classes
    many = len(classes) > _MOST_COLUMNS
    rows = [["class", "fewest", "most", "all"] if many else ["class", *classes, "all"]]
    for name, split in dataset.info.splits.items():
        counts = (min(split.classes), max(split.classes)) if many else split.classes
        rows.append([name, *map(str, counts), str(split.examples)])
    number = f", {len(classes)} classes" if many else "" if classes else f", {_targets(dataset) or 'no labels'}"
    print(f"{dataset.info.name}: {dataset.path}{number}")
    _print_table(rows)


def _targets(dataset: Dataset) -> str:
    """Each target with its mean and standard deviation."""
    return ", ".join(
        f"target {target.name}" + ("" if target.mean is None else f" ({target.mean:.4g} ± {target.std:.4g})")
        for target in dataset.info.targets
    )


def print_present(dataset: Dataset) -> None:
    """Prints in how many examples of each split each modality is present."""
    rows = [["present", *dataset.info.modalities, "all"]]
    for name, split in dataset.info.splits.items():
        rows.append([name, *map(str, split.present.values()), str(split.examples)])
    _print_table(rows)


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def _sample_rate(text: str) -> int:
    if not text.isdecimal() or int(text) not in limits.RATES:
        first, last = limits.RATES[0], limits.RATES[-1]
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of samples in a second, {first} to {last}")
    return int(text)


def _frame_rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of frames in a second, above 0 and up to 1000")
    return value
