"""What training and evaluation share: dataset, model and mesh, built from one config."""

import dataclasses
import types
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from umemma_jax import class_weights, methods, missing, prior, protocol
from umemma_jax import config as config_lib
from umemma_jax.data import example
from umemma_jax.data.dataset import Dataset, open_dataset
from umemma_jax.data.incomplete import IncompleteDataset
from umemma_jax.data.info import Info
from umemma_jax.data.kinds import codec
from umemma_jax.data.pipeline import eval_batches, split_rows
from umemma_jax.data.tokenizer import Tokenizer
from umemma_jax.devices import distributed, memory
from umemma_jax.devices.sharding import check_batch_size, make_mesh
from umemma_jax.errors import UserError
from umemma_jax.inputs import Input, build_input
from umemma_jax.model import LateFusion
from umemma_jax.task import Task, task_of

PyTree = Any

LOOKED_AT = 500  # training examples, for how much of their texts is cut
STATE_COPIES = 4  # of the parameters in a training step: themselves, gradients, and two moments of the optimiser
TABLE_BYTES = 16  # of an example in a table of the missing-rate grid: its rank, and what sorts it


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One config made concrete.

    Attributes:
      config: the recipe.
      dataset: the prepared dataset.
      model: encoders and fusion head.
      mesh: all devices of all processes.
      inputs: what the config says of each modality, in the column order of presence masks.
      means: raw mean input of the training split per modality, 1 row each ({} unless the stand-in is `mean`).
      train_rows: record numbers of the training split that are trained on.
      validation: (split, record numbers) that choose the best epochs; no rows when there is no validation.
      row_weights: of the training rows in the loss, float32, of mean 1 over those above 0; None for ones.
      class_weights: of the K classes in the loss, float64 [K]; None for ones.
    """

    config: ConfigDict
    dataset: Dataset
    model: LateFusion
    mesh: Mesh
    inputs: tuple[Input, ...]
    means: dict[str, PyTree]
    train_rows: np.ndarray
    validation: tuple[str, np.ndarray]
    row_weights: np.ndarray | None = None
    class_weights: np.ndarray | None = None

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names in the column order of presence masks."""
        return tuple(self.config.modalities)

    @property
    def task(self) -> Task:
        """What is predicted."""
        return task_of(self.dataset.info)

    @property
    def focal_gamma(self) -> float:
        """Of focal loss; 0 where the loss is another."""
        return self.config.focal_gamma if self.config.loss == "focal" else 0.0

    @property
    def lengths(self) -> dict[str, int | tuple[int, ...]]:
        """Static length, or several, per modality of variable length, for the pipeline."""
        return {x.name: (*x.buckets, x.length) if x.buckets else x.length for x in self.inputs if x.length}

    @property
    def tokenizers(self) -> dict[str, Tokenizer]:
        """Of text modalities, for the pipeline."""
        return {x.name: x.tokenizer for x in self.inputs if x.tokenizer}

    @property
    def fingerprints(self) -> dict[str, Any]:
        """What a run depends on besides its config, by digests of the files."""
        return {
            "dataset": self.dataset.fingerprint,
            "pretrained": {x.name: x.pretrained.card.sha256 for x in self.inputs if x.pretrained},
            "tokenizer": {name: tokenizer.fingerprint for name, tokenizer in self.tokenizers.items()},
        }

    def check_dataset(self) -> None:
        """Raises UserError if another dataset lies where this one was opened: splits are read anew at every use."""
        if not open_dataset(self.dataset.path).is_as(self.dataset):
            raise UserError(
                f"{self.dataset.path}: was replaced by another dataset since this command has begun: put the old one "
                "back and the same command continues, or use another --workdir"
            )

    def cut_texts(self) -> list[str]:
        """A line for each modality of texts that are cut at its length: how many, and how much of them.

        Of some training examples, which are read.
        """
        inputs = [x for x in self.inputs if x.tokenizer]
        if not inputs:
            return []
        some = np.unique(np.linspace(0, len(self.train_rows) - 1, LOOKED_AT).astype(int))
        features = self.dataset.source(self.config.data.train_split).examples(self.train_rows[some])
        lines = []
        for x in inputs:
            texts = [text.decode() for row in features if (text := example.bytes_value(row, x.name)) is not None]
            tokens = x.tokenizer.count(texts)
            cut = np.maximum(tokens - x.length, 0)
            if cut.any():
                lines.append(
                    f"{x.name}: {np.mean(cut > 0):.0%} of the texts are longer than {x.length} tokens, "
                    f"{cut.sum() / tokens.sum():.0%} of all tokens are cut (config.inputs.{x.name}.length)"
                )
        return lines

    def batches(self, split: str, rows: np.ndarray | None = None) -> Iterator[PyTree]:
        """A split once, in order, in padded evaluation batches."""
        return eval_batches(
            self.dataset,
            split,
            self.modalities,
            self.config.evaluation.batch_size,
            rows=rows,
            lengths=self.lengths,
            tokenizers=self.tokenizers,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def training_inputs(self, x: Input) -> Iterator[PyTree]:
        """The training examples' raw inputs of one modality, in padded batches, all of them in every process."""
        batches = eval_batches(
            self.dataset,
            self.config.data.train_split,
            (x.name,),
            self.config.evaluation.batch_size,
            rows=self.train_rows,
            lengths={x.name: x.length} if x.length else {},
            tokenizers={x.name: x.tokenizer} if x.tokenizer else {},
        )
        return (batch["inputs"][x.name] for batch in batches)

    def judged(self, patterns: np.ndarray) -> np.ndarray:
        """Which patterns, bool [P, M], some labelled validation example has all of; bool [P]."""
        split, rows = self.validation
        source = self.dataset.source(split)
        present = source.present(self.modalities)[rows]
        if self.dataset.info.multi_label:
            present = present[source.labels()[rows].any(axis=1)]
        return np.array([present[:, pattern].all(axis=1).any() for pattern in patterns])

    def unjudged_modalities(self) -> list[str]:
        """Those that no labelled validation example has, so that no epoch of their encoders is known to be best."""
        judged = self.judged(np.eye(len(self.modalities), dtype=bool))
        return [m for m, known in zip(self.modalities, judged, strict=True) if not known]

    def log_prior(self) -> np.ndarray:
        """Of the classes, as the uni-modal heads learn it from the training examples; see `prior.of_heads`.

        Of targets, the evidence of the prior N(0, 1): zeros [2 T].
        """
        if self.task.targets:
            return np.zeros(self.task.outputs, np.float32)
        source = self.dataset.source(self.config.data.train_split)
        labels, present = source.labels()[self.train_rows], source.present(self.modalities)[self.train_rows]
        return prior.of_heads(
            labels,
            present,
            len(self.dataset.info.classes),
            label_smoothing=self.config.unimodal.label_smoothing,
            row_weights=self.row_weights,
            class_weights=self.class_weights,
            gamma=self.focal_gamma,
        )

    def capacities(self, split: str, rows: np.ndarray | None = None) -> missing.Capacities:
        """Choices of static numbers of rows for the encoders in `batches(split, rows)`; none where all is complete.

        Of an incomplete split, reads every record.
        """
        info = self.dataset.info.splits[split]
        if all(info.present[m] == info.examples for m in self.modalities):
            return ()
        present = self.dataset.source(split).present(self.modalities)
        present = present if rows is None else present[rows]
        size, shards = self.config.evaluation.batch_size, self.mesh.size
        present = np.pad(present, ((0, -len(present) % size), (0, 0)))
        masks = present.reshape(-1, shards, size // shards, len(self.modalities))
        return missing.choose_capacities(masks, self.config.missing.capacities)


def build(config: ConfigDict) -> Experiment:
    """Opens the dataset and makes the model that the config names.

    Raises:
      UserError: a field that cannot be right, with or without a look at the data.
    """
    config_lib.check(config)
    try:
        mesh = make_mesh(config.fsdp)
    except RuntimeError as error:
        raise UserError(f"JAX finds no device: {' '.join(str(error).split())}") from error
    if config.parallel == "pmap" and distributed.several():
        raise UserError("config.parallel = 'pmap' is for one process: use 'jit', which computes the same on several")
    check_batch_size(config.data.batch_size, mesh, "data.batch_size")
    check_batch_size(config.evaluation.batch_size, mesh, "evaluation.batch_size")
    config_lib.check_accumulation(config, mesh.size)
    missing.policy_from_config(config.missing, tuple(config.modalities))
    prep = f"python -m {config.data.prep} --out={config.data.dir}" if config.data.prep else None
    dataset = open_dataset(config.data.dir, prep=prep)
    _check_dataset(config, dataset)
    dataset = _framed(config, dataset)
    if protocol.loses(config.missing.eta):
        dataset = _make_incomplete(config, dataset)
    train_rows, validation = _split(config, dataset)
    _check_train_rows(config, dataset, train_rows, mesh)
    for stage in ("unimodal", "fusion"):
        if config[stage].patience and not len(validation[1]):
            raise UserError(f"config.{stage}.patience: no example validates epochs: set config.data.validation_share")
    if config.evaluation.label_free_bias and not len(validation[1]):
        raise UserError(
            "config.evaluation.label_free_bias: no example is for validation, by which it is fitted: set "
            "config.data.validation_share"
        )
    inputs = tuple(build_input(config, dataset, name) for name in config.modalities)
    _check_memory(config, dataset, inputs, len(train_rows))
    means = {x.name: x.mean(dataset) for x in inputs} if config.missing.stand_in == "mean" else {}
    model = late_fusion(config, inputs, dataset.info)
    row_weights = _row_weights(config, dataset, train_rows)
    of_classes = _class_weights(config, dataset, train_rows, row_weights)
    return Experiment(config, dataset, model, mesh, inputs, means, train_rows, validation, row_weights, of_classes)


def late_fusion(config: ConfigDict, inputs: Sequence[Input], info: Info) -> LateFusion:
    """The model that a config makes of its inputs, for what a dataset has to predict."""
    return LateFusion(
        towers=tuple(x.tower for x in inputs),
        outputs=task_of(info).outputs,
        family=task_of(info).family,
        head=config.fusion.head,
        stand_in=config.missing.stand_in,
        dropout=config.dropout,
    )


def _check_dataset(config: ConfigDict, dataset: Dataset) -> None:
    info = dataset.info
    if not info.labelled:
        raise UserError(f"config.data.dir: {dataset.path} has no labels: --mode=predict --data takes such")
    if any(target.mean is None for target in info.targets):
        raise UserError(f"config.data.dir: {dataset.path} states no mean of its targets: prepare it with a split train")
    _check_loss(config, info)
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
        if used and not len(dataset.source(config.data[field])):  # raises where a shard is truncated
            raise UserError(
                f"config.data.{field}: split '{config.data[field]}' of {dataset.path} has no examples, "
                "name another or prepare the dataset again"
            )


def _check_loss(config: ConfigDict, info: Info) -> None:
    """Raises UserError where the loss is not of what the dataset's labels are."""
    of_classes = {
        "loss": config.loss == "focal",
        "balance_classes": config.balance_classes,
        "class_weights": bool(config.class_weights),
        "evaluation.label_free_bias": config.evaluation.label_free_bias,
    }
    for field, asked in of_classes.items():
        if asked and info.targets:
            value = config_lib.get(config, field)
            raise UserError(f"config.{field}: {value} is for classes, this dataset has targets: leave it out")
    if config.loss == "huber" and not info.targets:
        raise UserError("config.loss: huber is for targets of regression, this dataset has classes: use auto or focal")
    protocol.check_labels(config.missing, one_class=not (info.targets or info.multi_label))
    if config.method.name:
        _check_labels(methods.method(config.method.name), info)


def _check_labels(method: types.ModuleType, info: Info) -> None:
    if getattr(method, "SINGLE_LABEL", False) and (info.targets or info.multi_label):
        kind = "targets" if info.targets else "several labels an example"
        raise UserError(
            f"config.method.name: {method.LABEL} is for one class an example, this dataset has {kind}: use another"
        )


def _framed(config: ConfigDict, dataset: Dataset) -> Dataset:
    """The dataset with the framing of images that the config asks for."""
    framings = {name: config.inputs[name].framing for name in config.modalities if config.inputs[name].framing}
    if not framings:
        return dataset
    modalities = dict(dataset.info.modalities)
    for name, framing in framings.items():
        modalities[name] = dataclasses.replace(modalities[name], framing=framing)
        try:
            codec(modalities[name])
        except ValueError as error:
            raise UserError(f"config.inputs.{name}.framing: {error}") from error
    return Dataset(dataset.path, dataclasses.replace(dataset.info, modalities=modalities), dataset.fingerprint)


def _make_incomplete(config: ConfigDict, dataset: Dataset) -> IncompleteDataset:
    """The dataset whose training and validation examples have lost modalities for good, by tables of the run's seed."""
    eta, modalities = config.missing.eta, config.modalities
    splits = {config.data.train_split, config.data.validation_split} - {"", config.data.test_split}

    def table(split: str) -> np.ndarray:
        source = dataset.source(split)
        classes = protocol.Classes(source.labels(), len(dataset.info.classes)) if eta.given == protocol.LABEL else None
        return protocol.table(eta, source.present(modalities), classes, config.seed, modalities)

    return IncompleteDataset(dataset, {split: table(split) for split in sorted(splits)}, modalities)


def _split(config: ConfigDict, dataset: Dataset) -> tuple[np.ndarray, tuple[str, np.ndarray]]:
    """Rows to train on, and the rows and their split that choose the best epoch."""
    data, source = config.data, dataset.source(config.data.train_split)
    if data.validation_split:
        validation = np.arange(len(dataset.source(data.validation_split)))
        return np.arange(len(source)), (data.validation_split, validation)
    if not data.validation_share:
        return np.arange(len(source)), (data.train_split, np.arange(0))
    present = source.present(config.modalities)
    train_rows, validation = split_rows(source.labels(), present, data.validation_share, config.seed)
    return train_rows, (data.train_split, validation)


def _row_weights(config: ConfigDict, dataset: Dataset, train_rows: np.ndarray) -> np.ndarray | None:
    source = dataset.source(config.data.train_split)
    weights = source.weights()
    weights = None if weights is None else weights[train_rows]
    if config.missing.inverse_propensity:
        present, labels = source.present(config.modalities)[train_rows], source.labels()[train_rows]
        inverse = protocol.inverse_propensity(present, labels, config.missing.least_propensity)
        weights = inverse if weights is None else weights * inverse
    if weights is None:
        return None
    if not weights.any():
        raise UserError(f"config.data.dir: all training examples of {dataset.path} have weight 0: prepare it again")
    return weights / weights[weights > 0].mean()


def _class_weights(
    config: ConfigDict, dataset: Dataset, train_rows: np.ndarray, row_weights: np.ndarray | None
) -> np.ndarray | None:
    classes = dataset.info.classes
    if config.balance_classes:
        labels = dataset.source(config.data.train_split).labels()[train_rows]
        return class_weights.balanced(labels, len(classes), row_weights)
    return class_weights.named(config.class_weights, classes) if config.class_weights else None


def _check_memory(config: ConfigDict, dataset: Dataset, inputs: Sequence[Input], train_rows: int) -> None:
    """Raises UserError, naming the field, where what its value asks for does not fit into the machine's memory.

    On an accelerator, XLA itself refuses what does not fit there.
    """
    on_host = jax.default_backend() == "cpu"
    on_disk, prepared = (sum(x.row_bytes[part] for x in inputs) for part in (0, 1))
    row = on_disk + prepared if on_host else on_disk
    widest = max(inputs, key=lambda x: x.parameter_bytes)
    longest = max(inputs, key=lambda x: max(x.row_bytes))
    state = (STATE_COPIES if on_host else 1) * sum(x.parameter_bytes for x in inputs)
    examples = dataset.info.splits[config.data.test_split].examples
    sizes = {
        f"inputs.{widest.name}.encoder: {widest.encoder}": state,
        "evaluation.seeds": config.evaluation.seeds * examples * (TABLE_BYTES + len(inputs)),
        "evaluation.resamples": config.evaluation.resamples * examples,  # how often each is drawn, a byte
    }
    for field in ("data", "evaluation"):
        count = config[field].batch_size // jax.process_count()
        sizes[f"{field}.batch_size: {count} rows, of inputs.{longest.name} most"] = count * row
    if on_disk * train_rows <= config.data.cache_megabytes << 20:
        sizes["data.cache_megabytes"] = on_disk * train_rows
    for field, size in sizes.items():
        if reason := memory.excess(size):
            raise UserError(f"config.{field}: {reason}")


def _check_train_rows(config: ConfigDict, dataset: Dataset, rows: np.ndarray, mesh: Mesh) -> None:
    largest = len(rows) // mesh.size * mesh.size
    if not largest:
        raise UserError(f"config.data.dir: {len(rows)} training examples are too few for {mesh.size} devices")
    if config.data.batch_size > largest:
        raise UserError(
            f"config.data.batch_size = {config.data.batch_size}: there are only {len(rows)} training examples "
            f"(without those for validation), use {largest} or less"
        )
    present = dataset.source(config.data.train_split).present(config.modalities)[rows]
    for name, known in zip(config.modalities, present.any(axis=0), strict=True):
        if not known:
            raise UserError(
                f"config.modalities: no training example of {dataset.path} has '{name}', leave it out "
                "or prepare the dataset with examples that have it"
            )
