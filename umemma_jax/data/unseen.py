"""Another dataset than that of the training, read as if it were it, whatever modalities it has."""

import dataclasses
import reprlib
from collections.abc import Mapping, Sequence

import numpy as np

from umemma_jax.data import example
from umemma_jax.data.dataset import Dataset
from umemma_jax.data.info import Info, Split
from umemma_jax.data.kinds import UNSEEN, Modality
from umemma_jax.data.remote import Location
from umemma_jax.data.source import Columns, RecordSource
from umemma_jax.errors import UserError

_FORMAT = ("kind", "encoding", "shape", "sample_rate", "frame_rate")  # what a model was trained for
_SHOWN = 3  # levels, where a model was not trained on them
_LACKING = -1  # in place of a column's number


class UnseenDataset(Dataset):
    """A dataset with the modalities of a trained model, of which its examples may lack any.

    Columns of tabular data are matched by their names: those in another order are put in that of the training, one that
    the training did not have is ignored, and one that this dataset lacks is missing in all of its rows. So are the
    levels of categories, of which one that the training did not have is `UNSEEN`.

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
        self._matches: dict[str, _Match] = {}
        for name in both:
            where = f"{dataset.path}: modality '{name}'"
            _check_format(where, found[name], trained[name])
            if (found[name].columns, found[name].level_names) != (trained[name].columns, trained[name].level_names):
                self._matches[name] = _Match(where, found[name], trained[name])
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
        if not self._matches:
            return source
        return _MatchedSource(self.path, self.info.splits[split], self.info, self.columns(split), self._matches)

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


class _MatchedSource(RecordSource):
    """Records whose tabular data become as in the training; one that has no number of it lacks the modality."""

    def __init__(
        self, folder: Location, split: Split, info: Info, columns: Columns | None, matches: Mapping[str, "_Match"]
    ) -> None:
        super().__init__(folder, split, info, columns)
        self._matches = matches

    def examples(self, rows: Sequence[int]) -> list[example.Features]:
        """As `RecordSource.examples`."""
        return [self._matched(features) for features in super().examples(rows)]

    def _matched(self, features: example.Features) -> example.Features:
        for name, match in self._matches.items():
            stored = example.bytes_value(features, name)
            if stored is not None:
                vector = match(np.frombuffer(stored, "<f4"))
                features = example.replaced(features, name, None if np.all(np.isnan(vector)) else vector.tobytes())
        return features


class _Match:
    """From a stored vector to one of the training, by the names of columns and levels."""

    def __init__(self, where: str, found: Modality, trained: Modality) -> None:
        """Raises UserError if there are no names, none in common, or a column is of another type."""
        self._order = _order(where, found.columns, trained.columns)
        self._places: dict[int, np.ndarray] = {}  # by column of the training: where each stored level stands there
        here, there = found.level_names, trained.level_names
        for column, name in enumerate(trained.columns):
            if name in found.columns and (name in here) != (name in there):
                is_now, was = ("a category", "none") if name in here else ("no category", "one")
                raise UserError(
                    f"{where}: column '{name}' is {is_now}, in the training it was {was}: prepare it in the same way"
                )
            if name in here and name in there:
                places = {level: place for place, level in enumerate(there[name])}
                known = [places.get(level, UNSEEN) for level in here[name]]
                self._places[column] = np.array([*known, UNSEEN], np.float32)  # the last for `UNSEEN` itself

    def __call__(self, stored: np.ndarray) -> np.ndarray:
        """float32 [D of the dataset] -> float32 [D of the training]."""
        vector = np.append(stored, np.float32("nan"))[self._order]
        for column, places in self._places.items():
            if not np.isnan(vector[column]):
                vector[column] = places[int(vector[column])]
        return vector


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
    for column, levels in trained.level_names.items():
        if unknown := [level for level in found.level_names.get(column, ()) if level not in levels]:
            others = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
            shown = ", ".join(map(reprlib.repr, unknown[:_SHOWN])) + others
            notes.append(f"{where}: {column} has {shown}, which the model was not trained on and takes as unseen")
    if (found.max_samples or 0) > (trained.max_samples or 0):
        longest, most = (x.max_samples / x.sample_rate for x in (found, trained))
        notes.append(f"{where}: up to {longest:.3g} s long, the training's up to {most:.3g} s: the model may cut it")
    return notes


def _with_frames(trained: Modality, found: Modality) -> Modality:
    """What the training says, with room for the frames of the longer of the videos."""
    frames = max(trained.max_frames or 0, found.max_frames or 0)
    return dataclasses.replace(trained, max_frames=frames or None)
