"""What a model says of one example, with all that one needs to know to build on it."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from umemma_jax.patterns import pattern_name
from umemma_jax.predict import Predictions


@dataclasses.dataclass(frozen=True)
class Answer:
    """The answer to one row.

    Attributes:
      prediction: the class; of several labels all that the row has, as a tuple; None where the row has no input.
      probability: calibrated, of that class; of several labels, one for each of them.
      prediction_set: classes among which the true one is, as often as the calibration promises; () where it promises
        nothing for what the row has.
      used: modalities that the answer is made of.
      quality: how good the model was on examples with nothing but these, in the report's headline metric; None where
        there were none.
      abstain: whether the answer is less sure than the floor that was asked for, or there is none.
    """

    prediction: str | tuple[str, ...] | None
    probability: float | tuple[float, ...] | None
    prediction_set: tuple[str, ...]
    used: tuple[str, ...]
    quality: float | None
    abstain: bool


def answers(predictions: Predictions, quality: Mapping[str, float | None], floor: float = 0.0) -> list[Answer]:
    """One for each of the N examples.

    Args:
      predictions: of them.
      quality: of the model, by missing pattern.
      floor: on the probability of the prediction, from 0 to 1; of several labels, on that of the least sure decision
        about any class, whether the row has it or not.
    """
    return [_answer(predictions, number, quality, floor) for number in range(len(predictions.ids))]


def _answer(predictions: Predictions, number: int, quality: Mapping[str, float | None], floor: float) -> Answer:
    present = predictions.present[number]
    if not present.any():
        return Answer(None, None, (), (), None, abstain=True)
    used = tuple(m for m, there in zip(predictions.modalities, present, strict=True) if there)
    probabilities, chosen = predictions.probabilities[number], predictions.predicted[number]
    names, values = _of(predictions, chosen), tuple(float(p) for p in probabilities[chosen])
    sure = np.where(chosen, probabilities, 1 - probabilities).min() if predictions.multi_label else values[0]
    promised = () if predictions.sets is None else _of(predictions, predictions.sets[number])
    return Answer(
        names if predictions.multi_label else names[0],
        values if predictions.multi_label else values[0],
        promised,
        used,
        quality.get(pattern_name(present, predictions.modalities)),
        abstain=bool(sure < floor),
    )


def _of(predictions: Predictions, chosen: np.ndarray) -> tuple[str, ...]:
    """The classes, bool [K], by name."""
    return tuple(predictions.classes[k] for k in np.flatnonzero(chosen))
