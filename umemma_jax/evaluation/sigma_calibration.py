"""What validation examples say of a regression's standard deviations, for each missing pattern on its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from umemma_jax import gaussian
from umemma_jax.data.targets import Target, scale, standardised
from umemma_jax.evaluation.split_logits import SplitLogits
from umemma_jax.patterns import pattern_names

LEVELS = np.arange(1, 20) / 20  # of central intervals, in a reliability diagram


@dataclass(frozen=True)
class SigmaCalibration:
    """How Gaussian evidence under each of P patterns becomes means, standard deviations and intervals of T targets.

    Attributes:
      names: of the patterns, in the order of `all_patterns`.
      scales: factors on the standard deviations, float [P, T], NaN where no validation example has all of the pattern.
      quantiles: half the widths of conformal intervals in calibrated standard deviations, float [P, T]; NaN where there
        are too few such examples.
      alpha: share of the labels that the intervals may lack.
      examples: of the validation split; 0 where there is none.
    """

    names: tuple[str, ...]
    scales: np.ndarray
    quantiles: np.ndarray
    alpha: float
    examples: int

    def moments(self, evidence: np.ndarray, left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means and calibrated variances, float64 [N, T], of standardised targets.

        Args:
          evidence: [N, 2 T].
          left: which pattern each example's is made of, int [N]; variances of patterns without a scale stay.
        """
        mean, variance = gaussian.moments(np.asarray(evidence, np.float64))
        scales = self.scales[left]
        return mean, variance * np.where(np.isnan(scales), 1, scales) ** 2

    def intervals(self, evidence: np.ndarray, left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both ends of the conformal intervals of standardised targets, float64 [N, T]; NaN where there is none."""
        mean, variance = self.moments(evidence, left)
        reach = self.quantiles[left] * np.sqrt(variance)
        return mean - reach, mean + reach

    @property
    def temperatures(self) -> np.ndarray:
        """The mean of the scales of each pattern's targets, float [P]."""
        return self.scales.mean(axis=1)

    @property
    def thresholds(self) -> None:
        """There are none."""
        return None

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "SigmaCalibration":
        """From what `of_results` gives; raises KeyError, TypeError or ValueError of anything else."""
        names = tuple(content["scales"])
        scales, quantiles = (np.array([content[key][name] for name in names], float) for key in ("scales", "quantiles"))
        if scales.ndim != 2 or scales.shape != quantiles.shape:
            raise ValueError("scales and quantiles are not of the same targets")
        return cls(names, scales, quantiles, float(content["alpha"]), int(content["examples"]))


def of_results(results: Mapping[str, Any]) -> dict[str, Any]:
    """The calibration that stands in a report, as calibration.json holds it."""
    fitted, intervals = results["calibration"], results["conformal"]
    return {
        "examples": fitted["examples"],
        "scales": {name: pattern["scales"] for name, pattern in fitted["patterns"].items()},
        "alpha": intervals["alpha"],
        "quantiles": {name: pattern["quantiles"] for name, pattern in intervals["patterns"].items()},
    }


def fit(validation: SplitLogits, alpha: float) -> SigmaCalibration:
    """Fits each pattern on the validation examples that have all of it."""
    label = standardised(validation.label, validation.targets)
    fits = []
    for number, name in enumerate(validation.names):
        rows = validation.left[number] == number
        mean, variance = gaussian.moments(np.asarray(validation.patterns[name][rows], np.float64))
        errors = np.abs(label[rows] - mean) / np.sqrt(variance)
        scales = sigma_scales(errors)
        fits.append((scales, quantiles(errors / scales, alpha)))
    scales, found = (np.array(values) for values in zip(*fits, strict=True))
    return SigmaCalibration(tuple(validation.names), scales, found, alpha, len(label))


def unfitted(modalities: Sequence[str], targets: Sequence[Target], alpha: float = 0.1) -> SigmaCalibration:
    """Where there is no validation: standard deviations as the model gives them."""
    names = tuple(pattern_names(modalities))
    nothing = np.full((len(names), len(targets)), np.nan)
    return SigmaCalibration(names, nothing, nothing, alpha, 0)


def sigma_scales(errors: np.ndarray) -> np.ndarray:
    """The factors on the standard deviations that make the labels most likely, given one more row that is as expected.

    Args:
      errors: absolute errors over standard deviations, [N, T].

    Returns:
      float64 [T], NaN where N is 0.
    """
    if not len(errors):
        return np.full(errors.shape[1], np.nan)
    return np.sqrt((np.square(errors).sum(axis=0) + 1) / (len(errors) + 1))


def quantiles(errors: np.ndarray, alpha: float) -> np.ndarray:
    """Split conformal prediction with normalised residuals (Papadopoulos et al. 2008; Lei et al. 2018, section 5.2).

    The ceil((N + 1) (1 - alpha))-th lowest error of each target: an interval of so many standard deviations to both
    sides of the mean has a new example's label with probability 1 - alpha at least, whatever the model, and 1 - alpha +
    1 / (N + 1) at most where no errors are equal.

    Args:
      errors: absolute errors over standard deviations, [N, T].
      alpha: in (0, 1).

    Returns:
      float64 [T]; NaN where N < 1 / alpha - 1, since the interval would have no ends.
    """
    number = int(np.ceil((len(errors) + 1) * (1 - alpha) - 1e-9))
    if number > len(errors):
        return np.full(errors.shape[1], np.nan)
    return np.sort(errors, axis=0)[number - 1]


def nll(mean: np.ndarray, variance: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Negative log-density of standardised targets [N, T] in nats, mean over the targets, float64 [N]."""
    return (0.5 * (np.square(label - mean) / variance + np.log(2 * np.pi * variance))).mean(axis=-1)


def reliability(mean: np.ndarray, variance: np.ndarray, label: np.ndarray) -> dict[str, np.ndarray]:
    """How often the labels lie in central intervals of the belief, over all targets.

    Args:
      mean: [N, T].
      variance: likewise.
      label: standardised, likewise.

    Returns:
      `confidence`, the share that is meant to be inside, and `accuracy`, what is, float64 [19] each, and `examples`,
      how many decide; all empty without rows. They are named as those of classes, which diagrams show likewise.
    """
    reach = special.ndtri((1 + LEVELS) / 2)
    errors = (np.abs(label - mean) / np.sqrt(variance)).ravel()
    if not len(errors):
        return {"confidence": LEVELS[:0], "accuracy": LEVELS[:0], "examples": np.zeros(0, int)}
    inside = (errors[:, None] <= reach).mean(axis=0)
    return {"confidence": LEVELS, "accuracy": inside, "examples": np.full(len(LEVELS), len(label))}


def scores(mean: np.ndarray, variance: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """How good the beliefs are, over all rows given; arguments as of `reliability`.

    Returns:
      `nll` in nats; `calibration_error`, the mean distance between level and coverage of central intervals.
    """
    if not len(label):
        return {"nll": np.nan, "calibration_error": np.nan}
    found = reliability(mean, variance, label)
    return {
        "nll": float(nll(mean, variance, label).mean()),
        "calibration_error": float(np.abs(found["accuracy"] - found["confidence"]).mean()),
    }


def report(test: SplitLogits, fitted: SigmaCalibration, others: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """The keys `calibration` and, where there are validation examples, `conformal` of report.json.

    Args:
      test: the examples.
      fitted: on validation examples.
      others: scales of `ceilings` and `ensembles`, by name.
    """
    label, spread = standardised(test.label, test.targets), scale(test.targets)[1]
    calibrated, conformal = {}, {}
    for p, name in enumerate(test.names):
        rows = test.left[p] >= 0
        evidence, left = test.patterns[name][rows], test.left[p][rows]
        before = gaussian.moments(np.asarray(evidence, np.float64))
        after = fitted.moments(evidence, left)
        calibrated[name] = {
            "scale": float(fitted.temperatures[p]),
            "scales": fitted.scales[p].tolist(),
            "before": scores(*before, label[rows]),
            "after": None if np.isnan(fitted.scales[p]).all() else scores(*after, label[rows]),
            "reliability_before": _listed(reliability(*before, label[rows])),
            "reliability": _listed(reliability(*after, label[rows])),
        }
        intervals = fitted.intervals(evidence, left)
        conformal[name] = _conformal(*intervals, label[rows], spread) | {
            "quantile": float(fitted.quantiles[p].mean()),
            "quantiles": fitted.quantiles[p].tolist(),
        }
    found = {"calibration": {"examples": fitted.examples, "patterns": calibrated, **others}}
    return found | ({"conformal": {"alpha": fitted.alpha, "patterns": conformal}} if fitted.examples else {})


def _listed(bins: Mapping[str, np.ndarray]) -> dict[str, list]:
    return {key: values.tolist() for key, values in bins.items()}


def _conformal(low: np.ndarray, high: np.ndarray, label: np.ndarray, spread: np.ndarray) -> dict[str, Any]:
    """Coverage and mean width of the intervals there are, and of each target's; widths in the targets' units."""
    found = [_of_target(*columns) for columns in zip(low.T, high.T, label.T, spread, strict=True)]
    coverage, width = (np.array(values, float) for values in zip(*found, strict=True))
    return {
        "coverage": float(coverage.mean()),
        "width": float(width.mean()),
        "coverages": coverage.tolist(),
        "widths": width.tolist(),
    }


def _of_target(low: np.ndarray, high: np.ndarray, label: np.ndarray, spread: float) -> tuple[float, float]:
    known = ~np.isnan(low)
    if not known.any():
        return np.nan, np.nan
    inside = (low <= label) & (label <= high)
    return float(inside[known].mean()), float((high - low)[known].mean() * spread)
