"""Classification metrics as masked sums on the device, divided once on the host."""

from collections.abc import Mapping

import jax
import numpy as np

Sums = dict[str, jax.Array]


def class_sums(predicted: jax.Array, label: jax.Array, weight: jax.Array, num_classes: int) -> Sums:
    """What accuracy and F1 are made of; sums over parts of a split add up.

    Args:
      predicted: int [N].
      label: int [N].
      weight: float [N], 0 on rows that do not count.
      num_classes: K.

    Returns:
      `true_positives`, `predicted` and `actual`, each float32 [K].
    """

    def count(classes: jax.Array, weights: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(weights, classes, num_segments=num_classes)

    return {
        "true_positives": count(label, weight * (predicted == label)),
        "predicted": count(predicted, weight),
        "actual": count(label, weight),
    }


def classification(sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Accuracy and macro-F1 from sums [..., K]; leading axes are kept.

    Macro-F1 is the mean over all K classes, a class that is neither predicted nor there counting 0 (scikit-learn's
    `f1_score(average="macro", labels=range(K), zero_division=0)`). Both are NaN where nothing counts.
    """
    hits, predicted, actual = (np.asarray(sums[name], np.float64) for name in ("true_positives", "predicted", "actual"))
    total = actual.sum(axis=-1)
    f1 = 2 * hits / np.maximum(predicted + actual, 1e-12)
    with np.errstate(invalid="ignore"):
        accuracy = hits.sum(axis=-1) / total
    return {"accuracy": accuracy, "macro_f1": np.where(total > 0, f1.mean(axis=-1), np.nan)}
