"""The prior of the classes, which an ensemble of uni-modal models must count once, not once for each model.

It is the one that the models have learned: where classes or examples are weighted in training, or the loss is no
cross-entropy, not the share of each class.
"""

import numpy as np
from scipy import special


def log_prior(
    labels: np.ndarray,
    num_classes: int,
    label_smoothing: float = 0.0,
    row_weights: np.ndarray | None = None,
    class_weights: np.ndarray | None = None,
    gamma: float = 0.0,
) -> np.ndarray:
    """The logits that minimise the training loss where the input says nothing.

    Without weights and gamma it is how frequent the classes are. Each is counted once more than it is there, so that
    all logits are finite.

    Args:
      labels: of the examples, int [N]; multi-label: zeros and ones, [N, K].
      num_classes: K.
      label_smoothing: with which a model is trained, single-label only: the prior that it learns is smoothed too.
      row_weights: of the examples in the loss, [N]; None for ones.
      class_weights: of the classes in the loss, [K], as `training.losses.ClassLoss` has them; None for ones.
      gamma: of focal loss.

    Returns:
      float32 [K]: log-probabilities; multi-label: logits.
    """
    row_weights = np.ones(len(labels)) if row_weights is None else row_weights
    class_weights = np.ones(num_classes) if class_weights is None else class_weights
    if labels.ndim == 2:
        count = np.stack([class_weights * (row_weights @ labels), row_weights @ (1 - labels)], axis=1) + 1.0
        positive, negative = _least_loss(count / count.sum(axis=1, keepdims=True), gamma).T
        return (positive - negative).astype(np.float32)
    count = class_weights * np.bincount(labels, row_weights, num_classes) + 1.0
    share = (1 - label_smoothing) * count / count.sum() + label_smoothing / num_classes
    return _least_loss(share, gamma).astype(np.float32)


def of_heads(
    labels: np.ndarray, present: np.ndarray, num_classes: int, **loss: float | np.ndarray | None
) -> np.ndarray:
    """The mean over uni-modal heads of the `log_prior` that each learns, from the examples with its modality.

    Where modalities are absent at random, all heads learn the same one.

    Args:
      labels: as of `log_prior`.
      present: what the examples have, bool [N, M].
      num_classes: K.
      **loss: the other arguments of `log_prior`.

    Returns:
      float32 [K].
    """
    row_weights = loss.pop("row_weights", None)
    row_weights = np.ones(len(labels)) if row_weights is None else row_weights
    priors = [log_prior(labels[has], num_classes, row_weights=row_weights[has], **loss) for has in present.T]
    return np.mean(priors, axis=0)


def _least_loss(share: np.ndarray, gamma: float) -> np.ndarray:
    """The log-probabilities log q that minimise sum_k share_k (1 - q_k)^gamma (-log q_k), float64 [..., C].

    At gamma = 0 they are log share. Else, by Lagrange, share_k s(q_k) is the same for all k, with the slope s(q) =
    (1 - q)^gamma (1 / q - gamma log q / (1 - q)), which falls from infinity to 0: q follows from the multiplier, and
    this from sum_k q_k = 1, by bisection.
    """
    if not gamma:
        return np.log(share)
    logit = np.linspace(-40, 40, 16001)
    log_q, log_rest = special.log_expit(logit), special.log_expit(-logit)
    log_slope = gamma * log_rest + np.log(np.exp(-log_q) - gamma * log_q * np.exp(-log_rest))
    low, high = np.full((*share.shape[:-1], 1), log_slope[-1]), np.full((*share.shape[:-1], 1), log_slope[0])
    for _ in range(80):
        middle = (low + high) / 2
        found = np.interp(np.log(share) - middle, -log_slope, logit)
        too_much = special.expit(found).sum(axis=-1, keepdims=True) > 1
        low, high = np.where(too_much, middle, low), np.where(too_much, high, middle)
    return special.log_softmax(special.log_expit(found), axis=-1)
