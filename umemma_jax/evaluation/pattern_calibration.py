"""What validation examples say of a model's probabilities, for each missing pattern on its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from umemma_jax.evaluation import calibration, conformal
from umemma_jax.evaluation.split_logits import SplitLogits

FILE_NAME = "calibration.json"


@dataclass(frozen=True)
class PatternCalibration:
    """How the logits of each of P patterns become probabilities, classes and sets of classes.

    Attributes:
      names: of the patterns, in the order of `all_patterns`.
      temperatures: float [P], NaN where no validation example has all of the pattern.
      thresholds: on the calibrated probabilities of multi-label data, float [P, K], 0.5 where there is no such example;
        None of single-label data, and without validation.
      quantiles: of conformal sets, float [P], NaN likewise.
      alpha: share of the true classes that the sets may lack.
      examples: of the validation split; 0 where there is none.
    """

    names: tuple[str, ...]
    temperatures: np.ndarray
    thresholds: np.ndarray | None
    quantiles: np.ndarray
    alpha: float
    examples: int

    def scaled(self, logits: np.ndarray, left: np.ndarray) -> np.ndarray:
        """Logits [N, K] over the temperatures of the patterns that they are made of, int [N]; unchanged where none."""
        temperatures = self.temperatures[left]
        return logits / np.where(np.isnan(temperatures), 1, temperatures)[:, None]

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it; `from_dict` is the inverse."""

        def by_name(values: np.ndarray) -> dict[str, Any]:
            defined = np.isfinite(values.reshape(len(self.names), -1)).all(axis=1)
            rows = zip(self.names, values.tolist(), defined, strict=True)
            return {name: value if known else None for name, value, known in rows}

        thresholds = {} if self.thresholds is None else {"thresholds": by_name(self.thresholds)}
        found = {"temperatures": by_name(self.temperatures), **thresholds, "quantiles": by_name(self.quantiles)}
        return {"alpha": self.alpha, "examples": self.examples, **found}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "PatternCalibration":
        """Raises ValueError, KeyError or TypeError where the content is not as `to_dict` makes it."""
        names = tuple(content["temperatures"])
        thresholds = content.get("thresholds")
        return cls(
            names,
            np.array([content["temperatures"][name] for name in names], float),
            None if thresholds is None else np.array([thresholds[name] for name in names], float),
            np.array([content["quantiles"][name] for name in names], float),
            float(content["alpha"]),
            int(content["examples"]),
        )


def fit(validation: SplitLogits, alpha: float) -> PatternCalibration:
    """Fits each pattern on the labelled validation examples that have all of it."""
    labelled = validation.label.any(axis=1) if validation.multi_label else np.ones(len(validation.label), bool)
    fits = []
    for number, name in enumerate(validation.names):
        rows = labelled & (validation.left[number] == number)
        fits.append(_fit(validation.patterns[name][rows], validation.label[rows], alpha))
    temperatures, thresholds, quantiles = zip(*fits, strict=True)
    return PatternCalibration(
        tuple(validation.names),
        np.array(temperatures),
        np.array(thresholds) if validation.multi_label else None,
        np.array(quantiles),
        alpha,
        len(validation.label),
    )


def _fit(logits: np.ndarray, label: np.ndarray, alpha: float) -> tuple[float, np.ndarray | None, float]:
    """Temperature, thresholds and quantile of one pattern, from examples that have all of it."""
    temperature = calibration.temperature(logits, label, np.ones(len(label), bool))
    multi_label = label.ndim == 2
    if temperature is None:
        return np.nan, np.full(logits.shape[1], 0.5) if multi_label else None, np.nan
    scaled = logits / temperature
    thresholds = calibration.class_thresholds(scaled, label) if multi_label else None
    scores = conformal.scores(calibration.probabilities(scaled, multi_label), label)
    return temperature, thresholds, min(conformal.quantile(scores, alpha), 1.0)  # at 1 a set has every class


def unfitted(test: SplitLogits, alpha: float) -> PatternCalibration:
    """Where there is no validation: probabilities as the model gives them."""
    undefined = np.full(len(test.names), np.nan)
    return PatternCalibration(tuple(test.names), undefined, None, undefined, alpha, 0)
