"""What a model says of the targets of examples, each with whatever modalities it has."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from umemma_jax.data.targets import Target, scale
from umemma_jax.evaluation.sigma_calibration import SigmaCalibration, unfitted
from umemma_jax.patterns import pattern_numbers


@dataclasses.dataclass(frozen=True)
class TargetPredictions:
    """What a model says of the T targets of N examples, in their order and in the targets' units.

    Attributes:
      ids: of the examples.
      modalities: M names.
      present: what each example has of them, bool [N, M].
      targets: T names.
      values: float32 [N, T]; NaN for an example that has no modality.
      sigmas: standard deviations, likewise. Calibrated, where the run is.
      low: lower ends of conformal intervals, likewise, NaN where none can be promised; None without calibration.
      high: upper ends, likewise.
      notes: what of the dataset is not as in the training, a line each.
    """

    ids: list[str]
    modalities: tuple[str, ...]
    present: np.ndarray
    targets: tuple[str, ...]
    values: np.ndarray
    sigmas: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    @property
    def header(self) -> list[str]:
        """Of `cells`."""
        names = ["prediction"] if len(self.targets) == 1 else list(self.targets)
        ends = ("sigma", "low", "high") if self.low is not None else ("sigma",)
        if len(self.targets) == 1:
            return [*names, *ends]
        return [column for name in names for column in (name, *(f"{name} {end}" for end in ends))]

    def cells(self, number: int) -> list[str]:
        """What is said of one example: of each target its value, standard deviation and interval, empty where none."""
        parts = [self.values, self.sigmas, *([] if self.low is None else [self.low, self.high])]
        return [_number(part[number, t]) for t in range(len(self.targets)) for part in parts]

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it, under the names of the attributes."""
        names = ["ids", "modalities", "present", "targets", "values", "sigmas"]
        if self.low is not None:
            names += ["low", "high"]
        return {name: np.asarray(getattr(self, name)) for name in names}


def from_evidence(
    ids: Sequence[str],
    modalities: tuple[str, ...],
    present: np.ndarray,
    evidence: np.ndarray,
    targets: Sequence[Target],
    calibration: SigmaCalibration | None,
    notes: tuple[str, ...] = (),
) -> TargetPredictions:
    """Predictions from what a model says of N examples.

    Args:
      ids: of the examples.
      modalities: M names.
      present: bool [N, M].
      evidence: float [N, 2 T], anything where an example has no modality.
      targets: of the dataset of the training.
      calibration: of the run, or None.
      notes: as `TargetPredictions` has them.
    """
    found, left = calibration or unfitted(modalities, targets), pattern_numbers(present)
    centre, spread = scale(targets)

    def in_units(standard: np.ndarray, centre: np.ndarray | float = centre) -> np.ndarray:
        return np.where((left >= 0)[:, None], centre + spread * standard, np.nan).astype(np.float32)

    mean, variance = found.moments(evidence, left)
    low, high = (None, None) if calibration is None else map(in_units, found.intervals(evidence, left))
    names = tuple(target.name for target in targets)
    sigmas = in_units(np.sqrt(variance), centre=0.0)
    return TargetPredictions(list(ids), modalities, present, names, in_units(mean), sigmas, low, high, notes)


def _number(value: np.floating) -> str:
    return "" if np.isnan(value) else f"{value:.6g}"
