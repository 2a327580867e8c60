"""Methods ranked over datasets: Demsar 2006, "Statistical comparisons of classifiers over multiple data sets"."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy  # whose parts are loaded, as they take long, when they are first used

LEVEL = 0.05


class Ranks(NamedTuple):
    """K methods over N datasets.

    Attributes:
      methods: the best first.
      average: rank of each, mean over the datasets, 1 for the best of all; who are even share their mean.
      p_value: of Friedman's test that all methods are the same; NaN where all are even.
      critical_difference: of two average ranks, Nemenyi's: with a larger one they differ at `LEVEL`.
      groups: the longest runs of two or more methods, [first, last] by number, that do not differ.
    """

    methods: list[str]
    average: np.ndarray
    p_value: float
    critical_difference: float
    groups: list[tuple[int, int]]


def ranks(values: np.ndarray, methods: Sequence[str], lower_is_better: bool = False) -> Ranks:
    """Ranks of at least 3 methods over at least 2 datasets.

    Args:
      values: float [N, K], one a dataset and method, e.g. its mean over seeds.
      methods: K names.
      lower_is_better: whether the least is rank 1.

    Raises:
      ValueError: fewer methods or datasets, or a value is NaN: a method that lacks a dataset cannot be ranked.
    """
    values = np.asarray(values, float)
    if values.ndim != 2 or values.shape[0] < 2 or values.shape[1] < 3 or np.isnan(values).any():
        raise ValueError(f"ranks of {values.shape} values: at least 2 datasets and 3 methods, and all values")
    by_dataset = scipy.stats.rankdata(values if lower_is_better else -values, axis=1)
    mean = by_dataset.mean(axis=0)
    order = np.argsort(mean, kind="stable")
    even = (by_dataset == by_dataset[:, :1]).all()
    p_value = math.nan if even else float(scipy.stats.friedmanchisquare(*by_dataset.T).pvalue)
    critical = critical_difference(len(methods), len(values))
    return Ranks([methods[k] for k in order], mean[order], p_value, critical, _groups(mean[order], critical))


def critical_difference(methods: int, datasets: int, level: float = LEVEL) -> float:
    """Nemenyi's: q sqrt(k (k + 1) / (6 N)), q the quantile of the studentized range over sqrt(2) (Demsar, table 5)."""
    quantile = scipy.stats.studentized_range.ppf(1 - level, methods, np.inf) / math.sqrt(2)
    return float(quantile * math.sqrt(methods * (methods + 1) / (6 * datasets)))


def _groups(average: np.ndarray, critical: float) -> list[tuple[int, int]]:
    """Of ascending average ranks; a run within another is left out."""
    found, reached = [], 0
    for first in range(len(average)):
        last = int(np.searchsorted(average, average[first] + critical, side="right")) - 1
        if last > max(first, reached):
            found.append((first, last))
            reached = last
    return found
