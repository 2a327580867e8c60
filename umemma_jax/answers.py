"""What a model says of one example, with all that one needs to know to build on it."""

import dataclasses
import math
from collections.abc import Mapping
from numbers import Real

import numpy as np

from umemma_jax.errors import UserError
from umemma_jax.patterns import pattern_name
from umemma_jax.predict import Predictions
from umemma_jax.target_predictions import TargetPredictions


@dataclasses.dataclass(frozen=True)
class Answer:
    """The answer to one row.

    Attributes:
      prediction: the class; of several labels all that the row has, as a tuple; of a target its value, of several a
        dict of them. None where the row has no input.
      probability: calibrated, of that class; of several labels, one for each of them; None of targets.
      prediction_set: classes among which the true one is, as often as the calibration promises; () where it promises
        nothing for what the row has.
      interval: of a target, both ends of where its value is, likewise; of several a dict of them. None of classes.
      used: modalities that the answer is made of.
      quality: how good the model was on examples with nothing but these, in the report's headline metric; None where
        there were none.
      abstain: whether the answer is less sure than the floor that was asked for, or there is none.
    """

    prediction: str | tuple[str, ...] | float | dict[str, float] | None
    probability: float | tuple[float, ...] | None
    prediction_set: tuple[str, ...]
    interval: tuple[float, float] | dict[str, tuple[float, float]] | None
    used: tuple[str, ...]
    quality: float | None
    abstain: bool


NOTHING = Answer(None, None, (), None, (), None, abstain=True)


def answers(
    predictions: Predictions | TargetPredictions, quality: Mapping[str, float | None], floor: float = 0.0
) -> list[Answer]:
    """One for each of the N examples.

    Args:
      predictions: of them.
      quality: of the model, by missing pattern.
      floor: on the probability of the prediction, from 0 to 1; of several labels, on that of the least sure decision
        about any class, whether the row has it or not.

    Raises:
      UserError: the floor is no number, or is one on the probability of targets.
    """
    if isinstance(floor, bool) or not isinstance(floor, Real) or math.isnan(floor):
        raise UserError(f"floor={floor!r}: is no number: give a probability from 0 to 1")
    of_targets = isinstance(predictions, TargetPredictions)
    if of_targets and floor:
        raise UserError(f"floor={floor}: is of a class's probability, and this model predicts numbers: leave it out")
    answer = _of_targets if of_targets else _of_classes
    found = []
    for number, present in enumerate(predictions.present):
        used = tuple(m for m, there in zip(predictions.modalities, present, strict=True) if there)
        good = quality.get(pattern_name(present, predictions.modalities))
        found.append(answer(predictions, number, used, good, floor) if used else NOTHING)
    return found


def _of_classes(
    predictions: Predictions, number: int, used: tuple[str, ...], quality: float | None, floor: float
) -> Answer:
    probabilities, chosen = predictions.probabilities[number], predictions.predicted[number]
    names, values = _names(predictions, chosen), tuple(probabilities[chosen].tolist())
    sure = np.where(chosen, probabilities, 1 - probabilities).min() if predictions.multi_label else values[0]
    promised = () if predictions.sets is None else _names(predictions, predictions.sets[number])
    if not predictions.multi_label:
        names, values = names[0], values[0]
    return Answer(names, values, promised, None, used, quality, abstain=bool(sure < floor))


def _names(predictions: Predictions, chosen: np.ndarray) -> tuple[str, ...]:
    """The classes, bool [K], by name."""
    return tuple(predictions.classes[k] for k in np.flatnonzero(chosen))


def _of_targets(
    predictions: TargetPredictions, number: int, used: tuple[str, ...], quality: float | None, floor: float
) -> Answer:
    values = dict(zip(predictions.targets, predictions.values[number].tolist(), strict=True))
    intervals = None
    if predictions.low is not None and not np.isnan(predictions.low[number]).any():
        ends = zip(predictions.low[number].tolist(), predictions.high[number].tolist(), strict=True)
        intervals = dict(zip(predictions.targets, ends, strict=True))
    if len(values) == 1:
        (values,), (intervals,) = values.values(), (intervals or {None: None}).values()
    return Answer(values, None, (), intervals, used, quality, abstain=False)
