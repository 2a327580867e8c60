"""What validation examples say of a model's probabilities, for each missing pattern on its own."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from umemma_jax import checksums
from umemma_jax.errors import UserError
from umemma_jax.evaluation import calibration, conformal, sigma_calibration
from umemma_jax.evaluation.sigma_calibration import SigmaCalibration
from umemma_jax.evaluation.split_logits import SplitLogits
from umemma_jax.patterns import pattern_names

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

    def probabilities(self, logits: np.ndarray, left: np.ndarray, multi_label: bool) -> np.ndarray:
        """Calibrated, float64 [N, K]; arguments as of `scaled`."""
        return calibration.probabilities(self.scaled(logits, left), multi_label)

    def sets(self, probabilities: np.ndarray, left: np.ndarray) -> np.ndarray:
        """Conformal sets of classes, bool [N, K]; empty where the pattern that is left, int [N], has no quantile."""
        return conformal.sets(probabilities, self.quantiles[left, None])

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "PatternCalibration":
        """From what `of_results` gives; raises KeyError, TypeError or ValueError of anything else."""
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


def of_results(results: Mapping[str, Any]) -> dict[str, Any]:
    """The calibration that stands in a report, as calibration.json holds it."""
    if "targets" in results:
        return sigma_calibration.of_results(results)
    fitted, sets = results["calibration"], results["conformal"]
    thresholds = {"thresholds": results["thresholds"]["patterns"]} if "thresholds" in results else {}
    return {
        "examples": fitted["examples"],
        "temperatures": {name: pattern["temperature"] for name, pattern in fitted["patterns"].items()},
        **thresholds,
        "alpha": sets["alpha"],
        "quantiles": {name: pattern["quantile"] for name, pattern in sets["patterns"].items()},
    }


def write(results: Mapping[str, Any], workdir: Path) -> None:
    """Writes calibration.json into the folder of a run, where its report has validation examples."""
    if "conformal" in results:
        checksums.write_sealed(workdir / FILE_NAME, of_results(results))


def read(workdir: Path, modalities: Sequence[str]) -> PatternCalibration | SigmaCalibration | None:
    """What `write` has written of a model of these modalities; None where there is no such file.

    Raises:
      UserError: the file is damaged, or of another model.
    """
    path = workdir / FILE_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        checksums.check_sealed(content, str(path))
        found = (SigmaCalibration if "scales" in content else PatternCalibration).from_dict(content)
        if list(found.names) != pattern_names(modalities):
            raise ValueError("it is of other patterns")
    except FileNotFoundError:
        return None
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}): evaluate the run again, or remove the file") from error
    return found


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


def unfitted(modalities: Sequence[str], alpha: float = 0.1) -> PatternCalibration:
    """Where there is no validation: probabilities as the model gives them."""
    names = tuple(pattern_names(modalities))
    undefined = np.full(len(names), np.nan)
    return PatternCalibration(names, undefined, None, undefined, alpha, 0)
