"""Probabilities and how far they can be believed: temperature, NLL, Brier score, calibration error, thresholds.

Single-label data have labels int [N], and their probabilities are a softmax. Multi-label data have labels bool
[N, K], and theirs are sigmoids: every class of every example is a binary decision of its own, and NLL, Brier score and
calibration error are means over these N K decisions.

Everything is computed from logits in float64, so that no probability is rounded to 0 or 1 before its logarithm is
taken. What is undefined, because there are no rows, is NaN.
"""

import numpy as np
from scipy import optimize, special

from umemma_jax.evaluation.ranking import ranked

BINS = 15  # Guo et al. 2017
TEMPERATURES = (0.05, 20.0)


def probabilities(logits: np.ndarray, multi_label: bool, temperature: float = 1.0) -> np.ndarray:
    """Softmax, or sigmoids where multi-label, of logits [..., K] over the temperature; float64 [..., K]."""
    scaled = np.asarray(logits, np.float64) / temperature
    return special.expit(scaled) if multi_label else special.softmax(scaled, axis=-1)


def temperature(logits: np.ndarray, label: np.ndarray, counted: np.ndarray) -> float | None:
    """The temperature that the logits are divided by for the lowest NLL (Guo et al. 2017, section 4.2).

    NLL is convex in 1 / T, so that its slope has one root at most. Where it has none between the bounds 0.05 and 20,
    as where every row is right (the lower T, the better) or wrong, the bound that is nearer is the answer; where NLL
    does not depend on T at all, 1.

    Args:
      logits: [N, K].
      label: int [N], or bool [N, K].
      counted: bool [N].

    Returns:
      T, or None where no row counts.
    """
    logits, label = np.asarray(logits, np.float64)[counted], np.asarray(label)[counted]
    if not len(logits):
        return None
    low, high = -np.log(TEMPERATURES[1]), -np.log(TEMPERATURES[0])

    def slope(log_inverse: float) -> float:
        """Of NLL by 1 / T."""
        return _slope(logits, label, np.exp(log_inverse))

    if slope(low) == slope(high) == 0:
        return 1.0
    if slope(low) >= 0:
        return TEMPERATURES[1]
    if slope(high) <= 0:
        return TEMPERATURES[0]
    return float(np.exp(-optimize.brentq(slope, low, high, xtol=1e-10)))


def _slope(logits: np.ndarray, label: np.ndarray, scale: float) -> float:
    """The derivative of NLL by `scale` that the logits are multiplied with: expected less true logit."""
    expected = probabilities(logits, label.ndim == 2, 1 / scale)
    return float(np.sum(logits * (expected - _indicators(label, logits.shape[1]))))


def _indicators(label: np.ndarray, num_classes: int) -> np.ndarray:
    """1 at the true classes, 0 elsewhere, float64 [N, K]."""
    return np.asarray(label, np.float64) if label.ndim == 2 else np.eye(num_classes)[label]


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
    squared = (found - _indicators(label, found.shape[1])) ** 2
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
    confidence, accuracy = ranked(confidence, right)
    size = np.array([len(part) for part in np.array_split(confidence, BINS) if len(part)], int)
    start = np.cumsum(size) - size
    return {
        "confidence": np.add.reduceat(confidence, start) / size if len(size) else size,
        "accuracy": np.add.reduceat(accuracy, start) / size if len(size) else size,
        "examples": size,
    }


def class_thresholds(logits: np.ndarray, label: np.ndarray) -> np.ndarray:
    """For each class the threshold on its probability that has the highest F1 on the rows given.

    F1 changes only where the threshold passes a row's probability. Of the gaps between neighbouring probabilities with
    the highest F1 the one nearest 0.5 is taken: 0.5 where that lies in it, else its middle.

    Args:
      logits: [N, K].
      label: bool [N, K].

    Returns:
      Thresholds in [0, 1), float64 [K]: a class is predicted where its probability is above. 0.5 for a class that no
      row has.
    """
    found, label = probabilities(logits, multi_label=True), np.asarray(label, bool)
    columns = zip(found.T, label.T, strict=True)
    return np.array([_threshold(column, there) if there.any() else 0.5 for column, there in columns])


def _threshold(probability: np.ndarray, there: np.ndarray) -> float:
    """Of one class, [N] and bool [N]; a row has it."""
    order = np.argsort(probability)
    upper = probability[order]
    lower = np.concatenate([[0.0], upper[:-1]])
    predicted = np.arange(len(upper), 0, -1)  # a threshold in [lower, upper) predicts this row and all after it
    hits = np.cumsum(there[order][::-1])[::-1]
    f1 = np.where(lower < upper, 2 * hits / (predicted + there.sum()), 0)
    best = f1 == f1.max()
    middle = (lower[best] + upper[best]) / 2
    nearest = np.where((lower[best] <= 0.5) & (upper[best] > 0.5), 0.5, middle)
    return float(nearest[np.argmin(np.abs(nearest - 0.5))])
