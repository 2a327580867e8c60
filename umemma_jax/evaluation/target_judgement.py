"""What a model says of the targets of a split, and how good that is, under each missing pattern."""

import functools
from dataclasses import dataclass

import numpy as np

from umemma_jax import gaussian
from umemma_jax.data.targets import Target, scale, standardised
from umemma_jax.evaluation import regression, sigma_calibration
from umemma_jax.evaluation.sigma_calibration import SigmaCalibration
from umemma_jax.evaluation.split_logits import SplitLogits

Scores = dict[str, float]


@dataclass(frozen=True)
class TargetJudgement:
    """Predictions of N examples under each of P patterns, as `judgement.Judgement` has decisions.

    Attributes:
      label: float32 [N, T], in the units of the targets.
      counted: which examples have anything of each pattern, bool [P, N]; what is said of the others means nothing.
      decided: means, float32 [P, N, T], likewise.
      nll: of the calibrated beliefs about standardised targets in nats, mean over them, float64 [P, N].
    """

    label: np.ndarray
    counted: np.ndarray
    decided: np.ndarray
    nll: np.ndarray
    headline: str = regression.PRIMARY

    def chosen(self, choice: np.ndarray) -> np.ndarray:
        """The predictions under each example's own pattern, int [..., N]: [..., N, T]."""
        return self.decided[choice, np.arange(choice.shape[-1])]

    @functools.cached_property
    def scores(self) -> list[Scores]:
        """All metrics under each of the P patterns, over the examples that count."""
        return [self.scores_of(np.where(counted, p, -1)) for p, counted in enumerate(self.counted)]

    def scores_of(self, choice: np.ndarray) -> Scores:
        """All metrics where each example has the prediction under one pattern, int [N]; -1: it does not count."""
        rows = np.flatnonzero(choice >= 0)
        return regression.scores(self.decided[choice[rows], rows], self.label[rows])


def judge(split: SplitLogits, fitted: SigmaCalibration) -> TargetJudgement:
    """Judges a model on a split, by scales of standard deviations that were fitted on another one."""
    label, (centre, spread) = standardised(split.label, split.targets), scale(split.targets)
    decided, nll = [], []
    for p, name in enumerate(split.names):
        mean, variance = fitted.moments(split.patterns[name], split.left[p])
        decided.append((centre + spread * mean).astype(np.float32))
        nll.append(sigma_calibration.nll(mean, variance, label))
    return TargetJudgement(split.label, split.left >= 0, np.stack(decided), np.stack(nll))


def by_target(model: TargetJudgement, split: SplitLogits) -> dict[str, dict[str, Scores]]:
    """The metrics of each target under each pattern, where there are several; the key `targets` of report.json."""
    names = [target.name for target in split.targets]
    if len(names) == 1:
        return {}
    rows = zip(split.names, model.decided, model.counted, strict=True)
    return {
        pattern: regression.scores_by_target(decided[counted], model.label[counted], names)
        for pattern, decided, counted in rows
    }


def without(split: SplitLogits) -> tuple[np.ndarray, np.ndarray]:
    """What N(0, 1), the prior, says of all examples: the training mean, float32 [N, T], and its NLL, float64 [N]."""
    label = standardised(split.label, split.targets)
    mean = np.broadcast_to(np.float32(scale(split.targets)[0]), label.shape)
    return mean, sigma_calibration.nll(np.zeros_like(label), np.ones_like(label), label)


def half_range(split: SplitLogits) -> float:
    """Half of what the labels span, in standard deviations, of the target that spans most."""
    label = standardised(split.label, split.targets)
    return float(np.ptp(label, axis=0).max() / 2)


def scores_of_evidence(evidence: np.ndarray, label: np.ndarray, targets: tuple[Target, ...]) -> Scores:
    """All metrics of evidence [N, 2 T] about labels [N, T]."""
    centre, spread = scale(targets)
    mean, _ = gaussian.moments(np.asarray(evidence, np.float64))
    return regression.scores(centre + spread * mean, label)
