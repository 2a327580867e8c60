"""The prior of the classes as uni-modal heads learn it: what an ensemble of them must count once, not once for each."""

import numpy as np


def log_prior(labels: np.ndarray, present: np.ndarray, num_classes: int, label_smoothing: float = 0.0) -> np.ndarray:
    """The mean over the heads of the log-prior that each has learned, from the training examples with its modality.

    Counts have one more example of each class (multi-label: one more with it and one without), so that a class that
    none has keeps a finite logit. Where modalities are absent at random, all heads have learned the same prior.

    Args:
      labels: of the training examples, int [N]; multi-label: float [N, K] of zeros and ones.
      present: what they have, bool [N, M].
      num_classes: K.
      label_smoothing: with which the heads were trained, single-label only: what they have learned is smoothed too.

    Returns:
      float32 [K]: log-probabilities; multi-label: logits.
    """
    multi_label = labels.ndim == 2
    one_hot = labels if multi_label else np.eye(num_classes)[labels]
    examples = present.sum(axis=0)[:, None]  # [M, 1]
    with_class = present.T.astype(float) @ one_hot + 1  # [M, K]
    if multi_label:
        logits = np.log(with_class) - np.log(examples + 2 - with_class)
    else:
        share = with_class / (examples + num_classes)
        logits = np.log((1 - label_smoothing) * share + label_smoothing / num_classes)
    return logits.mean(axis=0).astype(np.float32)
