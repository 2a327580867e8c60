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
        values, counted = np.where(counted, values, 0), np.asarray(counted)
        total, rows = (self._sums(part.reshape(-1, part.shape[-1]).T).T for part in (values, counted))
        found = np.divide(total, rows, out=np.full(total.shape, np.nan), where=rows > 0)
        return found.reshape(*values.shape[:-1], -1)

    def macro_f1(self, predicted: np.ndarray, label: np.ndarray, counted: np.ndarray) -> np.ndarray:
        """Resampled macro-F1 over the rows that count.

        The mean over all K classes; a class that is neither predicted nor there counts 0, as with scikit-learn's
        `f1_score(average="macro", zero_division=0)`. `calibration.indicators` makes
        bool [N, K] of classes int [N].

        Args:
          predicted: bool [..., N, K].
          label: bool [N, K].
          counted: bool [..., N], or [N] for all.

        Returns:
          float64 [..., R]; NaN where a resample has no row that counts and has a class.
        """
        counted = np.asarray(counted)[..., None]
        predicted, label = np.broadcast_arrays(predicted & counted, np.asarray(label, bool) & counted)
        *lead, num_examples, num_classes = predicted.shape
        predicted, label = (part.reshape(-1, num_examples, num_classes) for part in (predicted, label))
        group = max(1, BLOCK_BYTES // (4 * num_examples * (2 * num_classes + 1)))  # whose columns fit into a block
        groups = (slice(at, at + group) for at in range(0, len(predicted), group))
        return np.concatenate([self._macro_f1(predicted[part], label[part]) for part in groups]).reshape(*lead, -1)

    def _macro_f1(self, predicted: np.ndarray, label: np.ndarray) -> np.ndarray:
        """Of bool [G, N, K] each, False in rows that do not count; float64 [G, R]."""
        num_groups, num_examples, num_classes = label.shape
        marks = predicted.astype(np.uint8) + label
        there = label.any(axis=2, keepdims=True)
        columns = np.concatenate([predicted & label, marks, there], axis=2).transpose(1, 0, 2)
        sums = self._sums(columns.reshape(num_examples, -1)).reshape(-1, num_groups, columns.shape[2])
        hits, marks, there = np.split(sums, [num_classes, 2 * num_classes], axis=2)
        f1 = 2 * hits / np.maximum(marks, 1)
        return np.where(there[..., 0] > 0, f1.mean(axis=2), np.nan).T

    def _sums(self, columns: np.ndarray) -> np.ndarray:
        """Sums of each column of [N, C] over each resample, float64 [R, C]."""
        columns = columns.astype(np.float32)
        block = max(1, BLOCK_BYTES // (4 * len(columns)))
        blocks = range(0, len(self._counts), block)
        sums = [self._counts[at : at + block].astype(np.float32) @ columns for at in blocks]
        return np.concatenate(sums, dtype=np.float64)


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
