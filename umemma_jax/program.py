"""The whole model as one function of arrays alone: from raw inputs and a presence mask to calibrated answers.

It is one for all missing patterns: each encoder stands in a conditional of its own, on whether any row of the batch has
its modality. One program a pattern is no faster, and there are 2^M - 1 of them to keep and to compile; one a modality
and one for the head hands features from call to call, which costs 0.03 to 0.2 ms each time. With conditionals a number
of rows is compiled once, whatever is missing (docs/export.md has the figures).

Weights are arguments, so that they need not be in the program.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

from umemma_jax import gaussian
from umemma_jax.data.targets import scale
from umemma_jax.evaluation.sigma_calibration import SigmaCalibration
from umemma_jax.patterns import pattern_numbers
from umemma_jax.saved_model import SavedModel
from umemma_jax.serving.inputs import VALUES
from umemma_jax.task import Task, task_of

PyTree = Any
Arrays = dict[str, jax.Array]
STAND_INS, CALIBRATION = "stand_ins", "calibration"  # groups of weights, beside the variables' collections


def weights(model: SavedModel, stand_ins: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """All that the program takes besides inputs and mask, by name.

    Args:
      model: as it was saved.
      stand_ins: features for what is absent, [1, D_m] by modality.
    """
    groups = {**model.variables, STAND_INS: stand_ins, CALIBRATION: _calibration(model)}
    return {name: np.asarray(x) for name, x in flax.traverse_util.flatten_dict(groups, sep="/").items()}


def named(raw: PyTree) -> dict[str, Any]:
    """A raw input of the pipeline as arrays by name."""
    return dict(raw) if isinstance(raw, Mapping) else {VALUES: raw}


def of(model: SavedModel) -> Callable[[Mapping[str, Any], Mapping[str, Any], jax.Array], Arrays]:
    """The model as a function of weights, inputs as `named` gives them, by modality, and presence mask, bool [B, M].

    Of classes it gives `logits` and calibrated `probabilities`, float32 [B, K], which classes are `predicted`, bool
    [B, K], and conformal `sets` of them, likewise, where there is a calibration. Of targets it gives `values` and
    `sigmas`, float32 [B, T], in the targets' units, and `low` and `high`, the ends of conformal intervals, where there
    is a calibration. What a row without any input is said to be is NaN and False.
    """
    module, say = (
        model.module,
        functools.partial(_of_targets if model.info.targets else _of_classes, task_of(model.info)),
    )
    number = _number_of_bits(len(module.towers))

    def features(variables: PyTree, index: int, raw: PyTree, present: jax.Array) -> jax.Array:
        tower = module.towers[index]
        alone = module.clone(towers=(tower,))
        found, _ = alone.apply(variables, {tower.name: raw}, present, method="encode")
        return found[tower.name]

    def answer(weights: Mapping[str, Any], inputs: Mapping[str, Any], present: jax.Array) -> Arrays:
        variables = flax.traverse_util.unflatten_dict(dict(weights), sep="/")
        stand_ins, fitted = variables.pop(STAND_INS), variables.pop(CALIBRATION, {})
        found = {}
        for index, tower in enumerate(module.towers):
            arrays = inputs[tower.name]
            given = arrays.get(VALUES, arrays), present[:, index, None]
            encode = functools.partial(features, variables, index)
            found[tower.name] = jax.lax.cond(given[1].any(), encode, _zeros_like(encode, *given), *given)
        _, logits = module.apply(variables, found, stand_ins, present, method="fuse")
        bits = jnp.where(present, 1 << np.arange(present.shape[1], dtype=np.int32)[None], 0)
        pattern = jnp.asarray(number)[bits.sum(axis=1)]
        said = say(logits.astype(jnp.float32), {name: x[pattern] for name, x in fitted.items()})
        there = present.any(axis=1, keepdims=True)
        return {name: x & there if x.dtype == bool else jnp.where(there, x, jnp.nan) for name, x in said.items()}

    return answer


def _zeros_like(function: Callable[..., jax.Array], *given: Any) -> Callable[..., jax.Array]:
    """A function that gives zeros where the other gives something."""
    like = jax.eval_shape(function, *given)
    return lambda *_: jnp.zeros(like.shape, like.dtype)


def _number_of_bits(modalities: int) -> np.ndarray:
    """By the number in which modality m is bit m that of the pattern, as `pattern_numbers`; 0 for none."""
    codes = np.arange(1 << modalities)[:, None]
    return np.maximum(pattern_numbers((codes >> np.arange(modalities)) % 2 == 1), 0)


# --- calibration ------------------------------------------------------------------------------------------------------


def _calibration(model: SavedModel) -> dict[str, np.ndarray]:
    """What was fitted, by pattern: float32 [P, ...] each, what leaves things as they are where nothing was."""
    fitted = model.calibration
    if fitted is None:
        return {}
    if isinstance(fitted, SigmaCalibration):
        found = {"scales": _known(fitted.scales, 1), "quantiles": fitted.quantiles}
    else:
        # Sets are {k: 1 - p_k <= q}; where there is no q none is in it.
        found = {"temperatures": _known(fitted.temperatures, 1)[:, None], "least": 1 - fitted.quantiles[:, None]}
        if fitted.thresholds is not None:
            found["thresholds"] = fitted.thresholds
    return {name: x.astype(np.float32) for name, x in found.items()}


def _known(values: np.ndarray, otherwise: float) -> np.ndarray:
    return np.where(np.isnan(values), otherwise, values)


def _of_classes(task: Task, logits: jax.Array, fitted: Mapping[str, jax.Array]) -> Arrays:
    """As `PatternCalibration` in float64; `fitted` is what each row's pattern has, [B, ...]."""
    temperatures = fitted.get("temperatures", 1.0)
    if task.multi_label:
        probabilities = jax.nn.sigmoid(logits / temperatures)
        predicted = probabilities > fitted.get("thresholds", 0.5)
    else:
        # The largest is subtracted before the division, which keeps what is near it exact.
        probabilities = jax.nn.softmax((logits - logits.max(axis=1, keepdims=True)) / temperatures)
        predicted = jax.nn.one_hot(probabilities.argmax(axis=1), logits.shape[1], dtype=bool)
    said = {"logits": logits, "probabilities": probabilities, "predicted": predicted}
    return {**said, "sets": probabilities >= fitted["least"]} if fitted else said


def _of_targets(task: Task, evidence: jax.Array, fitted: Mapping[str, jax.Array]) -> Arrays:
    """As `SigmaCalibration` and `target_predictions.from_evidence`; arguments likewise."""
    centre, spread = (jnp.asarray(x, jnp.float32)[None] for x in scale(task.targets))
    mean, variance = gaussian.moments(evidence)
    sigma = jnp.sqrt(variance) * fitted.get("scales", 1.0)
    said = {"values": centre + spread * mean, "sigmas": spread * sigma}
    if not fitted:
        return said
    reach = fitted["quantiles"] * sigma
    return {**said, "low": centre + spread * (mean - reach), "high": centre + spread * (mean + reach)}
