"""How much each class weighs in the loss, where they do not all weigh the same."""

import difflib
from collections.abc import Mapping, Sequence

import numpy as np

from umemma_jax.errors import UserError


def balanced(labels: np.ndarray, num_classes: int, row_weights: np.ndarray | None = None) -> np.ndarray:
    """Weights by which all classes count the same; of a class that no example has, as if one had it.

    Args:
      labels: of the examples, int [N]; multi-label: zeros and ones, [N, K].
      num_classes: K.
      row_weights: of the examples, [N]; None for ones.

    Returns:
      float64 [K]: N / (K n) of a class with n examples (King and Zeng 2001; scikit-learn's `balanced`); multi-label, on
      its positives, (N - n) / n, as PyTorch's documentation has it of `pos_weight`.
    """
    row_weights = np.ones(len(labels)) if row_weights is None else row_weights
    total = row_weights.sum()
    if labels.ndim == 2:
        positive = row_weights @ labels
        return (total - positive) / np.maximum(positive, 1)
    return total / num_classes / np.maximum(np.bincount(labels, row_weights, num_classes), 1)


def named(weights: Mapping[str, float], classes: Sequence[str]) -> np.ndarray:
    """The weights of the K classes, float64 [K], 1 where none is given.

    Raises:
      UserError: a weight is of no class.
    """
    for name in weights:
        if name not in classes:
            near = difflib.get_close_matches(name, classes, n=1)
            hint = f"is {near[0]!r} meant?" if near else f"there are {', '.join(classes[:20])}"
            raise UserError(f"config.class_weights.{name}: no class of the dataset ({hint})")
    return np.array([weights.get(name, 1.0) for name in classes], float)
