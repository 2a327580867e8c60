"""What of a report depends on what is predicted: classes, or targets of regression."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from umemma_jax.evaluation import (
    calibration,
    confidence,
    information,
    metrics,
    pattern_calibration,
    regression,
    sigma_calibration,
    summaries,
    target_judgement,
)
from umemma_jax.evaluation.bootstrap import Resamples
from umemma_jax.evaluation.headline import Headline, headline_of
from umemma_jax.evaluation.judgement import Judgement, judge
from umemma_jax.evaluation.pattern_calibration import PatternCalibration
from umemma_jax.evaluation.sigma_calibration import SigmaCalibration
from umemma_jax.evaluation.split_logits import SplitLogits, find_prior

Results = dict[str, Any]
Calibration = PatternCalibration | SigmaCalibration


class Kind(Protocol):
    """What `robustness.report` asks; every method is about the split that the kind was made of."""

    metric: str

    def prior(self, given: np.ndarray | None, validation: SplitLogits | None) -> tuple[np.ndarray, str]:
        """What is said of an example without any modality, as logits, and where that comes from."""

    def fit(self, validation: SplitLogits | None, alpha: float) -> Calibration:
        """What validation examples say of how far the model can be believed."""

    def judge(self, split: SplitLogits, fitted: Calibration) -> Judgement:
        """How good each example's predictions are."""

    def headline(self, resamples: Resamples) -> Headline:
        """The metric that the report is about."""

    def confidence(self, fitted: Calibration, others: Mapping[str, Any]) -> Results:
        """The keys `calibration` and `conformal`."""

    def worst(self, model: Judgement) -> Results:
        """Keys on what is worst, of each pattern."""

    def harm(self, model: Judgement) -> Results:
        """Where more modalities do harm: keys of `robustness`."""

    def without(self, prior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Decisions of all examples without any modality, and their NLL."""

    def bounds(self, entropy: Mapping[str, float], complementary: Mapping[str, float]) -> Results:
        """What information bounds: keys of `information`."""


class OfClasses:
    """Accuracy, or macro-F1 of multi-label data."""

    def __init__(self, test: SplitLogits) -> None:
        self._test = test
        self.metric = metrics.primary(test.multi_label)

    def prior(self, given: np.ndarray | None, validation: SplitLogits | None) -> tuple[np.ndarray, str]:
        """As `Kind.prior`: the log-prior of the classes."""
        known = None if validation is None else validation.label
        return find_prior(given, known, self._test.label, len(self._test.classes))

    def fit(self, validation: SplitLogits | None, alpha: float) -> PatternCalibration:
        """As `Kind.fit`: temperatures, thresholds, quantiles of sets."""
        if validation is None:
            return pattern_calibration.unfitted(self._test.modalities, alpha)
        return pattern_calibration.fit(validation, alpha)

    def judge(self, split: SplitLogits, fitted: PatternCalibration) -> Judgement:
        """As `Kind.judge`."""
        return judge(split, fitted)

    def headline(self, resamples: Resamples) -> Headline:
        """As `Kind.headline`."""
        return headline_of(self._test.label, len(self._test.classes), resamples)

    def confidence(self, fitted: PatternCalibration, others: Mapping[str, Any]) -> Results:
        """As `Kind.confidence`."""
        return confidence.confidence(self._test, fitted, others)

    def worst(self, model: Judgement) -> Results:
        """As `Kind.worst`: the worst class."""
        return {"worst_class": summaries.worst_classes(model, self._test.names, self._test.classes)}

    def harm(self, model: Judgement) -> Results:
        """As `Kind.harm`."""
        return {"counter_intuitive": summaries.counter_intuitive(model, self._test)}

    def without(self, prior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `Kind.without`: the most frequent class, multi-label all that are there more often than not."""
        label = self._test.label
        decided = np.broadcast_to(prior > 0 if self._test.multi_label else prior.argmax(), label.shape)
        return decided, calibration.nll(np.broadcast_to(prior, (len(label), len(prior))), label)

    def bounds(self, entropy: Mapping[str, float], complementary: Mapping[str, float]) -> Results:
        """As `Kind.bounds`: the error of the best possible classifier."""
        return {
            "bayes_error_at_most": {
                name: float(information.bayes_error_at_most(value)) for name, value in entropy.items() if name
            }
        }


class OfTargets:
    """R2 of regression, the mean over targets."""

    metric = regression.PRIMARY

    def __init__(self, test: SplitLogits) -> None:
        self._test = test

    def prior(self, given: np.ndarray | None, validation: SplitLogits | None) -> tuple[np.ndarray, str]:
        """As `Kind.prior`: no evidence beyond N(0, 1) of the standardised targets."""
        return np.zeros(2 * len(self._test.targets), np.float32), "training examples"

    def fit(self, validation: SplitLogits | None, alpha: float) -> SigmaCalibration:
        """As `Kind.fit`: scales of standard deviations, quantiles of intervals."""
        if validation is None:
            return sigma_calibration.unfitted(self._test.modalities, self._test.targets, alpha)
        return sigma_calibration.fit(validation, alpha)

    def judge(self, split: SplitLogits, fitted: SigmaCalibration) -> target_judgement.TargetJudgement:
        """As `Kind.judge`."""
        return target_judgement.judge(split, fitted)

    def headline(self, resamples: Resamples) -> regression.R2:
        """As `Kind.headline`."""
        return headline_of(self._test.label, 0, resamples)

    def confidence(self, fitted: SigmaCalibration, others: Mapping[str, Any]) -> Results:
        """As `Kind.confidence`."""
        return sigma_calibration.report(self._test, fitted, others)

    def worst(self, model: target_judgement.TargetJudgement) -> Results:
        """As `Kind.worst`: every target's own metrics, where there are several."""
        targets = [vars(target) for target in self._test.targets]
        by_target = target_judgement.by_target(model, self._test)
        return {"targets": targets} | ({"by_target": by_target} if by_target else {})

    def harm(self, model: target_judgement.TargetJudgement) -> Results:
        """As `Kind.harm`: of numbers that are never just right, nothing."""
        return {}

    def without(self, prior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `Kind.without`: the mean of the training examples."""
        return target_judgement.without(self._test)

    def bounds(self, entropy: Mapping[str, float], complementary: Mapping[str, float]) -> Results:
        """As `Kind.bounds`: what the mean squared error of the best possible predictor grows by."""
        spread = target_judgement.half_range(self._test)
        return {
            "mse_gap_at_most": {
                name: float(information.squared_error_gap_at_most(value, spread))
                for name, value in complementary.items()
            }
        }


def kind_of(test: SplitLogits) -> Kind:
    """The kind of a split's labels."""
    return OfTargets(test) if test.targets else OfClasses(test)
