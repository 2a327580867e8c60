"""What each modality contributes to a metric, and where more modalities do harm."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np


def shapley(values: Mapping[frozenset[str], float], modalities: Sequence[str]) -> dict[str, float]:
    """The exact Shapley value of each modality (Shapley 1953): they add up to complete less empty.

    A modality's value is what adding it changes, averaged over all orders in which the modalities can be added.

    Args:
      values: a metric for each of the 2^M subsets, the empty one too; where one is NaN, so are the results.
      modalities: M names.

    Returns:
      By name.
    """
    num_modalities = len(modalities)
    subsets = np.arange(2**num_modalities)
    bits = (subsets[:, None] >> np.arange(num_modalities)) & 1
    value = np.array([values[frozenset(itertools.compress(modalities, row))] for row in bits])
    size = bits.sum(axis=1)
    weight = np.array([1 / (num_modalities * math.comb(num_modalities - 1, s)) for s in range(num_modalities)])
    found = {}
    for m, name in enumerate(modalities):
        without = subsets[bits[:, m] == 0]
        found[name] = float(weight[size[without]] @ (value[without | 1 << m] - value[without]))
    return found


def counter_intuitive(
    correct: np.ndarray, patterns: np.ndarray, available: np.ndarray
) -> tuple[float, dict[tuple[int, int], float]]:
    """How often a prediction is right with fewer modalities and wrong with more.

    Args:
      correct: bool [P, N], whether the prediction under each pattern is right; multi-label, N may be all decisions.
      patterns: bool [P, M], no two the same.
      available: bool [P, N], which rows count under each pattern: those that have all its modalities.

    Returns:
      The share of rows for which that is so in any pair of patterns that differ in one modality, and with all patterns
      given so in any two of which one holds the other, among the rows that count under both of any pair; and by pair
      (fewer, more), as positions in P, the share among the rows that count under both. NaN where no row counts.
    """
    pairs = _nested(patterns)
    compared, harmed = np.zeros((2, correct.shape[1]), bool)
    rates = {}
    for fewer, more in pairs:
        both = available[fewer] & available[more]
        worse = both & correct[fewer] & ~correct[more]
        compared |= both
        harmed |= worse
        rates[fewer, more] = _share(worse, both)
    return _share(harmed, compared), rates


def _nested(patterns: np.ndarray) -> list[tuple[int, int]]:
    """Positions of all pairs of patterns of which the second has one modality more than the first."""
    position = {tuple(pattern): p for p, pattern in enumerate(patterns.tolist())}
    found = []
    for more, pattern in enumerate(patterns.tolist()):
        for m in np.flatnonzero(pattern):
            fewer = position.get((*pattern[:m], False, *pattern[m + 1 :]))
            if fewer is not None:
                found.append((fewer, more))
    return found


def _share(rows: np.ndarray, among: np.ndarray) -> float:
    return float(rows.sum() / among.sum()) if among.any() else math.nan
