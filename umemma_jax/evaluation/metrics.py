"""Classification metrics of examples on the host, in NumPy.

Single-label data have labels int [N], and a prediction is a class. Multi-label data have labels bool [N, K], and a
prediction is bool [N, K]: the classes whose probability, the sigmoid of their logit, is above a threshold. A class that
is neither predicted nor there, and an example without any class, count 0 in means of F1, as with scikit-learn's
`zero_division=0`. Metrics are NaN where no example has a class.
"""

import math
from typing import Any

import numpy as np


def primary(multi_label: bool) -> str:
    """The metric that chooses the best epoch, and that figures and ceilings are of."""
    return "macro_f1" if multi_label else "accuracy"


def scores(predicted: np.ndarray, label: np.ndarray, num_classes: int) -> dict[str, float]:
    """All metrics that need no more than what is predicted.

    Args:
      predicted: int [N], or bool [N, K].
      label: of the same form.
      num_classes: K.

    Returns:
      Single-label: `accuracy`, `macro_f1`; multi-label: `macro_f1`, `micro_f1`, `weighted_f1`, `samples_f1`. Means are
      over all K classes.
    """
    hits, times_predicted, actual = class_counts(predicted, label, num_classes)
    if not actual.any():
        names = ("accuracy", "macro_f1") if label.ndim == 1 else ("macro_f1", "micro_f1", "weighted_f1", "samples_f1")
        return dict.fromkeys(names, math.nan)
    f1 = f1_scores(hits, times_predicted, actual)
    macro_f1 = float(f1.mean())
    if label.ndim == 1:
        return {"accuracy": float(hits.sum() / len(label)), "macro_f1": macro_f1}
    return {
        "macro_f1": macro_f1,
        "micro_f1": float(f1_scores(hits.sum(), times_predicted.sum(), actual.sum())),
        "weighted_f1": float((f1 * actual).sum() / actual.sum()),
        "samples_f1": float(_f1_of_each_example(predicted, label).mean()),
    }


def of_logits(logits: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """`scores` of the most probable classes, multi-label of those above probability 0.5, and then `mAP`.

    Args:
      logits: float [N, K].
      label: int [N]; multi-label [N, K] of zeros and ones.
    """
    if label.ndim == 1:
        return scores(logits.argmax(axis=1), label, logits.shape[1])
    label = label > 0
    return {**scores(logits > 0, label, logits.shape[1]), "mAP": mean_average_precision(logits, label)}


def class_counts(
    predicted: np.ndarray, label: np.ndarray, num_classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True positives, how often each class is predicted, and how often it is there; int [K] each."""
    if label.ndim == 1:
        found = label[predicted == label], predicted, label
        return tuple(np.bincount(classes, minlength=num_classes) for classes in found)
    return tuple(np.count_nonzero(classes, axis=0) for classes in (predicted & label, predicted, label))


def f1_scores(hits: np.ndarray, predicted: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """F1 of counts of any shape; 0 where nothing is predicted nor there."""
    return 2 * hits / np.maximum(predicted + actual, 1)


def _f1_of_each_example(predicted: np.ndarray, label: np.ndarray) -> np.ndarray:
    return f1_scores(*(np.count_nonzero(classes, axis=1) for classes in (predicted & label, predicted, label)))


def mean_average_precision(logits: np.ndarray, label: np.ndarray) -> float:
    """Mean of the average precisions of those classes that any example has.

    A class's average precision is the mean, over the examples that have it, of the precision at the threshold that just
    lets the example in: equal logits are let in together, as in scikit-learn's `average_precision_score`.

    Args:
      logits: float [N, K].
      label: bool [N, K].
    """
    there = label.any(axis=0)
    if not there.any():
        return math.nan
    order = np.argsort(-logits[:, there], axis=0, kind="stable")
    logits, label = (np.take_along_axis(x[:, there], order, axis=0) for x in (logits, label))
    number = np.arange(len(label))[:, None]
    is_last = np.append(logits[1:] != logits[:-1], np.ones((1, there.sum()), bool), axis=0)  # of those that are equal
    last = np.minimum.accumulate(np.where(is_last, number, len(label))[::-1])[::-1]
    precision = np.take_along_axis(label.cumsum(axis=0) / (number + 1), last, axis=0)
    return float(((precision * label).sum(axis=0) / label.sum(axis=0)).mean())


def undefined_as_none(tree: Any) -> Any:
    """Nested dicts and lists with None in place of NaN: of metrics over no examples, JSON has no other word."""
    if isinstance(tree, dict):
        return {name: undefined_as_none(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [undefined_as_none(value) for value in tree]
    return None if isinstance(tree, float) and math.isnan(tree) else tree
