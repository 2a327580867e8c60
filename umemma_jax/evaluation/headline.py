"""The headline metric of any decisions about a split's examples: its value, and how sure it is."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from umemma_jax.evaluation import metrics
from umemma_jax.evaluation.bootstrap import Resamples
from umemma_jax.evaluation.regression import R2


def headline_of(label: np.ndarray, num_classes: int, resamples: Resamples) -> "Headline | R2":
    """The headline metric of labels: of classes int [N] or bool [N, K], or of targets float [N, T]."""
    return R2(label, resamples) if label.dtype.kind == "f" else Headline(label, num_classes, resamples)


@dataclass(frozen=True)
class Headline:
    """Accuracy, or macro-F1 of multi-label data.

    Decisions are int [..., N], multi-label bool [..., N, K], and only rows that count, bool [..., N], are looked at.

    Attributes:
      label: int [N], or bool [N, K].
      num_classes: K.
      resamples: of the N examples, the same for all that is measured.
    """

    label: np.ndarray
    num_classes: int
    resamples: Resamples

    def value(self, decided: np.ndarray, counted: np.ndarray) -> float:
        """The metric of decisions [N] or [N, K]; NaN where no row that counts has a class."""
        hits, predicted, actual = metrics.class_counts(decided[counted], self.label[counted], self.num_classes)
        if not actual.any():
            return math.nan
        if self.label.ndim == 2:
            return float(metrics.f1_scores(hits, predicted, actual).mean())
        return float(hits.sum() / actual.sum())

    def resampled(self, decided: np.ndarray, counted: np.ndarray) -> np.ndarray:
        """The metric on each of the R resamples, float64 [..., R]; NaN as in `value`."""
        if self.label.ndim == 2:
            return self.resamples.macro_f1(decided, self.label, counted)
        return self.resamples.means(decided == self.label, counted)

    def resampled_means(self, cells: Iterable[np.ndarray], counted: np.ndarray) -> np.ndarray:
        """The mean metric of each cell's decisions, [S, N] or [S, N, K], on each resample, float64 [cells, R].

        Rows that count, bool [N], are the same in all.
        """
        if self.label.ndim == 2:
            return np.array([self.resampled(decided, counted).mean(axis=0) for decided in cells])
        return self.resamples.means(np.array([(decided == self.label).mean(axis=0) for decided in cells]), counted)
