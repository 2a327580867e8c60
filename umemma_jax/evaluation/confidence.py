"""How far the probabilities under each missing pattern can be believed: calibration, selective risk, conformal sets."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from umemma_jax.evaluation import calibration, conformal
from umemma_jax.evaluation.pattern_calibration import PatternCalibration
from umemma_jax.evaluation.selective import aurc
from umemma_jax.evaluation.split_logits import SplitLogits


def confidence(
    test: SplitLogits, fitted: PatternCalibration, others: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    """The keys `calibration` and, where there are validation examples, `conformal` of report.json.

    Args:
      test: the examples.
      fitted: on validation examples.
      others: temperatures of `ceilings` and `ensembles`, by name.
    """
    calibrated, sets = {}, {}
    for p, name in enumerate(test.names):
        rows = test.left[p] >= 0
        logits, label, left = test.patterns[name][rows], test.label[rows], test.left[p][rows]
        scaled = fitted.scaled(logits, left)
        calibrated[name] = _calibration(logits, scaled, label, fitted.temperatures[p])
        sets[name] = _sets(scaled, label, fitted.quantiles[left]) | {"quantile": float(fitted.quantiles[p])}
    found = {"calibration": {"examples": fitted.examples, "patterns": calibrated, **others}}
    return found | ({"conformal": {"alpha": fitted.alpha, "patterns": sets}} if fitted.examples else {})


def _calibration(logits: np.ndarray, scaled: np.ndarray, label: np.ndarray, temperature: float) -> dict[str, Any]:
    """Of one pattern, from its logits before and after the temperatures of what each example is left with."""
    is_fitted = not np.isnan(temperature)
    return {
        "temperature": float(temperature),
        "before": calibration.scores(logits, label),
        "after": calibration.scores(scaled, label) if is_fitted else None,
        "aurc": _selective_risk(scaled, label),
        "reliability_before": _reliability(logits, label),
        "reliability": _reliability(scaled, label),
    }


def _reliability(logits: np.ndarray, label: np.ndarray) -> dict[str, list]:
    return {name: values.tolist() for name, values in calibration.reliability(logits, label).items()}


def _selective_risk(logits: np.ndarray, label: np.ndarray) -> float:
    """AURC of the 0-1 loss; multi-label, of all decisions for and against a class at probability 0.5."""
    probabilities = calibration.probabilities(logits, label.ndim == 2)
    if label.ndim == 2:
        return aurc(np.maximum(probabilities, 1 - probabilities).ravel(), ((logits > 0) != label).ravel())
    return aurc(probabilities.max(axis=1), logits.argmax(axis=1) != label)


def _sets(logits: np.ndarray, label: np.ndarray, quantiles: np.ndarray) -> dict[str, float]:
    """Coverage and mean size, over the examples whose own pattern has a quantile, float [N]."""
    known = ~np.isnan(quantiles)
    probabilities = calibration.probabilities(logits[known], label.ndim == 2)
    coverage, size = conformal.coverage_and_size(probabilities, label[known], quantiles[known, None])
    return {"coverage": coverage, "size": size}
