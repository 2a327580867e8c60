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
        self._positions: np.ndarray | int = 0  # those seen, [channels] where numbers are missing
        self._mean: np.ndarray | float = 0.0  # [channels]
        self._squares: np.ndarray | float = 0.0  # [channels], sum of squared deviations from the mean

    def update(self, value: np.ndarray) -> None:
        """Takes in one value, [positions, channels], or as many as a further first axis has."""
        for one in value.reshape(-1, *value.shape[-2:]):
            self._update(one)

    def _update(self, value: np.ndarray) -> None:
        lacking = _lacking(value)
        positions = len(value) if lacking is None else len(value) - lacking.sum(axis=0)
        known = True if lacking is None else ~lacking.T
        total = self._positions + positions
        channels = np.ascontiguousarray(value.T, np.float64)  # numbers that lie side by side are summed much faster
        mean = channels.sum(axis=1, where=known) / _at_least_1(positions)
        delta = mean - self._mean
        self._squares = (
            self._squares
            + np.square(channels - mean[:, np.newaxis]).sum(axis=1, where=known)
            + np.square(delta) * (self._positions * positions / _at_least_1(total))
        )
        self._mean = self._mean + delta * (positions / _at_least_1(total))
        self._positions = total
        self._values += 1
        if lacking is not None:
            value = np.where(lacking, 0, value)
            self._lacking = _added(self._lacking, lacking)
        self._sum = _added(self._sum, value)

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
        return tuple(float(x) for x in np.sqrt(self._squares / _at_least_1(self._positions)))

    @property
    def missing(self) -> tuple[int, ...] | None:
        """How many values lack each channel, of values with one position; None where none lacks any."""
        return None if self._lacking is None else tuple(int(x) for x in self._lacking.sum(axis=0))

    @property
    def mean_value(self) -> np.ndarray:
        """float64 [positions, channels]: the mean value, where every value is padded with zeros like the longest."""
        lacking = 0 if self._lacking is None else _added(np.zeros_like(self._sum), self._lacking)
        return self._sum / np.maximum(self._values - lacking, 1)


def _at_least_1(count: np.ndarray | int) -> np.ndarray | int:
    """What to divide by: where nothing was counted, the sum is 0."""
    return max(count, 1) if isinstance(count, int) else np.maximum(count, 1)


def _lacking(value: np.ndarray) -> np.ndarray | None:
    """Where numbers are missing, bool [positions, channels]; None where none is."""
    lacking = np.isnan(value) if value.dtype.kind == "f" else None
    return lacking if lacking is not None and lacking.any() else None


def _added(total: np.ndarray | None, value: np.ndarray) -> np.ndarray:
    """The sum of both, as long as the longer one; in place where `total` is."""
    if total is None:
        return value.astype(np.float64)
    if len(value) > len(total):
        total = np.pad(total, ((0, len(value) - len(total)), (0, 0)))
    total[: len(value)] += value
    return total
