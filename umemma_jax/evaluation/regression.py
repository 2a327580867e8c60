"""Regression metrics of examples on the host, in NumPy, and the headline metric that intervals are of.

Predictions and labels are [N, T], in the units of T targets; of several targets a metric is the mean over them. What is
undefined, because there are no rows or they all have one value, is NaN.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # whose parts are loaded, as they take long, when they are first used

from umemma_jax.evaluation.bootstrap import Resamples

METRICS = ("r2", "rmse", "mae", "spearman")
PRIMARY = METRICS[0]


def scores(predicted: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """Means over the targets.

    Args:
      predicted: [N, T].
      label: likewise.

    Returns:
      `r2`, the coefficient of determination, 1 less the squared error over that of the label's own mean; `rmse` and
      `mae`, root of the mean squared and mean absolute error, in the targets' units; `spearman`, the correlation of
      ranks.
    """
    of_targets = list(zip(*(_scores(p, y) for p, y in zip(predicted.T, label.T, strict=True)), strict=True))
    return {name: float(np.mean(values)) for name, values in zip(METRICS, of_targets, strict=True)}


def scores_by_target(predicted: np.ndarray, label: np.ndarray, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """The same of each target, by name."""
    columns = zip(names, predicted.T, label.T, strict=True)
    return {name: dict(zip(METRICS, map(float, _scores(p, y)), strict=True)) for name, p, y in columns}


def _scores(predicted: np.ndarray, label: np.ndarray) -> tuple[float, ...]:
    """All METRICS of one target, from [N] each."""
    if not len(label):
        return (np.nan,) * len(METRICS)
    predicted, label = predicted.astype(np.float64), label.astype(np.float64)
    error = predicted - label
    squared, variance = np.mean(error**2), np.mean((label - label.mean()) ** 2)
    ranked = np.ptp(label) > 0 and np.ptp(predicted) > 0
    return (
        1 - squared / variance if variance > 0 else np.nan,
        np.sqrt(squared),
        np.abs(error).mean(),
        scipy.stats.spearmanr(predicted, label).statistic if ranked else np.nan,
    )


@dataclass(frozen=True)
class R2:
    """The coefficient of determination, mean over T targets, as `headline.Headline` is of classes.

    Predictions are float [..., N, T], and only rows that count, bool [..., N], are looked at.

    Attributes:
      label: float [N, T].
      resamples: of the N examples, the same for all that is measured.
    """

    label: np.ndarray
    resamples: Resamples

    def value(self, decided: np.ndarray, counted: np.ndarray) -> float:
        """The metric of predictions [N, T]; NaN where the rows that count do not differ."""
        return scores(decided[counted], self.label[counted])[PRIMARY]

    def resampled(self, decided: np.ndarray, counted: np.ndarray) -> np.ndarray:
        """The metric on each of the R resamples, float64 [..., R]; NaN as in `value`."""
        return self._resampled(np.square(decided.astype(np.float64) - self.label), counted)

    def resampled_means(self, cells: Iterable[np.ndarray], counted: np.ndarray) -> np.ndarray:
        """The mean metric of each cell's predictions, [S, N, T], on each resample, float64 [cells, R].

        Rows that count, bool [N], are the same in all.
        """
        squared = [np.square(decided.astype(np.float64) - self.label).mean(axis=0) for decided in cells]
        return self._resampled(np.array(squared), counted)

    def _resampled(self, squared: np.ndarray, counted: np.ndarray) -> np.ndarray:
        """From squared errors, [..., N, T]."""
        found = []
        for target, label in enumerate(self.label.T.astype(np.float64)):
            # Near 0 and 1, so that sums of float32 do not cancel.
            centred = (label - label.mean()) / (label.std() or 1.0)
            mean, square = (self._means(x, counted) for x in (centred, centred**2))
            error = self._means(squared[..., target] / (label.var() or 1.0), counted)
            variance = square - mean**2
            ratio = np.divide(error, variance, out=np.full(error.shape, np.nan), where=variance > 1e-9)
            found.append(1 - ratio)
        return np.mean(found, axis=0)

    def _means(self, values: np.ndarray, counted: np.ndarray) -> np.ndarray:
        shape = np.broadcast_shapes(values.shape, np.shape(counted))
        return self.resamples.means(np.broadcast_to(values, shape), counted)
