"""What the rows of a table are labelled with: classes, numbers or nothing, and how examples get that."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from umemma_jax.data.dataset import TRAIN
from umemma_jax.data.info import Info
from umemma_jax.data_prep.build.assemble import RawExample, labelled, trained_classes
from umemma_jax.data_prep.build.labels import class_names, sorted_classes
from umemma_jax.data_prep.build.prep_report import Report
from umemma_jax.data_prep.build.rows import MISSING_MARKS, Row
from umemma_jax.data_prep.build.targets import read_targets, strata
from umemma_jax.errors import UserError

Description = dict[str, Any]  # arguments of DatasetWriter


class Labelling(Protocol):
    """Labels of rows, by `Row.where`.

    Attributes:
      strata: names of what each row that can be used has, which splits get in proportion.
    """

    strata: Mapping[str, Sequence[str]]

    def give(
        self, examples: Sequence[RawExample], rows: Sequence[Row], report: Report
    ) -> tuple[list[RawExample], Description]:
        """The examples of some rows with their labels, some of them dropped, and what the dataset says of labels."""


@dataclass(frozen=True)
class Unlabelled:
    """Nothing is known of the rows."""

    strata: Mapping[str, Sequence[str]]

    def give(
        self, examples: Sequence[RawExample], rows: Sequence[Row], report: Report
    ) -> tuple[list[RawExample], Description]:
        """As `Labelling.give`."""
        return list(examples), {"classes": ()}


@dataclass(frozen=True)
class ClassLabels:
    """Each row has a class or, `multi_label`, any number of them.

    Attributes:
      strata: names of the classes.
      multi_label: whether rows may have several.
      drop_unseen: whether examples of classes that training never sees are dropped, rather than refused.
    """

    strata: Mapping[str, Sequence[str]]
    multi_label: bool
    drop_unseen: bool

    def give(
        self, examples: Sequence[RawExample], rows: Sequence[Row], report: Report
    ) -> tuple[list[RawExample], Description]:
        """As `Labelling.give`. Raises UserError as `trained_classes`."""
        names = [self.strata[row.where] for row in rows]
        classes = sorted_classes({name for of_row in names for name in of_row})
        examples = labelled(examples, names, classes, self.multi_label)
        places = {example.id: row.where for example, row in zip(examples, rows, strict=True)}
        examples, classes = trained_classes(
            examples, classes, lambda example: places[example.id], report, self.drop_unseen
        )
        return examples, {"classes": classes, "multi_label": self.multi_label}


class TargetLabels:
    """Each row has T numbers."""

    def __init__(self, columns: Sequence[str], numbers: Mapping[str, tuple[float, ...]]) -> None:
        """Takes the names of the targets, and their values by `Row.where`."""
        self._columns, self._numbers = columns, numbers
        self.strata = strata(numbers)

    def give(
        self, examples: Sequence[RawExample], rows: Sequence[Row], report: Report
    ) -> tuple[list[RawExample], Description]:
        """As `Labelling.give`. Raises UserError where there is nothing to train on."""
        if not any(example.split == TRAIN for example in examples):
            raise UserError(
                f"--label={','.join(self._columns)}: no row with a number is in the train split: check what was given"
            )
        given = [replace(example, label=self._numbers[row.where]) for example, row in zip(examples, rows, strict=True)]
        return given, {"classes": (), "targets": self._columns}


def labels_as_trained(rows: Sequence[Row], info: Info, report: Report) -> tuple[list[Row], np.ndarray]:
    """The rows that have a label, and their labels as those of a dataset that stands already.

    Args:
      rows: of another table, with the columns of the labels.
      info: what the dataset says of itself.
      report: gets the rows that are dropped.

    Returns:
      N rows, and int32 [N], float32 [N, K] of multi-label data, or float32 [N, T] of targets.

    Raises:
      UserError: no row has a label, or one has a class that training has never seen.
    """
    made_by = info.source
    columns, missing = label_columns(made_by.get("label")) or ("label",), made_by.get("na_values", MISSING_MARKS)
    if info.targets:
        numbers = read_targets(rows, columns, missing, report)
        kept = [row for row in rows if row.where in numbers]
        labels = np.array([numbers[row.where] for row in kept], np.float32)
    else:
        names, _ = class_names(rows, columns[0], made_by.get("label_separator"), missing, report)
        kept = [row for row in rows if row.where in names]
        labels = _indices([names[row.where] for row in kept], kept, info)
    if not kept:
        raise UserError(
            f"no row has a label in column {', '.join(map(repr, columns))}: give rows whose answer is known"
        )
    return kept, labels


def label_columns(label: str | Sequence[str] | None) -> tuple[str, ...]:
    """The columns that a label stands in."""
    return (label,) if isinstance(label, str) else tuple(label or ())


def _indices(names: Sequence[Sequence[str]], rows: Sequence[Row], info: Info) -> np.ndarray:
    """Class indices [N], or indicators [N, K]."""
    indicators = np.zeros((len(names), len(info.classes)), np.float32)
    places = {name: place for place, name in enumerate(info.classes)}
    for of_row, row, indicated in zip(names, rows, indicators, strict=True):
        for name in of_row:
            if name not in places:
                raise UserError(f"{row.where}: class {name!r} is never seen in training: leave the row out")
            indicated[places[name]] = 1
    return indicators if info.multi_label else indicators.argmax(axis=1).astype(np.int32)
