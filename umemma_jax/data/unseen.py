"""Another dataset than that of the training, read as if it were it, whatever modalities it has."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from umemma_jax.data.dataset import Dataset
from umemma_jax.data.kinds import Modality
from umemma_jax.data.source import Columns
from umemma_jax.errors import UserError

_FORMAT = ("kind", "encoding", "shape", "sample_rate", "frame_rate")  # what a model was trained for


class UnseenDataset(Dataset):
    """A dataset with the modalities of a trained model, of which its examples may lack any.

    Attributes:
      path: its folder.
      info: what `dataset.json` says, but with the model's modalities: statistics and lengths are those of its training.
    """

    def __init__(self, dataset: Dataset, trained: Mapping[str, Modality]) -> None:
        """Takes the dataset, and what that of the training says of the model's modalities.

        Raises:
          UserError: it has none of them, or one in another format.
        """
        _check(dataset, trained)
        splits = {
            name: dataclasses.replace(split, present={m: split.present.get(m, 0) for m in trained})
            for name, split in dataset.info.splits.items()
        }
        info = dataclasses.replace(dataset.info, modalities=dict(trained), splits=splits)
        super().__init__(dataset.path, info, dataset.fingerprint)
        self._whole = dataset

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


def _check(dataset: Dataset, trained: Mapping[str, Modality]) -> None:
    found = dataset.info.modalities
    if not found.keys() & trained.keys():
        raise UserError(f"{dataset.path}: has none of the model's modalities, {', '.join(trained)}: name them alike")
    for name, modality in trained.items():
        for field in _FORMAT if name in found else ():
            here, trained_on = getattr(found[name], field), getattr(modality, field)
            if here != trained_on:
                raise UserError(
                    f"{dataset.path}: {field} of modality '{name}' is {here}, the model was trained on {trained_on}: "
                    "prepare it in the same way"
                )
