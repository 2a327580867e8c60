"""Training the fusion head alone: frozen encoders run once, and their features stand for the inputs from then on.

The fusion stage stays what it is; it is given another experiment, whose dataset holds features and whose towers pass
them on as they are.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from umemma_jax import checksums
from umemma_jax.data import example, npz
from umemma_jax.data.dataset import Dataset, Modality
from umemma_jax.data.source import LABEL, RecordSource
from umemma_jax.data.unfinished import appearing
from umemma_jax.devices import distributed
from umemma_jax.devices.sharding import Devices, fetch, put_batch, replicated
from umemma_jax.errors import UserError
from umemma_jax.experiment import Experiment
from umemma_jax.model import Tower, encode_present
from umemma_jax.training.progress import Progress

PyTree = Any
Arrays = dict[str, np.ndarray]

FILE_NAME = "features.npz"


def on_features(experiment: Experiment, variables: PyTree, workdir: Path, interrupt: Callable[[], None]) -> Experiment:
    """The experiment on the features of the training rows, for the fusion stage alone.

    The stage learns what it would learn with frozen encoders, no augmentation and `data.window` 1: features have no
    lengths to bring together. They lie in a folder of `<workdir>/features`, named by a digest of all that they depend
    on; where they are there already, no encoder runs; of several processes, where all of them find it.

    Args:
      experiment: whose encoders are frozen.
      variables: of its model, as the stage starts.
      workdir: of the run, or of the one whose uni-modal stage it shares, and with it the features.
      interrupt: called before each batch of the pass; may raise.

    Raises:
      UserError: the features cannot be written, or are damaged.
    """
    folder = workdir / "features" / _digest(experiment, variables)
    if distributed.on_all(folder.exists()):
        arrays = _load(folder)
    else:
        arrays = compute(experiment, variables, workdir, interrupt)
        distributed.by_first(lambda: _save(folder, arrays))
    towers = tuple(Tower(m, unchanged, Unchanged, frozen=True) for m in experiment.modalities)
    return dataclasses.replace(
        experiment,
        dataset=FeatureDataset(experiment, arrays),
        model=experiment.model.clone(towers=towers),
        inputs=(),
        means={m: arrays[f"means/{m}"] for m in experiment.means},
    )


def compute(experiment: Experiment, variables: PyTree, workdir: Path, interrupt: Callable[[], None]) -> Arrays:
    """One pass over the N training rows, without augmentation.

    Returns:
      `features/<m>` float32 [N, D_m], zero where m is absent; `present` bool [N, M]; `label` as in a batch, [N] or
      [N, K]; with the stand-in `mean`, `means/<m>` float32 [1, D_m].
    """
    config, rows = experiment.config, experiment.train_rows
    encode = jax.jit(_encoder_pass(experiment), out_shardings=replicated(experiment.mesh))
    steps = -(-len(rows) // config.evaluation.batch_size)
    parts = []
    shown = (workdir, "features", steps, 0, config.evaluation.batch_size, distributed.is_first(), config.trackers)
    with Progress(*shown) as progress:
        for step, batch in enumerate(experiment.batches(config.data.train_split, rows), 1):
            interrupt()
            parts.append(fetch(encode(variables, put_batch(batch, experiment.mesh))))
            progress.update(step)
            if step % config.log_every == 0 or step == steps:
                progress.log(step, {})
    arrays = {name: np.concatenate([part[name] for part in parts])[: len(rows)] for name in parts[0]}
    return {**arrays, **_mean_features(experiment, variables)}


def _encoder_pass(experiment: Experiment) -> Callable[[PyTree, PyTree], dict[str, jax.Array]]:
    capacities = experiment.capacities(experiment.config.data.train_split, experiment.train_rows)

    def encode(variables: PyTree, batch: PyTree) -> dict[str, jax.Array]:
        features, _ = encode_present(experiment.model, variables, batch, capacities, Devices(experiment.mesh.size))
        features = {f"features/{m}": x.astype(np.float32) for m, x in features.items()}
        return {**features, "present": batch["present"], "label": batch["label"]}

    return encode


def _mean_features(experiment: Experiment, variables: PyTree) -> Arrays:
    """The encoders' features of the mean inputs; {} unless they are the stand-ins."""
    if not experiment.means:
        return {}

    @functools.partial(jax.jit, out_shardings=replicated(experiment.mesh))
    def encode(variables: PyTree, means: PyTree) -> dict[str, jax.Array]:
        features = dict.fromkeys(experiment.modalities)  # which this stand-in does not look at
        found = experiment.model.apply(variables, features, means, method="stand_ins")
        return {f"means/{m}": x.astype(np.float32) for m, x in found.items()}

    return fetch(encode(variables, experiment.means))


class Unchanged(nn.Module):
    """The encoder of inputs that are features already."""

    def __call__(self, x: jax.Array, mask: jax.Array | None = None, train: bool = False) -> jax.Array:
        """x [B, D] itself."""
        return x


def unchanged(raw: jax.Array, keys: jax.Array | None = None, train: bool = False) -> jax.Array:
    """The preprocessing of inputs that are features already."""
    return raw


# The dataset.


class FeatureDataset(Dataset):
    """A dataset whose training rows are features, in memory; it has no others."""

    def __init__(self, experiment: Experiment, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes the arrays of `compute`."""
        widths = {m: arrays[f"features/{m}"].shape[-1] for m in experiment.modalities}
        modalities = {m: Modality(kind="tabular", encoding="float32", shape=(width,)) for m, width in widths.items()}
        dataset = experiment.dataset
        super().__init__(dataset.path, dataclasses.replace(dataset.info, modalities=modalities), dataset.fingerprint)
        self._arrays = arrays
        self._rows = experiment.train_rows

    def source(self, split: str) -> RecordSource:
        """The training split, whatever `split`."""
        return _FeatureSource(self, split, self._rows, self._arrays)


class _FeatureSource(RecordSource):
    """Records made of the arrays of `compute`, of the rows that are in them."""

    def __init__(self, dataset: Dataset, split: str, rows: np.ndarray, arrays: Mapping[str, np.ndarray]) -> None:
        super().__init__(dataset.path, dataset.info.splits[split], dataset.info)
        self._modalities = tuple(dataset.info.modalities)
        self._positions = {row: position for position, row in enumerate(rows.tolist())}
        self._arrays = arrays

    def examples(self, rows: Sequence[int]) -> list[example.Features]:
        """As `RecordSource.examples`."""
        return [self._example(self._positions[int(row)]) for row in rows]

    def _example(self, position: int) -> example.Features:
        label, present = self._arrays["label"][position], self._arrays["present"][position]
        values = {LABEL: np.flatnonzero(label).tolist() if label.ndim else [label]}
        for name, has in zip(self._modalities, present, strict=True):
            if has:
                values[name] = self._arrays[f"features/{name}"][position].tobytes()
        return example.decode(example.encode(values))

    def present(self, modalities: Sequence[str]) -> np.ndarray:
        """As `RecordSource.present`; rows that were not computed have nothing."""
        table = np.zeros((len(self), len(self._modalities)), bool)
        table[list(self._positions)] = self._arrays["present"]
        return table[:, [self._modalities.index(name) for name in modalities]]


# The files.


def _digest(experiment: Experiment, variables: PyTree) -> str:
    """Of all that the features depend on."""
    config = experiment.config
    recipe = {
        "modalities": experiment.modalities,
        "inputs": config.inputs.to_dict(),
        "eta": [config.missing.eta.to_dict(), config.seed],
        "split": config.data.train_split,
        "stand_in": config.missing.stand_in,
        **experiment.fingerprints,
    }
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode())
    digest.update(np.ascontiguousarray(experiment.train_rows, np.int64))
    encoders = {
        collection: {f"encoders_{m}": tree[f"encoders_{m}"] for m in experiment.modalities if f"encoders_{m}" in tree}
        for collection, tree in variables.items()
    }
    for path, leaf in jax.tree_util.tree_leaves_with_path(encoders):
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode())
        digest.update(fetch(leaf).tobytes())
    return digest.hexdigest()


def _save(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes the folder, which appears by rename."""
    with appearing(folder) as partial:
        partial.mkdir()
        np.savez(partial / FILE_NAME, **arrays)
        checksums.write_folder(partial)


def _load(folder: Path) -> Arrays:
    remedy = "remove this folder, and the same command makes it anew"
    if found := checksums.damaged(folder):
        raise UserError(f"{folder}: {found}: {remedy}")
    try:
        with (folder / FILE_NAME).open("rb") as file:
            return npz.decode(file)
    except (OSError, ValueError) as error:  # without checksums, so that half of it is gone
        raise UserError(f"{folder}: is damaged ({error}): {remedy}") from error
