"""The one order that statistics of ranked rows need: by confidence, ties taken together."""

import numpy as np


def ranked(confidence: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorts values by ascending confidence; equal confidences share the mean of their values.

    What is linear in the values of such a row, as a bin's mean or the risk at a coverage, is then its expectation over
    all orders of the ties: no result depends on the order of the rows.

    Args:
      confidence: [N].
      values: [N].

    Returns:
      Confidence and values, float64 [N].
    """
    distinct, group, size = np.unique(confidence, return_inverse=True, return_counts=True)
    mean = np.bincount(group, weights=values, minlength=len(size)) / size
    return np.repeat(distinct, size).astype(np.float64), np.repeat(mean, size)
