"""Probabilities and how far they can be believed: temperature, NLL, Brier score, calibration error, thresholds.

Single-label data have labels int [N], and their probabilities are a softmax. Multi-label data have labels bool
[N, K], and theirs are sigmoids: every class of every example is a binary decision of its own, and NLL, Brier score and
calibration error are means over these N K decisions.

Everything is computed from logits in float64, so that no probability is rounded to 0 or 1 before its logarithm is
taken. What is undefined, because there are no rows, is NaN.
"""

import numpy as np
import scipy  # whose parts are loaded, as they take long, when they are first used
from scipy import special

from umemma_jax.evaluation.ranking import ranked

BINS = 15  # Guo et al. 2017
TEMPERATURES = (0.05, 20.0)
THRESHOLDS = np.array(sorted(np.arange(1, 100) / 100, key=lambda threshold: abs(threshold - 0.5)))
COMMON_POSITIVES = 5  # how many positives of a class the common threshold weighs as much as


def probabilities(logits: np.ndarray, multi_label: bool, temperature: float = 1.0) -> np.ndarray:
    """Softmax, or sigmoids where multi-label, of logits [..., K] over the temperature; float64 [..., K]."""
    scaled = np.asarray(logits, np.float64) / temperature
    return special.expit(scaled) if multi_label else special.softmax(scaled, axis=-1)


def indicators(label: np.ndarray, num_classes: int) -> np.ndarray:
    """True at the true classes, bool [N, K], of labels int [N], or [N, K] as they are."""
    label = np.asarray(label)
    return label.astype(bool) if label.ndim == 2 else label[:, None] == np.arange(num_classes)


def temperature(logits: np.ndarray, label: np.ndarray, counted: np.ndarray) -> float | None:
    """The temperature that makes the labels most likely, given that log T is standard normal beforehand.

    Temperature scaling (Guo et al. 2017, section 4.2) has no such prior, and no answer where every row is right: the
    lower T, the better. Of a model that is 99 % right, 100 rows often all are. The prior is worth about one row: it
    leaves T near 1 where the rows do not tell, and hundreds of them outweigh it.

    Args:
      logits: [N, K].
      label: int [N], or bool [N, K].
      counted: bool [N].

    Returns:
      T, 0.05 to 20, that the logits are to be divided by; None where no row counts.
    """
    logits, label = np.asarray(logits, np.float64)[counted], np.asarray(label)[counted]
    if not len(logits):
        return None
    truth = indicators(label, logits.shape[1])

    def slope(log_temperature: float) -> float:
        """Of the negative log-posterior, by log T."""
        temperature = np.exp(log_temperature)
        excess = probabilities(logits, label.ndim == 2, temperature) - truth
        return log_temperature - np.sum(logits / temperature * excess)

    low, high = np.log(TEMPERATURES)
    if slope(low) >= 0:
        return TEMPERATURES[0]
    if slope(high) <= 0:
        return TEMPERATURES[1]
    return float(np.exp(scipy.optimize.brentq(slope, low, high)))


def nll(logits: np.ndarray, label: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Negative log-likelihood of each row in nats, float64 [N]; multi-label, the mean over its K decisions."""
    scaled, label = np.asarray(logits, np.float64) / temperature, np.asarray(label)
    if label.ndim == 2:
        return -special.log_expit(np.where(label, scaled, -scaled)).mean(axis=-1)
    return special.logsumexp(scaled, axis=-1) - scaled[np.arange(len(label)), label]


def scores(logits: np.ndarray, label: np.ndarray, temperature: float = 1.0) -> dict[str, float]:
    """How good the probabilities are, over all rows given.

    Args:
      logits: [N, K].
      label: int [N], or bool [N, K].
      temperature: the logits are divided by it.

    Returns:
      `nll` in nats; `brier`: squared distance to the indicators of the true classes, summed over the classes (Brier
      1950: from 0 to 2), multi-label: its mean over them; `ece`: expected calibration error over 15 bins of equal
      width (Guo et al. 2017); `ece_equal_mass`: over 15 bins of equally many decisions (Nixon et al. 2019).
    """
    label = np.asarray(label)
    confidence, right = _decisions(logits, label, temperature)
    if not len(confidence):
        return dict.fromkeys(("nll", "brier", "ece", "ece_equal_mass"), np.nan)
    return {
        "nll": float(nll(logits, label, temperature).mean()),
        "brier": _brier(probabilities(logits, label.ndim == 2, temperature), label),
        "ece": _equal_width_error(confidence, right),
        "ece_equal_mass": _equal_mass_error(confidence, right),
    }


def reliability(logits: np.ndarray, label: np.ndarray, temperature: float = 1.0) -> dict[str, np.ndarray]:
    """What a reliability diagram shows: 15 bins of equally many decisions, in order of confidence.

    Rows of equal confidence count with their mean, so that a bin may end between them and their order does not matter.
    Numbers of decisions differ by 1 at most; fewer than 15 have a bin each.

    Args:
      logits: [N, K].
      label: int [N], or bool [N, K].
      temperature: the logits are divided by it.

    Returns:
      `confidence` and `accuracy`, means by bin, float64, and `examples`, int, how many decisions a bin has. A
      single-label decision is an example, with the probability of the most probable class and whether that is the true
      one. A multi-label decision is a class of an example, with its probability and whether the example has it.
    """
    return _equal_mass_bins(*_decisions(logits, np.asarray(label), temperature))


def _decisions(logits: np.ndarray, label: np.ndarray, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Confidence, float64, and truth, bool, of each decision: N, or N K of multi-label data."""
    found = probabilities(logits, label.ndim == 2, temperature)
    if label.ndim == 2:
        return found.ravel(), label.astype(bool).ravel()
    return found.max(axis=-1), found.argmax(axis=-1) == label


def _brier(found: np.ndarray, label: np.ndarray) -> float:
    squared = (found - indicators(label, found.shape[1])) ** 2
    return float(squared.mean() if label.ndim == 2 else squared.sum(axis=-1).mean())


def _equal_width_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Bins ((b - 1) / 15, b / 15], the first one with 0."""
    bins = np.maximum(np.ceil(confidence * BINS).astype(int) - 1, 0)
    gaps = np.bincount(bins, weights=confidence - right, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def _equal_mass_error(confidence: np.ndarray, right: np.ndarray) -> float:
    bins = _equal_mass_bins(confidence, right)
    gaps = np.abs(bins["confidence"] - bins["accuracy"])
    return float(np.average(gaps, weights=bins["examples"]))


def _equal_mass_bins(confidence: np.ndarray, right: np.ndarray) -> dict[str, np.ndarray]:
    bins = zip(*(np.array_split(part, BINS) for part in ranked(confidence, right)), strict=True)
    bins = [(confidence, accuracy) for confidence, accuracy in bins if len(confidence)]
    return {
        "confidence": np.array([confidence.mean() for confidence, _ in bins]),
        "accuracy": np.array([accuracy.mean() for _, accuracy in bins]),
        "examples": np.array([len(confidence) for confidence, _ in bins], int),
    }


def class_thresholds(logits: np.ndarray, label: np.ndarray) -> np.ndarray:
    """For each class a threshold on its probability that has a high F1, on the rows given and on others.

    The threshold of the highest F1 of a rare class hangs on a few rows. So each is averaged, as a logit, with the one
    that has the highest macro-F1 for all classes: n rows that have the class weigh as n, the common threshold as 5.

    Args:
      logits: [N, K].
      label: bool [N, K].

    Returns:
      Thresholds, float64 [K]: a class is predicted where its probability is above. Where several are as good the one
      nearest 0.5 is taken; for a class that no row has, the common one.
    """
    found, label = probabilities(logits, multi_label=True), np.asarray(label, bool)
    positives = label.sum(axis=0)
    columns = list(zip(found.T, label.T, strict=True))
    own = special.logit([_best_threshold(*column) for column in columns])
    macro_f1 = sum(_f1(*column, THRESHOLDS) for column in columns)
    common = special.logit(THRESHOLDS[np.argmax(macro_f1)])
    return special.expit((positives * own + COMMON_POSITIVES * common) / (positives + COMMON_POSITIVES))


def _best_threshold(probability: np.ndarray, there: np.ndarray) -> float:
    """That of the highest F1 of one class, from float and bool [N].

    F1 changes only where the threshold passes a probability. So one threshold is tried between any two neighbours: 0.5
    where it lies there, else the middle.
    """
    edges = np.union1d(probability, [0, 1])
    low, high = edges[:-1], edges[1:]
    tried = np.where((low <= 0.5) & (high > 0.5), 0.5, (low + high) / 2)
    f1 = _f1(probability, there, tried)
    best = tried[f1 == f1.max()]
    return float(best[np.argmin(np.abs(best - 0.5))])


def _f1(probability: np.ndarray, there: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """F1 of one class, from float and bool [N], at each threshold; 0 where it is neither predicted nor there."""
    predicted, hits = (
        len(part) - np.searchsorted(np.sort(part), thresholds, side="right")
        for part in (probability, probability[there])
    )
    return 2 * hits / np.maximum(predicted + there.sum(), 1)
