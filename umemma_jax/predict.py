"""What a trained model says of examples, each with whatever modalities it has: also of such as have no label."""

import csv
import dataclasses
import functools
import io
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from umemma_jax.data.dataset import Dataset
from umemma_jax.data.unseen import UnseenDataset
from umemma_jax.devices.sharding import Devices, fetch, put_batch, replicated
from umemma_jax.errors import UserError
from umemma_jax.experiment import Experiment
from umemma_jax.missing import Capacities, Compacted, run_compacted
from umemma_jax.patterns import pattern_name
from umemma_jax.reporting.report import npz, write_files

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
      probabilities: float32 [N, K]; NaN for an example that has no modality.
      notes: what of the dataset is not as in the training, a line each.
    """

    ids: list[str]
    modalities: tuple[str, ...]
    present: np.ndarray
    classes: tuple[str, ...]
    multi_label: bool
    probabilities: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def predicted(self) -> np.ndarray:
        """Which classes each example has, bool [N, K]: the most probable one; with `multi_label` all above 0.5."""
        if self.multi_label:
            return self.probabilities > 0.5
        best = np.argmax(self.probabilities, axis=1)
        return (np.arange(len(self.classes)) == best[:, None]) & self.present.any(axis=1, keepdims=True)


def predict(experiment: Experiment, variables: PyTree, dataset: Dataset, split: str) -> Predictions:
    """Predicts every example of a split; of several processes, all call it, and all get the same.

    Args:
      experiment: what was trained.
      variables: of the model, on the mesh.
      dataset: the experiment's, or another one that was prepared in the same way, with labels or without.
      split: of it.

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
    parts = list(_probabilities(experiment, variables, split, info.multi_label))
    present, probabilities = (np.concatenate(part)[: len(source)] for part in zip(*parts, strict=True))
    probabilities[~present.any(axis=1)] = np.nan
    return Predictions(
        source.ids(), experiment.modalities, present, info.classes, info.multi_label, probabilities, notes
    )


def _probabilities(
    experiment: Experiment, variables: PyTree, split: str, multi_label: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Presence [B, M] and probabilities [B, K] of each batch."""
    compute = jax.jit(
        functools.partial(_of_batch, experiment, experiment.capacities(split), multi_label),
        out_shardings=replicated(experiment.mesh),
    )
    computing = []
    for batch in experiment.batches(split):
        computing.append(compute(variables, put_batch(batch, experiment.mesh)))
        if len(computing) > AHEAD:
            yield fetch(computing.pop(0))
    yield from map(fetch, computing)


def _of_batch(
    experiment: Experiment, capacities: Capacities, multi_label: bool, variables: PyTree, batch: PyTree
) -> tuple[jax.Array, jax.Array]:
    present = batch["present"]

    def run(rows: Compacted | None) -> jax.Array:
        outputs = experiment.model.apply(variables, batch["inputs"], present, layout=rows, means=experiment.means)
        return outputs["logits"]

    logits = run_compacted(run, capacities, present, Devices(experiment.mesh.size))
    activate = jax.nn.sigmoid if multi_label else jax.nn.softmax
    return present, activate(logits.astype(jnp.float32))


def file_name(dataset: Dataset, split: str, trained: Dataset) -> str:
    """`<dataset>_<split>`, in characters that belong into one; a dataset may have any name.

    Another dataset than that of the training may have the name of a third one: its fingerprint is added.
    """
    name = re.sub(r"[^\w.-]", "_", f"{dataset.info.name[:LONGEST_NAME]}_{split}")
    return name if dataset.fingerprint == trained.fingerprint else f"{name}_{dataset.fingerprint[:8]}"


def write(predictions: Predictions, folder: Path, name: str) -> None:
    """Writes NAME.csv, for people, and NAME.npz, for programs.

    Raises:
      UserError: the folder cannot be written.
    """
    write_files({f"{name}.csv": to_csv(predictions).encode(), f"{name}.npz": npz(_arrays(predictions))}, folder)


def to_csv(predictions: Predictions) -> str:
    """A row for each example: its id, what it has, and the classes that it is said to have, with probabilities.

    Control characters of ids and classes are escaped, and what would be a formula starts with '; NAME.npz has them as
    they are.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("id", "present", "prediction", "probability"))
    rows = zip(predictions.ids, predictions.present, predictions.predicted, predictions.probabilities, strict=True)
    for id, present, predicted, probabilities in rows:
        chosen = np.flatnonzero(predicted)
        names = SEPARATOR.join(predictions.classes[k] for k in chosen)
        values = SEPARATOR.join(f"{probabilities[k]:.4f}" for k in chosen)
        table.writerow((_cell(id), pattern_name(present, predictions.modalities), _cell(names), values))
    return text.getvalue()


def _cell(text: str) -> str:
    """A text that no terminal takes for a command, and no spreadsheet for a formula: that gets ' before it."""
    shown = "".join(ascii(sign)[1:-1] if unicodedata.category(sign) in ("Cc", "Zl", "Zp") else sign for sign in text)
    first = unicodedata.normalize("NFKC", shown.lstrip()[:1])
    is_formula = first in ("=", "+", "-", "@") and not re.fullmatch(r"[+-]?\d+(\.\d+)?", shown)
    return f"'{shown}" if is_formula else shown


def _arrays(predictions: Predictions) -> dict[str, np.ndarray]:
    """All of it, under the names of the attributes."""
    names = ("ids", "modalities", "present", "classes", "probabilities", "predicted")
    return {name: np.asarray(getattr(predictions, name)) for name in names}
