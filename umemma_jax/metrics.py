"""Classification metrics as masked sums on the device, divided once on the host.

Single-label data have labels int [N], and a prediction is a class. Multi-label data have labels float [N, K] of zeros
and ones, and a prediction is bool [N, K]: the classes whose probability, the sigmoid of their logit, is above a
threshold. A class that is neither predicted nor there, and a row without any class, count 0 in means of F1, as with
scikit-learn's `zero_division=0`.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

Sums = dict[str, jax.Array]

TUNED = "tuned_"  # begins the name of a metric that is not at threshold 0.5
THRESHOLDS = np.array(sorted(np.arange(1, 100) / 100, key=lambda threshold: abs(threshold - 0.5)))


def primary(multi_label: bool) -> str:
    """The metric that chooses the best epoch, and that figures and ceilings are of."""
    return "macro_f1" if multi_label else "accuracy"


def logit(probability: np.ndarray) -> np.ndarray:
    """The logit of a probability in (0, 1), float32."""
    return np.log(probability / (1 - probability)).astype(np.float32)


def class_sums(predicted: jax.Array, label: jax.Array, weight: jax.Array, num_classes: int) -> Sums:
    """What accuracy and F1 are made of; sums over parts of a split add up.

    Args:
      predicted: int [N], or bool [N, K].
      label: int [N], or float [N, K].
      weight: float [N], 0 on rows that do not count.
      num_classes: K.

    Returns:
      `true_positives`, `predicted` and `actual`, each float32 [K]; of multi-label data also `row_f1`, the sum of the
      rows' own F1, and `rows`, float32 scalars.
    """
    if label.ndim == 2:
        return _multi_label_sums(predicted, label, weight)

    def count(classes: jax.Array, weights: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(weights, classes, num_segments=num_classes)

    return {
        "true_positives": count(label, weight * (predicted == label)),
        "predicted": count(predicted, weight),
        "actual": count(label, weight),
    }


def _multi_label_sums(predicted: jax.Array, label: jax.Array, weight: jax.Array) -> Sums:
    hits = predicted * label
    row_f1 = 2 * hits.sum(axis=-1) / jnp.maximum(predicted.sum(axis=-1) + label.sum(axis=-1), 1)
    counted = weight[:, None]
    return {
        "true_positives": (counted * hits).sum(axis=0),
        "predicted": (counted * predicted).sum(axis=0),
        "actual": (counted * label).sum(axis=0),
        "row_f1": (weight * row_f1).sum(),
        "rows": weight.sum(),
    }


def scores(sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Metrics from the sums of `class_sums`, [..., K] and [...]; leading axes are kept.

    Returns:
      Single-label: `accuracy`, `macro_f1`; multi-label: `macro_f1`, `micro_f1`, `weighted_f1`, `samples_f1`. Means are
      over all K classes. All are NaN where no row counts.
    """
    sums = {name: np.asarray(values, np.float64) for name, values in sums.items()}
    hits, predicted, actual = sums["true_positives"], sums["predicted"], sums["actual"]
    multi_label = "rows" in sums
    rows = sums["rows"] if multi_label else actual.sum(axis=-1)
    f1 = _ratio(2 * hits, predicted + actual)
    macro_f1 = f1.mean(axis=-1)
    if multi_label:
        found = {
            "macro_f1": macro_f1,
            "micro_f1": _ratio(2 * hits.sum(axis=-1), (predicted + actual).sum(axis=-1)),
            "weighted_f1": _ratio((f1 * actual).sum(axis=-1), actual.sum(axis=-1)),
            "samples_f1": _ratio(sums["row_f1"], rows),
        }
    else:
        found = {"accuracy": _ratio(hits.sum(axis=-1), rows), "macro_f1": macro_f1}
    return {name: np.where(rows > 0, values, np.nan) for name, values in found.items()}


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """0 where nothing is divided by nothing."""
    return numerator / np.maximum(denominator, 1e-12)


def mean_average_precision(logits: jax.Array, label: jax.Array, weight: jax.Array) -> jax.Array:
    """Mean of the average precisions of those classes that any row which counts has, float32 scalar.

    A class's average precision is the mean, over the rows that have it, of the precision at the threshold that just
    lets the row in: equal logits are let in together, as in scikit-learn's `average_precision_score`.

    Args:
      logits: [N, K].
      label: float [N, K] of zeros and ones.
      weight: float [N], 0 on rows that do not count, 1 on all others.
    """
    counted = weight > 0

    def one_class(logits: jax.Array, positive: jax.Array) -> tuple[jax.Array, jax.Array]:
        hits = _at_least(jnp.where(positive, logits, -jnp.inf), logits)
        taken = _at_least(jnp.where(counted, logits, -jnp.inf), logits)
        count = positive.sum()
        return jnp.where(positive, hits / jnp.maximum(taken, 1), 0).sum() / jnp.maximum(count, 1), count > 0

    precision, there = jax.vmap(one_class, in_axes=1)(logits, (label > 0) & counted[:, None])
    return precision.sum() / there.sum()


def _at_least(values: jax.Array, bounds: jax.Array) -> jax.Array:
    """How many of `values` [N] are as large as each of `bounds` [N], int [N]."""
    return len(values) - jnp.searchsorted(jnp.sort(values), bounds, side="left")
