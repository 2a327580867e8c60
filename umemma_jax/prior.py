"""The prior of the classes, which an ensemble of uni-modal models must count once, not once for each model."""

import numpy as np


def log_prior(labels: np.ndarray, num_classes: int, label_smoothing: float = 0.0) -> np.ndarray:
    """How frequent the classes are, each counted once more than it is there, so that all logits are finite.

    Args:
      labels: of the examples, int [N]; multi-label: zeros and ones, [N, K].
      num_classes: K.
      label_smoothing: with which a model is trained, single-label only: the prior that it learns is smoothed too.

    Returns:
      float32 [K]: log-probabilities; multi-label: logits.
    """
    if labels.ndim == 2:
        positive = labels.sum(axis=0) + 1.0
        return np.log(positive / (len(labels) + 2 - positive)).astype(np.float32)
    count = np.bincount(labels, minlength=num_classes) + 1.0
    share = (1 - label_smoothing) * count / count.sum() + label_smoothing / num_classes
    return np.log(share).astype(np.float32)


def of_heads(labels: np.ndarray, present: np.ndarray, num_classes: int, label_smoothing: float = 0.0) -> np.ndarray:
    """The mean over uni-modal heads of the `log_prior` that each learns, from the examples with its modality.

    Where modalities are absent at random, all heads learn the same one.

    Args:
      labels: as of `log_prior`.
      present: what the examples have, bool [N, M].
      num_classes: K.
      label_smoothing: as of `log_prior`.

    Returns:
      float32 [K].
    """
    return np.mean([log_prior(labels[has], num_classes, label_smoothing) for has in present.T], axis=0)
