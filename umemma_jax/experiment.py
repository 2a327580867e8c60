"""What training and evaluation share: dataset, model and mesh, built from one config."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from umemma_jax import config as config_lib
from umemma_jax import missing, preprocess
from umemma_jax.data.dataset import Dataset, open_dataset
from umemma_jax.data.kinds import codec
from umemma_jax.data.pipeline import eval_batches, split_rows
from umemma_jax.errors import UserError
from umemma_jax.model import LateFusion, Tower, encoder_module
from umemma_jax.sharding import AXIS, check_batch_size, make_mesh

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One config made concrete.

    Attributes:
      config: the recipe.
      dataset: the prepared dataset.
      model: encoders and fusion head.
      mesh: all devices.
      means: raw mean input of the training split per modality, 1 row each ({} unless the stand-in is `mean`).
      lengths: static length per modality of variable length, for the pipeline.
      train_rows: record numbers of the training split that are trained on.
      validation: (split, record numbers) that choose the best epoch; no rows when there is no validation.
    """

    config: ConfigDict
    dataset: Dataset
    model: LateFusion
    mesh: Mesh
    means: dict[str, PyTree]
    lengths: dict[str, int]
    train_rows: np.ndarray
    validation: tuple[str, np.ndarray]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names in the column order of presence masks."""
        return tuple(self.config.modalities)

    def batches(self, split: str, rows: np.ndarray | None = None) -> Iterator[PyTree]:
        """A split once, in order, in padded evaluation batches."""
        return eval_batches(
            self.dataset,
            split,
            self.modalities,
            self.config.evaluation.batch_size,
            rows=rows,
            lengths=self.lengths,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )


def build(config: ConfigDict) -> Experiment:
    """Opens the dataset and makes the model that the config names.

    Raises:
      UserError: a field that cannot be right, with or without a look at the data.
    """
    config_lib.check(config)
    try:
        mesh = make_mesh()
    except RuntimeError as error:
        raise UserError(f"JAX finds no device: {' '.join(str(error).split())}") from error
    check_batch_size(config.data.batch_size, mesh, "data.batch_size")
    check_batch_size(config.evaluation.batch_size, mesh, "evaluation.batch_size")
    missing.policy_from_config(config.missing, tuple(config.modalities))
    prep = f"python -m {config.data.prep} --out={config.data.dir}" if config.data.prep else None
    dataset = open_dataset(config.data.dir, prep=prep)
    _check_dataset(config, dataset)
    lengths = {m: config.inputs[m].length for m in config.modalities if config.inputs[m].length}
    towers = tuple(_tower(config, dataset, name) for name in config.modalities)
    for tower in towers:
        _check_tower(tower, config, dataset, lengths.get(tower.name))
    train_rows, validation = _split(config, dataset)
    _check_train_rows(config, train_rows, mesh)
    means = _mean_inputs(config, dataset, lengths) if config.missing.stand_in == "mean" else {}
    model = LateFusion(
        towers=towers,
        num_classes=len(dataset.info.classes),
        head=config.fusion.head,
        stand_in=config.missing.stand_in,
        dropout=config.dropout,
    )
    return Experiment(config, dataset, model, mesh, means, lengths, train_rows, validation)


def _check_dataset(config: ConfigDict, dataset: Dataset) -> None:
    info = dataset.info
    for name in config.modalities:
        if name not in info.modalities:
            raise UserError(
                f"config.modalities: '{name}' is not in the dataset {dataset.path} "
                f"(it has {', '.join(info.modalities)})"
            )
    named = {"train_split": True, "test_split": True, "validation_split": bool(config.data.validation_split)}
    for field, used in named.items():
        if used and config.data[field] not in info.splits:
            raise UserError(
                f"config.data.{field}: '{config.data[field]}' is not a split of {dataset.path} "
                f"(it has {', '.join(info.splits)})"
            )
        if used:
            dataset.source(config.data[field])  # raises where a shard is truncated
    if info.multi_label:
        raise UserError(f"{dataset.path}: multi-label datasets are not supported yet")


def _split(config: ConfigDict, dataset: Dataset) -> tuple[np.ndarray, tuple[str, np.ndarray]]:
    """Rows to train on, and the rows and their split that choose the best epoch."""
    data, source = config.data, dataset.source(config.data.train_split)
    if data.validation_split:
        validation = np.arange(len(dataset.source(data.validation_split)))
        return np.arange(len(source)), (data.validation_split, validation)
    if not data.validation_share:
        return np.arange(len(source)), (data.train_split, np.arange(0))
    train_rows, validation = split_rows(source.labels(), data.validation_share, config.seed)
    return train_rows, (data.train_split, validation)


def _check_train_rows(config: ConfigDict, rows: np.ndarray, mesh: Mesh) -> None:
    largest = len(rows) // mesh.size * mesh.size
    if not largest:
        raise UserError(f"config.data.dir: {len(rows)} training examples are too few for {mesh.size} devices")
    if config.data.batch_size > largest:
        raise UserError(
            f"config.data.batch_size = {config.data.batch_size}: there are only {len(rows)} training examples "
            f"(without those for validation), use {largest} or less"
        )


def _tower(config: ConfigDict, dataset: Dataset, name: str) -> Tower:
    recipe, modality = config.inputs[name], dataset.info.modalities[name]
    arguments = recipe.encoder.to_dict()
    field = f"config.inputs.{name}.encoder"
    try:
        encoder_class = encoder_module(arguments.pop("name")).Model
    except UserError as error:
        raise UserError(f"{field}.name: {error}") from error
    known = {f.name: f.type for f in dataclasses.fields(encoder_class) if f.name not in ("parent", "name", "axis_name")}
    for key, value in arguments.items():
        if key not in known:
            raise UserError(f"{field}.{key}: unknown, {recipe.encoder.name} takes {', '.join(sorted(known))}")
        if not config_lib.fits(value, known[key]):
            kind = getattr(known[key], "__name__", known[key])
            raise UserError(f"{field}.{key}: {value!r} is not of type {kind}")
    if config.parallel == "pmap" and hasattr(encoder_class, "axis_name"):
        arguments["axis_name"] = AXIS
    return Tower(
        name=name,
        preprocess=preprocess.build(modality.kind, modality, recipe.preprocess.to_dict(), name),
        encoder=functools.partial(encoder_class, **arguments),
        frozen=recipe.frozen,
    )


def _check_tower(tower: Tower, config: ConfigDict, dataset: Dataset, length: int | None) -> None:
    """Traces a tower on the shapes of one example: values that are each of the right type may not go together."""
    field, name = f"config.inputs.{tower.name}", config.inputs[tower.name].encoder.name
    try:
        raw = codec(dataset.info.modalities[tower.name], length).decode([None])
    except ValueError as error:
        raise UserError(f"{field}.length: {error}") from error
    x = jax.eval_shape(tower.preprocess, raw)

    def features(x: jax.Array) -> jax.Array:
        return tower.encoder().init_with_output(jax.random.key(0), x, train=False)[0]

    try:
        shape = jax.eval_shape(features, x).shape
    except UserError as error:
        raise UserError(f"{field}.encoder: {error}") from error
    except Exception as error:
        if "." in name:
            raise  # a module of the user's own, who needs the traceback
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"{field}.encoder: {name} fails on inputs of shape {x.shape} ({type(error).__name__}: {reason})"
        ) from error
    if len(shape) != 2 or not all(shape):
        raise UserError(f"{field}.encoder: {name} gives features of shape {shape} instead of [B, D]")


def _mean_inputs(config: ConfigDict, dataset: Dataset, lengths: dict[str, int]) -> dict[str, PyTree]:
    """The training split's mean input per modality, as the pipeline would give it, 1 row."""
    means = {}
    for name in config.modalities:
        if name not in dataset.statistics:
            raise UserError(
                f"config.missing.stand_in: {dataset.path} has no mean input of '{name}', use 'token' or 'zero'"
            )
        modality = dataset.info.modalities[name]
        store = codec(modality, lengths.get(name))
        means[name] = store.decode([store.encode(store.from_mean(dataset.statistics[name]))])
    return means
