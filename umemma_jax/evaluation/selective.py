"""What is gained when the least confident predictions are left to someone else."""

import numpy as np

from umemma_jax.evaluation.ranking import ranked


def aurc(confidence: np.ndarray, loss: np.ndarray) -> float:
    """Area under the risk-coverage curve (Geifman and El-Yaniv 2017; Geifman et al. 2019): lower is better.

    The mean, over n = 1, ..., N, of the mean loss of the n most confident rows. Rows of equal confidence count with
    their mean loss: the result is the expectation over all orders of them.

    Args:
      confidence: [N].
      loss: [N], as 1 on rows that are wrong and 0 on the others.

    Returns:
      NaN where N is 0.
    """
    if not len(confidence):
        return np.nan
    _, ascending = ranked(confidence, loss)
    return float(np.mean(np.cumsum(ascending[::-1]) / np.arange(1, len(ascending) + 1)))
