"""The command line that all preparations share: arguments, progress, counts, a user's mistake in one line."""

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn, TypeVar

from tqdm import tqdm

from umemma_jax.data.dataset import Dataset
from umemma_jax.errors import UserError

T = TypeVar("T")


class Parser(argparse.ArgumentParser):
    """A parser that knows the arguments of every preparation: --out, --seed and --overwrite."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=f"python -m {prog}", description=description, allow_abbrev=False)
        self.add_argument("--out", required=True, metavar="DIR", help="folder to make")
        self.add_argument("--seed", type=_seed, default=0, help="of every random draw (default: 0)")
        self.add_argument("--overwrite", action="store_true", help="replace an existing folder")

    def error(self, message: str) -> NoReturn:
        """Raises instead of printing the usage and exiting."""
        raise UserError(f"{message}; see --help")


def run(parser: Parser, prepare: Callable[..., None]) -> None:
    """Calls `prepare` with the command line's arguments; a user's mistake ends in one line and exit status 1."""
    try:
        prepare(**vars(parser.parse_args()))
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("error: interrupted, nothing was written")


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
    """Prints how many examples of each class each split of a finished dataset has."""
    rows = [["class", *dataset.info.classes, "all"]]
    for name, split in dataset.info.splits.items():
        rows.append([name, *map(str, split.classes), str(split.examples)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(f"{dataset.info.name}: {dataset.path}")
    for row in rows:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)
