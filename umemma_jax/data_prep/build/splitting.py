"""Which split each row of a table is in, by `Row.where`: a column says it, or it is drawn, class by class."""

import argparse
import math
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn import model_selection

from umemma_jax.data_prep.build.assemble import stratified
from umemma_jax.data_prep.build.prep_report import Report
from umemma_jax.data_prep.build.rows import Row, is_missing, text_of
from umemma_jax.data_prep.build.splits import SPLIT_NAMES, SPLITS
from umemma_jax.errors import UserError

SHARES = "0.8,0.1,0.1"
FOLD_SHARES = (0.9, 0.1, 0.0)  # of the examples that are not tested on
MOST_PARTS = 20  # that groups are dealt into, of which the splits get their shares

UNLABELLED_SPLIT = "test"

NO_SPLIT = "row without split (dropped)"
NO_GROUP = "row without group (taken as a group of its own)"


@dataclass(frozen=True)
class Splitting:
    """How the rows of a table are split.

    Attributes:
      split: column of the split, or the shares of train, val and test; None for `SHARES`, or `UNLABELLED_SPLIT`.
      groups: column whose values never cross splits, or None.
      folds: of cross-validation; 0 for none.
      seed: of what is drawn.
      missing: what stands for no value, beside nothing at all.
      labelled: whether the rows have labels, which shares and folds take.
    """

    split: str | None
    groups: str | None
    folds: int
    seed: int
    missing: Sequence[str]
    labelled: bool

    def splits(
        self,
        rows: Sequence[Row],
        strata: Mapping[str, Sequence[str]],
        report: Report,
        given: Mapping[str, str] | None = None,
    ) -> dict[str, str]:
        """The split of each row that is used.

        Args:
          rows: of the table.
          strata: names of the classes of each row that can be used.
          report: gets what is dropped.
          given: the split of each row, where it is known.

        Raises:
          UserError: the splits contradict themselves or the groups, or cannot be drawn.
        """
        if given is not None and self.split is not None:
            raise UserError(f"--split={self.split}: the tables are of one split each: leave it out")
        shares = shares_of(SHARES if self.split is None and self.labelled else self.split)
        if shares and not self.labelled and given is None:
            raise UserError(
                f"--split={self.split}: shares are drawn class by class, which takes --label: "
                "leave --split out, and all rows are test, or name a column"
            )
        rows = [row for row in rows if row.where in strata]
        groups = self._groups(rows, report)
        if given is not None:
            splits = {row.where: given[row.where] for row in rows}
        elif shares:
            return draw_splits(strata, shares, groups, self.seed)
        elif self.split is not None:
            splits = read_splits(rows, self.split, self.missing, report)
        else:
            splits = dict.fromkeys(strata, UNLABELLED_SPLIT)
        if groups is not None:
            check_groups(splits, groups, self.groups)
        return splits

    def fold_splits(self, rows: Sequence[Row], strata: Mapping[str, Sequence[str]]) -> Iterator[dict[str, str]]:
        """Of each fold, the split of each row; the arguments are those of `splits`. Raises as `draw_folds`."""
        if self.split is not None or not self.labelled:
            raise UserError(f"--folds={self.folds}: takes --label, and no --split, since it draws the splits itself")
        groups = self._groups([row for row in rows if row.where in strata], Report())
        return draw_folds(strata, self.folds, groups, self.seed)

    def _groups(self, rows: Sequence[Row], report: Report) -> dict[str, str] | None:
        return None if self.groups is None else read_groups(rows, self.groups, self.missing, report)


def add_split_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `Splitting`."""
    parser.add_argument(
        "--split",
        metavar="COLUMN",
        help=f"train, val or test; or shares (default: {SHARES}; without --label all is {UNLABELLED_SPLIT})",
    )
    parser.add_argument("--groups", metavar="COLUMN", help="whose values never cross splits")
    parser.add_argument(
        "--folds",
        type=int,
        default=0,
        metavar="K",
        help="of cross-validation, in OUT/fold0, OUT/fold1 ... (default: 0, one dataset in OUT)",
    )


def shares_of(split: str | None) -> list[float] | None:
    """Shares of train, val and test; None if `split` is a column or None."""
    if split is None:
        return None
    try:
        shares = [float(part) for part in split.split(",")]
    except ValueError:
        return None
    if len(shares) != len(SPLITS) or min(shares) < 0 or not shares[0] or not math.isclose(sum(shares), 1):
        raise UserError(f"--split={split}: give three shares, of {', '.join(SPLITS)}, that sum to 1, or a column")
    return shares


def read_splits(rows: Sequence[Row], column: str, missing: Sequence[str], report: Report) -> dict[str, str]:
    """The split that each row names; a row without one is left out."""
    splits = {}
    for row in rows:
        if is_missing(row.values.get(column), missing):
            report.add(NO_SPLIT, row.where)
            continue
        name = text_of(row, column)
        if name.lower() not in SPLIT_NAMES:
            raise UserError(f"{row.where}: unknown split {name!r} in column {column!r}: use {', '.join(SPLITS)}")
        splits[row.where] = SPLIT_NAMES[name.lower()]
    return splits


def read_groups(rows: Sequence[Row], column: str, missing: Sequence[str], report: Report) -> dict[str, str]:
    """The group of each row, none of which may be in two splits."""
    groups = {}
    for row in rows:
        alone = is_missing(row.values.get(column), missing)
        if alone:
            report.add(NO_GROUP, row.where)
        groups[row.where] = f"row {row.where}" if alone else f"value {text_of(row, column)}"
    return groups


def check_groups(splits: Mapping[str, str], groups: Mapping[str, str], column: str) -> None:
    """Raises UserError if a group is in two splits, which were not drawn by groups."""
    first: dict[str, str] = {}
    for where, split in splits.items():
        other = first.setdefault(groups[where], where)
        if splits[other] != split:
            raise UserError(
                f"{where}: of split {split}, but {other} with the same value of {column!r} is of {splits[other]}: "
                "correct one, or leave --groups out"
            )


def draw_splits(
    strata: Mapping[str, Sequence[str]], shares: Sequence[float], groups: Mapping[str, str] | None, seed: int
) -> dict[str, str]:
    """A split for each row, every class in proportion; with groups, as far as these allow.

    Args:
      strata: names of the classes of each row; of several the rarest one counts.
      shares: of train, val and test.
      groups: of the rows, where whole groups are drawn.
      seed: of the draw.

    Raises:
      UserError: there are fewer groups than splits.
    """
    if groups is None:
        parts = stratified(_rarest(strata), shares[1:], np.random.default_rng(seed))
        return {where: SPLITS[part] for where, part in zip(strata, parts, strict=True)}
    wanted = sum(share > 0 for share in shares)
    found = len({groups[where] for where in strata})
    if found < wanted:
        raise UserError(f"--groups: {found} group(s) cannot fill {wanted} splits: name another column")
    dealt = np.array(list(_deal(strata, groups, min(MOST_PARTS, found), seed).values()))
    splits = np.array(SPLITS)[_parts_of_splits(shares, dealt.max() + 1)[dealt]]
    return dict(zip(strata, splits.tolist(), strict=True))


def draw_folds(
    strata: Mapping[str, Sequence[str]], count: int, groups: Mapping[str, str] | None, seed: int
) -> Iterator[dict[str, str]]:
    """Of each fold, the split of each row: every row is tested on in one fold, and in the others mostly trained on.

    The arguments are those of `draw_splits`; a tenth of what is left is for validation.

    Raises:
      UserError: there are fewer rows or groups than folds.
    """
    found = len(strata if groups is None else {groups[where] for where in strata})
    if not 2 <= count <= found:
        what = "rows" if groups is None else "groups"
        raise UserError(f"--folds={count}: give 2 or more, and no more than the {found} {what}")
    dealt = _deal(strata, groups, count, seed)
    for fold in range(count):
        rest = {where: strata[where] for where, part in dealt.items() if part != fold}
        drawn = draw_splits(rest, FOLD_SHARES, groups, seed)
        yield {where: drawn.get(where, SPLITS[-1]) for where in strata}


def _deal(
    strata: Mapping[str, Sequence[str]], groups: Mapping[str, str] | None, count: int, seed: int
) -> dict[str, int]:
    """The number of the part that each row is in, of `count` parts about as large and as mixed as each other."""
    classes = _rarest(strata)
    most = Counter(classes.tolist()).most_common(1)[0][1]
    if count > most:  # each class has fewer rows than there are parts: nothing can be in proportion
        classes = np.zeros(len(classes), int)
    options = {"n_splits": count, "shuffle": True, "random_state": seed}
    if groups is None:
        drawn, of_rows = model_selection.StratifiedKFold(**options), None
    else:
        drawn, of_rows = model_selection.StratifiedGroupKFold(**options), [groups[where] for where in strata]
    parts = np.zeros(len(classes), int)
    with warnings.catch_warnings():  # that some class has fewer rows than there are parts
        warnings.simplefilter("ignore", UserWarning)
        for part, (_, members) in enumerate(drawn.split(classes, classes, of_rows)):
            parts[members] = part
    return dict(zip(strata, parts.tolist(), strict=True))


def _parts_of_splits(shares: Sequence[float], count: int) -> np.ndarray:
    """The split that each of `count` equal parts goes to, int [count]: as the shares say, and one at least."""
    others = [max(round(share * count), share > 0) for share in shares[1:]]
    return np.repeat(np.arange(len(shares)), [count - sum(others), *others])


def _rarest(strata: Mapping[str, Sequence[str]]) -> np.ndarray:
    """The number of the rarest class of each row, int [N]."""
    times = Counter(name for of_row in strata.values() for name in of_row)
    rarest = [min(of_row, key=lambda name: (times[name], name), default="") for of_row in strata.values()]
    return np.unique(rarest, return_inverse=True)[1]
