"""Another dataset than that of the training, read as if it were it, whatever modalities it has."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from umemma_jax.data import example
from umemma_jax.data.dataset import Dataset
from umemma_jax.data.kinds import Modality
from umemma_jax.data.source import Columns, RecordSource
from umemma_jax.errors import UserError

_FORMAT = ("kind", "encoding", "shape", "sample_rate", "frame_rate")  # what a model was trained for
_LACKING = -1  # in place of a column's number


class UnseenDataset(Dataset):
    """A dataset with the modalities of a trained model, of which its examples may lack any.

    Columns of tabular data are matched by their names: those in another order are put in that of the training, one that
    the training did not have is ignored, and one that this dataset lacks is missing in all of its rows.

    Attributes:
      path: its folder.
      info: what `dataset.json` says, but with the model's modalities: statistics and lengths are those of its training,
        but for the number of frames of a video, which is the larger of the two.
      notes: what is not as in the training but can be read, a line each.
    """

    def __init__(self, dataset: Dataset, trained: Mapping[str, Modality]) -> None:
        """Takes the dataset, and what that of the training says of the model's modalities.

        Raises:
          UserError: it has none of them, or one in another format.
        """
        found = dataset.info.modalities
        if not found.keys() & trained.keys():
            raise UserError(
                f"{dataset.path}: has none of the model's modalities, {', '.join(trained)}: name them alike"
            )
        both = [name for name in trained if name in found]
        self.notes: list[str] = []
        self._orders: dict[str, np.ndarray] = {}
        for name in both:
            where = f"{dataset.path}: modality '{name}'"
            _check_format(where, found[name], trained[name])
            if found[name].columns != trained[name].columns:
                self._orders[name] = _order(where, found[name].columns, trained[name].columns)
            self.notes += _differences(where, found[name], trained[name])
        modalities = {
            name: _with_frames(modality, found[name]) if name in both else modality
            for name, modality in trained.items()
        }
        splits = {
            name: dataclasses.replace(split, present={m: split.present.get(m, 0) for m in trained})
            for name, split in dataset.info.splits.items()
        }
        info = dataclasses.replace(dataset.info, modalities=modalities, splits=splits)
        super().__init__(dataset.path, info, dataset.fingerprint)
        self._whole = dataset

    def source(self, split: str) -> RecordSource:
        """As `Dataset.source`."""
        source = super().source(split)
        if not self._orders:
            return source
        return _OrderedSource(self.path, self.info.splits[split], self.info, self.columns(split), orders=self._orders)

    def columns(self, split: str) -> Columns | None:
        """As `Dataset.columns`, of the model's modalities."""
        columns = self._whole.columns(split)
        if columns is None:
            return None
        present = dict(zip(self._whole.info.modalities, columns.present.T, strict=True))
        absent = np.zeros(len(columns.present), bool)
        return dataclasses.replace(
            columns, present=np.stack([present.get(m, absent) for m in self.info.modalities], axis=1)
        )


class _OrderedSource(RecordSource):
    """Records whose tabular data are put in another order; one that has no number of it lacks the modality."""

    def __init__(self, *arguments: object, orders: Mapping[str, np.ndarray]) -> None:
        super().__init__(*arguments)
        self._orders = orders

    def examples(self, rows: Sequence[int]) -> list[example.Features]:
        """As `RecordSource.examples`."""
        return [self._ordered(features) for features in super().examples(rows)]

    def _ordered(self, features: example.Features) -> example.Features:
        for name, order in self._orders.items():
            stored = example.bytes_value(features, name)
            if stored is not None:
                vector = np.append(np.frombuffer(stored, "<f4"), np.float32("nan"))[order]
                features = example.replaced(features, name, None if np.all(np.isnan(vector)) else vector.tobytes())
        return features


def _check_format(where: str, found: Modality, trained: Modality) -> None:
    for field in _FORMAT:
        here, trained_on = getattr(found, field), getattr(trained, field)
        by_name = field == "shape" and found.columns and trained.columns
        if here != trained_on and not by_name:
            raise UserError(
                f"{where}: {field} is {here}, the model was trained on {trained_on}: prepare it in the same way"
            )


def _order(where: str, found: Sequence[str] | None, trained: Sequence[str] | None) -> np.ndarray:
    """Where each column of the training stands in what is stored; `_LACKING` if nowhere."""
    if not found or not trained:
        here, there = ("this dataset", "the training's") if not found else ("the training's dataset", "this one's")
        raise UserError(
            f"{where}: {here} does not name its columns, {there} are {', '.join(found or trained)}: "
            "prepare both in the same way"
        )
    if not set(found) & set(trained):
        raise UserError(
            f"{where}: none of the columns that the model was trained on, {', '.join(trained)}; it has: "
            f"{', '.join(found)}: name them alike"
        )
    places = {name: place for place, name in enumerate(found)}
    return np.array([places.get(name, _LACKING) for name in trained])


def _differences(where: str, found: Modality, trained: Modality) -> list[str]:
    """What of the dataset is left out or taken as missing."""
    notes = []
    if found.columns and trained.columns:
        lacking = [name for name in trained.columns if name not in found.columns]
        others = [name for name in found.columns if name not in trained.columns]
        if lacking:
            notes.append(f"{where}: lacks {', '.join(lacking)}, which count as missing values")
        if others:
            notes.append(f"{where}: {', '.join(others)} ignored, the model was not trained on them")
    if (found.max_samples or 0) > (trained.max_samples or 0):
        longest, most = (x.max_samples / x.sample_rate for x in (found, trained))
        notes.append(f"{where}: up to {longest:.3g} s long, the training's up to {most:.3g} s: the model may cut it")
    return notes


def _with_frames(trained: Modality, found: Modality) -> Modality:
    """What the training says, with room for the frames of the longer of the videos."""
    frames = max(trained.max_frames or 0, found.max_frames or 0)
    return dataclasses.replace(trained, max_frames=frames or None)
