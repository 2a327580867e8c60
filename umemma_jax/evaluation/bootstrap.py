"""How sure a number is: the percentile bootstrap over examples (Efron 1979).

The examples are drawn anew once, with replacement, and every number is computed from the same draws. So the difference
of two numbers is paired: what makes an example hard for both cancels.
"""

import warnings

import numpy as np

BLOCK_BYTES = 2**26  # of counts as float32 at a time


class Resamples:
    """R draws of N out of N examples, held as how often each example was drawn.

    Sums over a resample are products with these counts. They are float32: exact for whole numbers below 2^24, and to
    about 1e-6 of the result for others.

    Args:
      num_examples: N.
      resamples: R.
      seed: of the draws.
    """

    def __init__(self, num_examples: int, resamples: int = 1000, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self._counts = np.empty((resamples, num_examples), np.uint8)  # above 255 once in more than 1e500 draws
        for row in self._counts:
            row[:] = np.bincount(rng.integers(num_examples, size=num_examples), minlength=num_examples)

    def means(self, values: np.ndarray, counted: np.ndarray) -> np.ndarray:
        """Resampled means over the rows that count.

        Args:
          values: [..., N]; of rows that do not count, anything.
          counted: bool, shape as the values, or [N] for all of them.

        Returns:
          float64 [..., R]; NaN where a resample has no row that counts.
        """
        totals = self._sums(np.where(counted, values, 0))
        return _ratio(totals, self._sums(np.asarray(counted)))

    def macro_f1(self, predicted: np.ndarray, label: np.ndarray, counted: np.ndarray) -> np.ndarray:
        """Resampled macro-F1 over the rows that count.

        The mean over all K classes; a class that is neither predicted nor there counts 0, as with scikit-learn's
        `f1_score(average="macro", zero_division=0)`. A predicted class int [N] is `np.eye(K, dtype=bool)[predicted]`.

        Args:
          predicted: bool [..., N, K].
          label: bool [N, K].
          counted: bool [..., N], or [N] for all.

        Returns:
          float64 [..., R]; NaN where a resample has no row that counts and has a class.
        """
        counted = np.asarray(counted)[..., None]
        predicted, label = np.broadcast_arrays(predicted & counted, label & counted)
        *lead, num_examples, num_classes = predicted.shape
        pairs = zip(*(part.reshape(-1, num_examples, num_classes) for part in (predicted, label)), strict=True)
        return np.reshape([self._macro_f1(*pair) for pair in pairs], (*lead, len(self._counts)))

    def _macro_f1(self, predicted: np.ndarray, label: np.ndarray) -> np.ndarray:
        """Of bool [N, K] each, False in rows that do not count; float64 [R]."""
        num_classes = label.shape[1]
        marks = predicted.astype(np.uint8) + label
        there = label.any(axis=1, keepdims=True)
        sums = self._sums(np.concatenate([predicted & label, marks, there], axis=1).T)
        hits, marks, there = np.split(sums, [num_classes, 2 * num_classes])
        f1 = 2 * hits / np.maximum(marks, 1)
        return np.where(there[0] > 0, f1.mean(axis=0), np.nan)

    def _sums(self, values: np.ndarray) -> np.ndarray:
        """Sums over each resample of values [..., N]; float64 [..., R]."""
        resamples, num_examples = self._counts.shape
        flat = values.reshape(-1, num_examples).astype(np.float32)
        sums = np.empty((len(flat), resamples))
        block = max(1, BLOCK_BYTES // (4 * num_examples))
        for start in range(0, resamples, block):
            counts = self._counts[start : start + block].astype(np.float32)
            sums[:, start : start + block] = flat @ counts.T
        return sums.reshape(*values.shape[:-1], resamples)


def interval(values: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """The percentile interval of resampled values.

    Args:
      values: [..., R]; NaN, which a resample without rows that count has, is left out.
      level: the share of the values inside.

    Returns:
      Its ends, float64 [...] each; NaN where every value is.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice")
        low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2], axis=-1)
    return low, high


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """NaN where nothing is divided by nothing."""
    return np.divide(numerator, denominator, out=np.full(np.shape(numerator), np.nan), where=denominator > 0)
