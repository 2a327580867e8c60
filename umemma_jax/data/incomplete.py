"""A dataset read as if some of its examples lacked modalities that they have: the files stay as they are."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from umemma_jax.data import example
from umemma_jax.data.dataset import Dataset
from umemma_jax.data.source import Columns, RecordSource


class IncompleteDataset(Dataset):
    """A dataset some of whose splits have lost what a table says.

    Attributes:
      path: its folder.
      info: what `dataset.json` says, with the modalities counted that are left.
      kept: bool [N, M] by split: which modalities each record keeps, of those that it has.
    """

    def __init__(self, dataset: Dataset, kept: Mapping[str, np.ndarray], modalities: Sequence[str]) -> None:
        """`modalities` names the M columns of the tables; splits without a table stay as they are."""
        splits = dict(dataset.info.splits)
        for name, table in kept.items():
            left = dict(zip(modalities, table.sum(axis=0).tolist(), strict=True))
            splits[name] = dataclasses.replace(splits[name], present=splits[name].present | left)
        super().__init__(dataset.path, dataclasses.replace(dataset.info, splits=splits), dataset.fingerprint)
        self.kept = dict(kept)
        self._whole = dataset
        self._modalities = tuple(modalities)

    def source(self, split: str) -> RecordSource:
        """As `Dataset.source`."""
        if split not in self.kept:
            return super().source(split)
        return _IncompleteSource(self, split, dict(zip(self._modalities, self.kept[split].T, strict=True)))

    def columns(self, split: str) -> Columns | None:
        """As `Dataset.columns`, of what is left."""
        columns = self._whole.columns(split)
        if columns is None or split not in self.kept:
            return columns
        present = columns.present.copy()
        present[:, [list(self.info.modalities).index(name) for name in self._modalities]] &= self.kept[split]
        return dataclasses.replace(columns, present=present)


class _IncompleteSource(RecordSource):
    """Records whose features lack what was dropped; `kept` {modality: bool [N]} says which ones keep it."""

    def __init__(self, dataset: Dataset, split: str, kept: Mapping[str, np.ndarray]) -> None:
        super().__init__(dataset.path, dataset.info.splits[split], dataset.info, dataset.columns(split))
        self._kept = kept

    def examples(self, rows: Sequence[int]) -> list[example.Features]:
        """As `RecordSource.examples`."""
        return [self._left(row, features) for row, features in zip(rows, super().examples(rows), strict=True)]

    def _left(self, row: int, features: example.Features) -> example.Features:
        lost = {name for name, column in self._kept.items() if not column[row]}
        return {name: features[name] for name in features if name not in lost}
