"""After each epoch: how good it is on the validation examples, and the best one so far is kept."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from umemma_jax import missing
from umemma_jax.devices import sharding
from umemma_jax.evaluation import calibration, metrics, regression, target_judgement
from umemma_jax.evaluation.evaluate import Encoded, Evaluator
from umemma_jax.evaluation.names import TUNED
from umemma_jax.evaluation.split_logits import SplitLogits
from umemma_jax.experiment import Experiment
from umemma_jax.patterns import Pattern, pattern_name
from umemma_jax.training import steps
from umemma_jax.training.progress import Progress
from umemma_jax.training.steps import TrainState

PyTree = Any


def over_all_patterns(experiment: Experiment, variables: PyTree) -> float:
    """The mean over all missing patterns of the headline metric on the validation examples; NaN where none has any.

    Args:
      experiment: with validation examples.
      variables: of its model.
    """
    split, rows = experiment.validation
    info = experiment.dataset.info
    evaluator = Evaluator(experiment.model, experiment.mesh, experiment.means, info.targets)
    variables = sharding.place(variables, experiment.mesh)
    encoded = evaluator.encode(variables, experiment.batches(split, rows), experiment.capacities(split, rows))
    said = evaluator.split_logits(encoded, evaluator.predict_patterns(variables, encoded), None, info.classes)
    values = np.array([headline_of_pattern(said, name) for name in said.names])
    return float(np.nanmean(values)) if np.isfinite(values).any() else math.nan


class Validation:
    """Scores a stage's epochs and keeps the best: in stage `unimodal` each modality's, in stage `fusion` the model's.

    The fusion stage is judged by the report's headline metric under the missing patterns that it is trained for, each
    with its weight there. What the stage starts from is a candidate too: on these examples it never ends with less.
    """

    def __init__(self, experiment: Experiment, stage: str) -> None:
        """Of one stage; the experiment is the config's own, also where the stage is given features."""
        self._experiment, self._stage = experiment, stage
        info = experiment.dataset.info
        self._classes, targets = info.classes, info.targets
        primary = regression.PRIMARY if targets else metrics.primary(info.multi_label)
        self._metric = TUNED + primary if info.multi_label and stage == "fusion" else primary
        self._evaluator = Evaluator(experiment.model, experiment.mesh, experiment.means, targets)
        split, rows = experiment.validation
        self._capacities = experiment.capacities(split, rows) if len(rows) else ()
        self._frozen = stage == "fusion" and all(tower.frozen for tower in experiment.model.towers)
        self._encoded = None  # by encoders that stay as they are
        self._policy = missing.policy_from_config(experiment.config.missing, experiment.modalities)

        @functools.partial(jax.jit, donate_argnums=0)
        def keep_best(state: TrainState, scores: dict[str, jax.Array], epoch: jax.Array) -> TrainState:
            return sharding.constrain(steps.keep_best(state, scores, epoch), experiment.mesh)

        self._keep_best = keep_best

    def begin(self, state: TrainState, progress: Progress) -> TrainState:
        """Before the first step: says what cannot be judged, and judges what the fusion stage starts from."""
        if unjudged := self._unjudged():
            progress.note(f"no validation example can judge {unjudged}: the last epoch is kept, not the best")
        return self.keep_best(state, 0, 0, progress) if self._stage == "fusion" else state

    def keep_best(self, state: TrainState, step: int, epoch: int, progress: Progress) -> TrainState:
        """The state after an epoch, with the best ones so far; what no example judges is kept as it is now."""
        if not len(self._experiment.validation[1]):
            return state
        values = self._values(state)
        scores = values if self._stage == "unimodal" else {self._stage: self._over_patterns(values)}
        progress.event("validation", step, {f"{self._metric}/{name}": value for name, value in values.items()})
        return self._keep_best(state, scores, epoch)

    def _values(self, state: TrainState) -> dict[str, float]:
        """The metric of each modality's own head, or of the model under each pattern that it is trained for."""
        variables, evaluator = steps.variables_to_evaluate(state), self._evaluator
        encoded = self._encode(variables)
        if self._stage == "unimodal":
            return {name: scores[self._metric] for name, scores in evaluator.unimodal(encoded).items()}
        split = evaluator.split_logits(encoded, evaluator.predict_patterns(variables, encoded), None, self._classes)
        return {name: headline_of_pattern(split, name) for name in map(self._name, self._policy.patterns)}

    def _encode(self, variables: PyTree) -> Encoded:
        if self._encoded is not None:
            return self._encoded
        batches = self._experiment.batches(*self._experiment.validation)
        encoded = self._evaluator.encode(variables, batches, self._capacities)
        if self._frozen:
            self._encoded = encoded
        return encoded

    def _over_patterns(self, values: Mapping[str, float]) -> float:
        """The mean over the patterns that some example has, by their weights in training; NaN where there is none."""
        weights = np.array(self._policy.probabilities)
        value = np.array([values[self._name(pattern)] for pattern in self._policy.patterns])
        known = ~np.isnan(value)
        return float(np.average(value[known], weights=weights[known])) if known.any() else math.nan

    def _name(self, pattern: Pattern) -> str:
        return pattern_name(pattern, self._experiment.modalities)

    def _unjudged(self) -> str:
        """What no validation example judges, in words."""
        if self._stage == "unimodal":
            return " or ".join(self._experiment.unjudged_modalities())
        judged = self._experiment.judged(np.eye(len(self._experiment.modalities), dtype=bool))
        return "" if judged.any() else "the fusion stage"


def headline_of_pattern(split: SplitLogits, pattern: str) -> float:
    """Accuracy, macro-F1 at thresholds that are tuned on the same examples, or R2: of those that have any of it."""
    rows = split.left[split.names.index(pattern)] >= 0
    logits, label = split.patterns[pattern][rows], split.label[rows]
    if split.targets:
        return target_judgement.scores_of_evidence(logits, label, split.targets)[regression.PRIMARY]
    if split.multi_label:
        decided = calibration.probabilities(logits, multi_label=True) > calibration.class_thresholds(logits, label)
    else:
        decided = logits.argmax(axis=1)
    return metrics.scores(decided, label, len(split.classes))[metrics.primary(split.multi_label)]
