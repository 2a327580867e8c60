"""Targets of regression: numbers that examples have as labels, and what is known of each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Target:
    """One number to be predicted.

    Attributes:
      name: of it.
      mean: over the train split, in its own unit; None where there is no train split.
      std: population standard deviation, likewise.
    """

    name: str
    mean: float | None = None
    std: float | None = None


def standardised(labels: np.ndarray, targets: Sequence[Target]) -> np.ndarray:
    """Labels [..., T] in standard deviations from the mean of the train split, float64."""
    mean, std = scale(targets)
    return (np.asarray(labels, np.float64) - mean) / std


def scale(targets: Sequence[Target]) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations, float64 [T] each."""
    return np.array([target.mean for target in targets], float), np.array([target.std for target in targets], float)
