"""What a model decides about the examples of a split, and how good that is, under each missing pattern."""

import functools
from dataclasses import dataclass

import numpy as np
from scipy import special

from umemma_jax.evaluation import calibration, metrics
from umemma_jax.evaluation.names import TUNED
from umemma_jax.evaluation.pattern_calibration import PatternCalibration
from umemma_jax.evaluation.split_logits import SplitLogits

Scores = dict[str, float]
Decisions = tuple[np.ndarray, np.ndarray | None, np.ndarray, float | None]  # predicted, tuned, nll, precision


@dataclass(frozen=True)
class Judgement:
    """Decisions about N examples under each of P patterns, from which any choice of a pattern per example is judged.

    Attributes:
      label: int [N], or bool [N, K].
      num_classes: K.
      counted: which examples have anything of each pattern, bool [P, N]; what the others are said to be means nothing.
      predicted: classes, int [P, N]; multi-label, those of probability above 0.5, bool [P, N, K].
      tuned: those above the thresholds of what each example is left with, bool [P, N, K]; None where there are none.
      nll: of the calibrated probabilities in nats, float64 [P, N].
      precision: multi-label mAP of each pattern, float [P]; None of single-label data.
    """

    label: np.ndarray
    num_classes: int
    counted: np.ndarray
    predicted: np.ndarray
    tuned: np.ndarray | None
    nll: np.ndarray
    precision: np.ndarray | None

    @property
    def headline(self) -> str:
        """The name of the metric that the report is about."""
        metric = metrics.primary(self.label.ndim == 2)
        return metric if self.tuned is None else TUNED + metric

    @property
    def decided(self) -> np.ndarray:
        """The decisions that the headline is of, [P, N] or [P, N, K]."""
        return self.predicted if self.tuned is None else self.tuned

    def chosen(self, choice: np.ndarray) -> np.ndarray:
        """The decisions under each example's own pattern, int [..., N]: [..., N], or [..., N, K]."""
        return self.decided[choice, np.arange(choice.shape[-1])]

    @functools.cached_property
    def scores(self) -> list[Scores]:
        """All metrics under each of the P patterns, over the examples that count, with `mAP` of multi-label data."""
        found = [self.scores_of(np.where(counted, p, -1)) for p, counted in enumerate(self.counted)]
        if self.precision is None:
            return found
        return [{**scores, "mAP": precision} for scores, precision in zip(found, self.precision.tolist(), strict=True)]

    def scores_of(self, choice: np.ndarray) -> Scores:
        """All metrics but mAP where each example has the prediction under one pattern, int [N]; -1: it does not count.

        Names that begin with `names.TUNED` are at tuned thresholds.
        """
        rows = np.flatnonzero(choice >= 0)
        chosen, label = (choice[rows], rows), self.label[rows]
        found = metrics.scores(self.predicted[chosen], label, self.num_classes)
        if self.tuned is None:
            return found
        tuned = metrics.scores(self.tuned[chosen], label, self.num_classes)
        return found | {TUNED + name: value for name, value in tuned.items()}


def judge(split: SplitLogits, fitted: PatternCalibration) -> Judgement:
    """Judges a model on a split, by temperatures and thresholds that were fitted on another one."""
    decide = _decide_multi_label if split.multi_label else _decide
    decisions = [decide(split.patterns[name], split.label, split.left[p], fitted) for p, name in enumerate(split.names)]
    predicted, tuned, nll, precision = (list(values) for values in zip(*decisions, strict=True))
    return Judgement(
        split.label,
        len(split.classes),
        split.left >= 0,
        np.stack(predicted),
        None if tuned[0] is None else np.stack(tuned),
        np.stack(nll),
        np.array(precision) if split.multi_label else None,
    )


def _decide(logits: np.ndarray, label: np.ndarray, left: np.ndarray, fitted: PatternCalibration) -> Decisions:
    """What one pattern's row of a `Judgement` holds, from its logits [N, K]."""
    nll = calibration.nll(fitted.scaled(logits, left), label)
    return logits.argmax(axis=1), None, nll, None


def _decide_multi_label(
    logits: np.ndarray, label: np.ndarray, left: np.ndarray, fitted: PatternCalibration
) -> Decisions:
    scaled, counted = fitted.scaled(logits, left), left >= 0
    tuned = None if fitted.thresholds is None else scaled > special.logit(fitted.thresholds)[left]
    precision = metrics.mean_average_precision(logits[counted], label[counted])
    return logits > 0, tuned, calibration.nll(scaled, label), precision
