"""What a trained model says of examples, each with whatever modalities it has: also of such as have no label."""

import csv
import dataclasses
import functools
import io
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from umemma_jax.data import npz
from umemma_jax.data.dataset import Dataset
from umemma_jax.data.info import Info
from umemma_jax.data.unseen import UnseenDataset
from umemma_jax.devices.sharding import Devices, fetch, put_batch, replicated
from umemma_jax.errors import UserError
from umemma_jax.evaluation.pattern_calibration import PatternCalibration, unfitted
from umemma_jax.evaluation.sigma_calibration import SigmaCalibration
from umemma_jax.experiment import Experiment
from umemma_jax.missing import Capacities, Compacted, run_compacted
from umemma_jax.model import LateFusion
from umemma_jax.patterns import pattern_name, pattern_numbers
from umemma_jax.reporting.files import write_files
from umemma_jax.target_predictions import TargetPredictions, from_evidence

PyTree = Any

AHEAD = 2  # batches that the devices compute while the host fetches another's results
SEPARATOR = "|"  # of the labels of one example
LONGEST_NAME = 100  # characters of a dataset's name in that of a file


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a model says of the N examples of a split, in their order.

    Attributes:
      ids: of the examples.
      modalities: M names.
      present: what each example has of them, bool [N, M].
      classes: K names.
      multi_label: whether the classes are independent.
      probabilities: float32 [N, K]; NaN for an example that has no modality. Calibrated, where the run is.
      thresholds: above which an example is said to have a class, of multi-label data; float [N, K], or one for all.
      sets: conformal sets of classes, bool [N, K], empty where none can be promised; None without calibration.
      notes: what of the dataset is not as in the training, a line each.
    """

    ids: list[str]
    modalities: tuple[str, ...]
    present: np.ndarray
    classes: tuple[str, ...]
    multi_label: bool
    probabilities: np.ndarray
    thresholds: np.ndarray | float = 0.5
    sets: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    @functools.cached_property
    def predicted(self) -> np.ndarray:
        """Which classes each example has, bool [N, K]: the most probable one; `multi_label`, all above thresholds."""
        if self.multi_label:
            return self.probabilities > self.thresholds
        best = np.argmax(self.probabilities, axis=1)
        return (np.arange(len(self.classes)) == best[:, None]) & self.present.any(axis=1, keepdims=True)

    @property
    def header(self) -> list[str]:
        """Of `cells`."""
        return ["prediction", "probability", *([] if self.sets is None else ["set"])]

    def cells(self, number: int) -> list[str]:
        """The classes that one example is said to have, their probabilities and, where there is one, its set."""
        predicted = self.predicted[number]
        values = SEPARATOR.join(f"{probability:.4f}" for probability in self.probabilities[number, predicted])
        sets = [] if self.sets is None else [self._names(self.sets[number])]
        return [self._names(predicted), values, *sets]

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it, under the names of the attributes."""
        names = ["ids", "modalities", "present", "classes", "probabilities", "predicted"]
        if self.sets is not None:
            names.append("sets")
        return {name: np.asarray(getattr(self, name)) for name in names}

    def _names(self, chosen: np.ndarray) -> str:
        """The classes, bool [K], in one cell."""
        return SEPARATOR.join(self.classes[k] for k in np.flatnonzero(chosen))


def predict(
    experiment: Experiment,
    variables: PyTree,
    dataset: Dataset,
    split: str,
    calibration: PatternCalibration | SigmaCalibration | None = None,
) -> Predictions | TargetPredictions:
    """Predicts every example of a split; of several processes, all call it, and all get the same.

    Args:
      experiment: what was trained.
      variables: of the model, on the mesh.
      dataset: the experiment's, or another one that was prepared in the same way, with labels or without.
      split: of it.
      calibration: of the run; None: probabilities are as the model gives them.

    Raises:
      UserError: there is no such split or nothing in it, or the dataset does not have the model's modalities as they
        were trained.
    """
    info, notes = experiment.dataset.info, ()
    if dataset is not experiment.dataset:
        unseen = UnseenDataset(dataset, {m: info.modalities[m] for m in experiment.modalities})
        experiment, notes = dataclasses.replace(experiment, dataset=unseen), tuple(unseen.notes)
    source = experiment.dataset.source(split)
    if not len(source):
        raise UserError(f"{dataset.path}: split '{split}' has no examples")
    parts = list(_logits(experiment, variables, split))
    present, logits = (np.concatenate(part)[: len(source)] for part in zip(*parts, strict=True))
    return from_logits(source.ids(), experiment.modalities, present, logits, info, calibration, notes)


def from_logits(
    ids: Sequence[str],
    modalities: tuple[str, ...],
    present: np.ndarray,
    logits: np.ndarray,
    info: Info,
    calibration: PatternCalibration | SigmaCalibration | None,
    notes: tuple[str, ...] = (),
) -> Predictions | TargetPredictions:
    """Predictions from what a model says of N examples.

    Args:
      ids: of the examples.
      modalities: M names.
      present: bool [N, M].
      logits: float [N, K], of targets evidence [N, 2 T]; anything where an example has no modality.
      info: of the dataset of the training.
      calibration: of the run, or None.
      notes: as `Predictions` has them.
    """
    if info.targets:
        return from_evidence(ids, modalities, present, logits, info.targets, calibration, notes)
    found, left = calibration or unfitted(modalities), pattern_numbers(present)
    probabilities = found.probabilities(logits, left, info.multi_label)
    probabilities[left < 0] = np.nan
    return Predictions(
        list(ids),
        modalities,
        present,
        info.classes,
        info.multi_label,
        probabilities.astype(np.float32),
        0.5 if found.thresholds is None else found.thresholds[left],
        None if calibration is None else found.sets(probabilities, left),
        notes,
    )


def _logits(experiment: Experiment, variables: PyTree, split: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Presence [B, M] and logits [B, K] of each batch."""
    compute = program(experiment.model, experiment.mesh, experiment.means, experiment.capacities(split))
    computing = []
    for batch in experiment.batches(split):
        computing.append(compute(variables, put_batch(batch, experiment.mesh)))
        if len(computing) > AHEAD:
            yield fetch(computing.pop(0))
    yield from map(fetch, computing)


def program(model: LateFusion, mesh: Mesh, means: PyTree, capacities: Capacities = ()) -> Any:
    """(variables, batch) -> presence [B, M] and logits [B, K], on every device; jitted.

    Args:
      model: the module.
      mesh: that variables and batch are on.
      means: as `Experiment` has them.
      capacities: of the split, as `Experiment.capacities` gives them.
    """

    def of_batch(variables: PyTree, batch: PyTree) -> tuple[jax.Array, jax.Array]:
        present = batch["present"]

        def run(rows: Compacted | None) -> jax.Array:
            return model.apply(variables, batch["inputs"], present, layout=rows, means=means)["logits"]

        logits = run_compacted(run, capacities, present, Devices(mesh.size))
        return present, logits.astype(jnp.float32)

    return jax.jit(of_batch, out_shardings=replicated(mesh))


def file_name(dataset: Dataset, split: str, trained: Dataset) -> str:
    """`<dataset>_<split>`, in characters that belong into one; a dataset may have any name.

    Another dataset than that of the training may have the name of a third one: its fingerprint is added.
    """
    name = re.sub(r"[^\w.-]", "_", f"{dataset.info.name[:LONGEST_NAME]}_{split}")
    return name if dataset.fingerprint == trained.fingerprint else f"{name}_{dataset.fingerprint[:8]}"


def write(predictions: Predictions | TargetPredictions, folder: Path, name: str) -> None:
    """Writes NAME.csv, for people, and NAME.npz, for programs.

    Raises:
      UserError: the folder cannot be written.
    """
    write_files(
        {f"{name}.csv": to_csv(predictions).encode(), f"{name}.npz": npz.encode_compressed(predictions.arrays())},
        folder,
    )


def to_csv(predictions: Predictions | TargetPredictions) -> str:
    """A row for each example: its id, what it has, and what is said of it.

    Control characters of ids, classes and targets are escaped, and what would be a formula starts with '; NAME.npz has
    them as they are.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("id", "present", *map(_cell, predictions.header)))
    for number, (id, present) in enumerate(zip(predictions.ids, predictions.present, strict=True)):
        place = pattern_name(present, predictions.modalities)
        table.writerow((_cell(id), place, *map(_cell, predictions.cells(number))))
    return text.getvalue()


def _cell(text: str) -> str:
    """A text that no terminal takes for a command, and no spreadsheet for a formula: that gets ' before it."""
    shown = "".join(ascii(sign)[1:-1] if unicodedata.category(sign) in ("Cc", "Zl", "Zp") else sign for sign in text)
    first = unicodedata.normalize("NFKC", shown.lstrip()[:1])
    is_formula = first in ("=", "+", "-", "@") and not re.fullmatch(r"[+-]?\d+(\.\d+)?(e[+-]\d+)?", shown)
    return f"'{shown}" if is_formula else shown
