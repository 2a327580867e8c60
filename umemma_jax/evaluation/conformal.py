"""Sets of classes that hold the true one as often as was promised, whatever the model.

Single-label: split conformal prediction with the score 1 - p of the true class (LAC: Sadinle et al. 2019). A new
example's set has its true class with probability 1 - alpha at least, and 1 - alpha + 1 / (n + 1) at most where no
scores are equal. Multi-label: conformal risk control (Angelopoulos et al. 2022) of the share of an example's true
classes that its set lacks, whose mean is alpha at most. An example with one true class makes the two the same.

One quantile per missing pattern, from examples under that very pattern, makes the promise hold under each of them
(Mondrian). Examples that have no class have nothing to cover: they do not count. Where a model is right more often than
promised, some sets are empty.
"""

import numpy as np

from umemma_jax.evaluation.calibration import indicators


def scores(probabilities: np.ndarray, label: np.ndarray) -> np.ndarray:
    """1 - p of the true classes, NaN at the others.

    Args:
      probabilities: [N, K].
      label: int [N], or bool [N, K].

    Returns:
      float64 [N, K].
    """
    return np.where(indicators(label, probabilities.shape[1]), 1 - np.asarray(probabilities, np.float64), np.nan)


def quantile(scores: np.ndarray, alpha: float) -> float:
    """The lowest q such that the sets {k: 1 - p_k <= q} lack alpha of the true classes of a new example at most.

    With the share of the true classes of n examples that the sets have, c(q), and one more example that may lack all:
    (n (1 - c(q)) + 1) / (n + 1) <= alpha (Angelopoulos et al. 2022, equation 4). Where each example has one class this
    is the ceil((n + 1) (1 - alpha))-th lowest score.

    Args:
      scores: [N, K] as `scores` makes them, NaN at the classes that are not there.
      alpha: in (0, 1).

    Returns:
      q; infinite, so that every set has every class, where n < 1 / alpha - 1.
    """
    there = ~np.isnan(scores)
    classes = there.sum(axis=-1, keepdims=True)
    share = np.broadcast_to(1 / np.maximum(classes, 1), there.shape)[there]
    order = np.argsort(scores[there])
    needed = (np.count_nonzero(classes) + 1) * (1 - alpha)
    enough = np.cumsum(share[order]) >= needed - 1e-9  # sums of thirds, and 1 - alpha, are not exact
    return float(scores[there][order][np.argmax(enough)]) if enough.any() else np.inf


def sets(probabilities: np.ndarray, quantile: float) -> np.ndarray:
    """The classes whose score is the quantile at most; bool, shape as the probabilities."""
    return 1 - np.asarray(probabilities, np.float64) <= quantile


def coverage_and_size(probabilities: np.ndarray, label: np.ndarray, quantile: float) -> tuple[float, float]:
    """What the sets hold.

    Args:
      probabilities: [N, K].
      label: int [N], or bool [N, K].
      quantile: as `quantile` finds it.

    Returns:
      The mean over the examples of the share of their true classes that their set has, and the sets' mean number of
      classes; NaN where no example has a class.
    """
    truth = indicators(label, probabilities.shape[1])
    counted = truth.any(axis=-1)
    if not counted.any():
        return np.nan, np.nan
    chosen, truth = sets(probabilities, quantile)[counted], truth[counted]
    covered = (chosen & truth).sum(axis=-1) / truth.sum(axis=-1)
    return float(covered.mean()), float(chosen.sum(axis=-1).mean())
