"""Streaming statistics of one modality: channel mean and deviation, and the element-wise mean.

NaN stands for a missing number, which counts in none of them.
"""

import numpy as np


class Statistics:
    """Sees every value of a split once, keeps no value.

    Mean and variance are merged value by value after Chan, Golub and LeVeque (1979), which stays exact where the
    textbook difference of squares cancels.
    """

    def __init__(self) -> None:
        self._values = 0
        self._sum: np.ndarray | None = None  # [positions of the longest value, channels]
        self._lacking: np.ndarray | None = None  # likewise: how many values lack the number
        self._positions: np.ndarray | int = 0  # those seen, [channels] where numbers can be missing
        self._mean: np.ndarray | float = 0.0  # [channels]
        self._squares: np.ndarray | float = 0.0  # [channels], sum of squared deviations from the mean

    def update(self, value: np.ndarray) -> None:
        """Takes in one value, [positions, channels], or as many as a further first axis has."""
        for one in value.reshape(-1, *value.shape[-2:]):
            self._update(one)

    def _update(self, value: np.ndarray) -> None:
        known = ~np.isnan(value) if value.dtype.kind == "f" else True
        value = value.astype(np.float64)
        positions = len(value) if known is True else known.sum(axis=0)
        total = self._positions + positions
        mean = value.sum(axis=0, where=known) / np.maximum(positions, 1)
        delta = mean - self._mean
        self._squares = (
            self._squares
            + np.square(value - mean).sum(axis=0, where=known)
            + np.square(delta) * (self._positions * positions / np.maximum(total, 1))
        )
        self._mean = self._mean + delta * (positions / np.maximum(total, 1))
        self._positions = total
        self._sum = _added(self._sum, value if known is True else np.where(known, value, 0))
        self._values += 1
        if known is not True and not known.all():
            self._lacking = _added(self._lacking, ~known)

    @property
    def empty(self) -> bool:
        """Whether no value has been seen."""
        return not self._values

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel over all positions of all values; 0 of one that is always missing."""
        return tuple(float(x) for x in self._mean)

    @property
    def std(self) -> tuple[float, ...]:
        """Population standard deviation of each channel."""
        return tuple(float(x) for x in np.sqrt(self._squares / np.maximum(self._positions, 1)))

    @property
    def missing(self) -> tuple[int, ...] | None:
        """How many values lack each channel, of values with one position; None where none lacks any."""
        return None if self._lacking is None else tuple(int(x) for x in self._lacking.sum(axis=0))

    @property
    def mean_value(self) -> np.ndarray:
        """float64 [positions, channels]: the mean value, where every value is padded with zeros like the longest."""
        lacking = 0 if self._lacking is None else _added(np.zeros_like(self._sum), self._lacking)
        return self._sum / np.maximum(self._values - lacking, 1)


def _added(total: np.ndarray | None, value: np.ndarray) -> np.ndarray:
    """The sum of both, as long as the longer one; in place where `total` is."""
    if total is None:
        return value.astype(np.float64)
    if len(value) > len(total):
        total = np.pad(total, ((0, len(value) - len(total)), (0, 0)))
    total[: len(value)] += value
    return total
