"""Streaming statistics of one modality: channel mean and deviation, and the element-wise mean."""

import numpy as np


class Statistics:
    """Sees every value of a split once, keeps no value.

    Mean and variance are merged value by value after Chan, Golub and LeVeque (1979), which stays exact where the
    textbook difference of squares cancels.
    """

    def __init__(self) -> None:
        self._values = 0
        self._sum: np.ndarray | None = None  # [positions of the longest value, channels]
        self._positions = 0
        self._mean: np.ndarray | float = 0.0  # [channels]
        self._squares: np.ndarray | float = 0.0  # [channels], sum of squared deviations from the mean

    def update(self, value: np.ndarray) -> None:
        """Takes in one value, [positions, channels], or as many as a further first axis has."""
        for one in value.reshape(-1, *value.shape[-2:]):
            self._update(one)

    def _update(self, value: np.ndarray) -> None:
        value = value.astype(np.float64)
        positions = len(value)
        mean = value.mean(axis=0)
        delta = mean - self._mean
        total = self._positions + positions
        self._squares = (
            self._squares
            + np.square(value - mean).sum(axis=0)
            + np.square(delta) * (self._positions * positions / total)
        )
        self._mean = self._mean + delta * (positions / total)
        self._positions = total
        self._add(value)
        self._values += 1

    def _add(self, value: np.ndarray) -> None:
        if self._sum is None:
            self._sum = np.zeros_like(value)
        if len(value) > len(self._sum):
            grown = np.zeros_like(value)
            grown[: len(self._sum)] = self._sum
            self._sum = grown
        self._sum[: len(value)] += value

    @property
    def empty(self) -> bool:
        """Whether no value has been seen."""
        return not self._values

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel over all positions of all values."""
        return tuple(float(x) for x in self._mean)

    @property
    def std(self) -> tuple[float, ...]:
        """Population standard deviation of each channel."""
        return tuple(float(x) for x in np.sqrt(self._squares / self._positions))

    @property
    def mean_value(self) -> np.ndarray:
        """float64 [positions, channels]: the mean value, where every value is padded with zeros like the longest."""
        return self._sum / self._values
