"""Classification metrics as counts on the device, divided once on the host.

Single-label data have labels int [N], and a prediction is a class. Multi-label data have labels float [N, K] of zeros
and ones, and a prediction is bool [N, K]: the classes whose probability, the sigmoid of their logit, is above a
threshold. A class that is neither predicted nor there, and a row without any class, count 0 in means of F1, as with
scikit-learn's `zero_division=0`.

Counts are int32, which float32 is not exact enough for from 2^24 rows on. Whatever order or number of devices the rows
come in, the metrics are the same to the bit.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Sums = dict[str, jax.Array]


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
      weight: float [N], 1 on rows that count and 0 on the others.
      num_classes: K.

    Returns:
      Counts, int32: `true_positives`, `predicted` and `actual`, each [K], and `rows`, []; of multi-label data also
      `row_hits` [2K + 1], the true positives of all rows whose predicted and actual classes together are 0, 1, ..., 2K.
    """
    counted = weight > 0
    if label.ndim == 2:
        return _multi_label_sums(predicted, label > 0, counted)
    return {
        "true_positives": _sum_by(label, counted & (predicted == label), num_classes),
        "predicted": _sum_by(predicted, counted, num_classes),
        "actual": _sum_by(label, counted, num_classes),
        "rows": jnp.sum(counted, dtype=jnp.int32),
    }


def _multi_label_sums(predicted: jax.Array, label: jax.Array, counted: jax.Array) -> Sums:
    predicted, label = predicted & counted[:, None], label & counted[:, None]
    hits = predicted & label
    size = jnp.sum(predicted, axis=-1, dtype=jnp.int32) + jnp.sum(label, axis=-1, dtype=jnp.int32)
    return {
        "true_positives": jnp.sum(hits, axis=0, dtype=jnp.int32),
        "predicted": jnp.sum(predicted, axis=0, dtype=jnp.int32),
        "actual": jnp.sum(label, axis=0, dtype=jnp.int32),
        "rows": jnp.sum(counted, dtype=jnp.int32),
        "row_hits": _sum_by(size, hits.sum(axis=-1), 2 * label.shape[1] + 1),
    }


def _sum_by(group: jax.Array, values: jax.Array, groups: int) -> jax.Array:
    """Sums of bool or int values [N] by group, int [N]; int32 [groups]."""
    return jax.ops.segment_sum(jnp.asarray(values, jnp.int32), group, num_segments=groups)


def scores(sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Metrics from the sums of `class_sums`, [..., K] and [...]; leading axes are kept.

    Returns:
      Single-label: `accuracy`, `macro_f1`; multi-label: `macro_f1`, `micro_f1`, `weighted_f1`, `samples_f1`. Means are
      over all K classes. All are NaN where no row that counts has a class.
    """
    sums = {name: np.asarray(values, np.float64) for name, values in sums.items()}
    hits, predicted, actual, rows = (sums[name] for name in ("true_positives", "predicted", "actual", "rows"))
    f1 = _ratio(2 * hits, predicted + actual)
    macro_f1 = f1.mean(axis=-1)
    if "row_hits" in sums:
        row_f1 = _ratio(2 * sums["row_hits"], np.arange(sums["row_hits"].shape[-1]))
        found = {
            "macro_f1": macro_f1,
            "micro_f1": _ratio(2 * hits.sum(axis=-1), (predicted + actual).sum(axis=-1)),
            "weighted_f1": _ratio((f1 * actual).sum(axis=-1), actual.sum(axis=-1)),
            "samples_f1": _ratio(row_f1.sum(axis=-1), rows),
        }
    else:
        found = {"accuracy": _ratio(hits.sum(axis=-1), rows), "macro_f1": macro_f1}
    return {name: np.where(actual.any(axis=-1), values, np.nan) for name, values in found.items()}


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """0 where nothing is divided by nothing."""
    return numerator / np.maximum(denominator, 1e-12)


def undefined_as_none(tree: Any) -> Any:
    """Nested dicts and lists with None in place of NaN: of metrics over no examples, JSON has no other word."""
    if isinstance(tree, dict):
        return {name: undefined_as_none(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [undefined_as_none(value) for value in tree]
    return None if isinstance(tree, float) and math.isnan(tree) else tree


def mean_average_precision(logits: jax.Array, label: jax.Array, weight: jax.Array) -> jax.Array:
    """Mean of the average precisions of those classes that any row which counts has, float32 scalar; NaN without any.

    A class's average precision is the mean, over the rows that have it, of the precision at the threshold that just
    lets the row in: equal logits are let in together, as in scikit-learn's `average_precision_score`.

    Args:
      logits: [N, K].
      label: float [N, K] of zeros and ones.
      weight: float [N], 1 on rows that count and 0 on the others.
    """
    counted = (weight > 0)[:, None]
    marks = jnp.where(counted, 1 + (label > 0), 0)
    precision, there = jax.vmap(_average_precision)(jnp.where(counted, -logits, jnp.inf).T, marks.T)
    return _pairwise_sum(jnp.where(there, precision, 0)) / there.sum()


def _average_precision(descending: jax.Array, marks: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of one class's negated logits [N], and whether any row has the class.

    Rows are marked 2 where they have it, 1 where they have not, 0 where they do not count.
    """
    descending, marks = jax.lax.sort((descending, marks), num_keys=2)
    positive = marks == 2
    last = jnp.append(descending[1:] != descending[:-1], True)  # of those that are equal

    def let_in(mark: int) -> jax.Array:
        """How many rows of this mark, or a higher one, each row's own threshold lets in."""
        count = jnp.cumsum(marks >= mark)
        return jax.lax.cummin(jnp.where(last, count, len(marks)), reverse=True)

    precision = jnp.where(positive, let_in(2) / jnp.maximum(let_in(1), 1), 0)
    return _pairwise_sum(precision) / jnp.maximum(positive.sum(), 1), positive.any()


def _pairwise_sum(x: jax.Array) -> jax.Array:
    """Sum of float [N] in an order that no compiler, and no number of devices, changes."""
    while len(x) > 1:
        x = jnp.pad(x, (0, len(x) % 2))
        x = x[: len(x) // 2] + x[len(x) // 2 :]
    return x[0]
