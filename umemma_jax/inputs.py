"""From what a config says of one modality to its encoder, weights, tokenizer and preprocessing."""

import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from umemma_jax import config as config_lib
from umemma_jax import preprocess
from umemma_jax.data.dataset import Dataset
from umemma_jax.data.kinds import Modality, codec, takes_tokenizer
from umemma_jax.data.ngrams import IDS, NGRAMS, NGrams
from umemma_jax.data.tokenizer import TOKENIZER, Tokenizer, load_tokenizer
from umemma_jax.devices import distributed, memory, sharding
from umemma_jax.errors import UserError
from umemma_jax.model import Tower, checked_fields, encoder_module, field_types
from umemma_jax.weights import pretrained
from umemma_jax.weights.convert import GRID
from umemma_jax.weights.pretrained import Converted

PyTree = Any

# Of `inputs.<m>.encoder`, besides the Model's.
LOADING_FIELDS = {"pretrained": str, "first_layer": str, **GRID}
SMALLEST_VALUE = 4  # bytes of a batch for each unit of a length: int16 samples twice, or tokens
LARGEST_PADDING = 128  # rows by which an embedding may be larger than its vocabulary, to be a round number


@dataclasses.dataclass(frozen=True)
class Input:
    """One modality of a config, made concrete.

    Attributes:
      name: of the modality.
      tower: what the model does with it.
      length: static length of a batch where lengths vary; None otherwise, or for the longest in the dataset.
      buckets: shorter ones, of which a batch takes the smallest that holds all of its values.
      tokenizer: of text, or what makes n-grams of it.
      pretrained: the checkpoint that the encoder starts from, or None.
      first_layer: how it adapts to another number of input channels, see `Converted.fit`.
      width: D, of its features.
      parameter_bytes: of its encoder.
      row_bytes: of one example in a batch on the host, and of what the encoder takes of it.
    """

    name: str
    tower: Tower
    length: int | None
    buckets: tuple[int, ...]
    tokenizer: Tokenizer | NGrams | None
    pretrained: Converted | None
    first_layer: str
    width: int = 0
    parameter_bytes: int = 0
    row_bytes: tuple[int, int] = (0, 0)

    @property
    def encoder(self) -> str:
        """Its family and what was chosen of it, for error messages: `lenet (channels=8, layers=2)`."""
        module, fields = self.tower.encoder.func.__module__, self.tower.encoder.keywords
        chosen = ", ".join(f"{name}={value!r}" for name, value in fields.items() if name != "axis_name")
        return module.removeprefix("umemma_jax.encoders.") + (f" ({chosen})" if chosen else "")

    def start(self, variables: PyTree) -> PyTree:
        """A model's variables with this modality's encoder at its pre-trained weights.

        Raises:
          UserError: the checkpoint does not fit.
        """
        if self.pretrained is None:
            return variables
        with _at(f"config.inputs.{self.name}.encoder.pretrained"):
            fitted = self.pretrained.fit(self.group(variables), self.first_layer)
        return self._replaced(variables, fitted)

    def fit(self, variables: PyTree, batches: Iterator[PyTree]) -> PyTree:
        """A model's variables with what this modality's encoder takes from the training examples before any step.

        Args:
          variables: of the model.
          batches: raw inputs of the training examples, zero where absent; read only if the encoder's Model has a method
            `fit` (variables, batches) -> variables.
        """
        encoder = self.tower.encoder()
        if not hasattr(encoder, "fit"):
            return variables
        return self._replaced(variables, encoder.fit(self.group(variables), batches))

    def _replaced(self, variables: PyTree, group: PyTree) -> PyTree:
        """A model's variables with other ones of this modality's encoder, by collection."""
        return {
            collection: {**tree, f"encoders_{self.name}": group[collection]} if collection in group else tree
            for collection, tree in variables.items()
        }

    def group(self, variables: PyTree) -> PyTree:
        """This modality's encoder among a model's variables."""
        group = f"encoders_{self.name}"
        return {collection: tree[group] for collection, tree in variables.items() if group in tree}

    def mean(self, dataset: Dataset) -> PyTree:
        """The training split's mean input, as the pipeline would give it, 1 row; of text, the empty one."""
        store = codec(dataset.info.modalities[self.name], self.length, self.tokenizer)
        mean = dataset.statistics.get(self.name)
        if mean is None and self.tokenizer is None:
            raise UserError(
                f"config.missing.stand_in: {dataset.path} has no mean input of '{self.name}', use 'token' or 'zero'"
            )
        return store.decode([store.encode(store.from_mean(mean))])


def build_input(config: ConfigDict, dataset: Dataset, name: str) -> Input:
    """Makes an input, and traces its encoder on the shapes of one example.

    Raises:
      UserError: a field that cannot be right, or fields, weights and data that do not go together.
    """
    recipe, modality = config.inputs[name], dataset.info.modalities[name]
    field = f"config.inputs.{name}.encoder"
    with _at(f"{field}.name"):
        model = encoder_module(recipe.encoder.name).Model
    given = {key: value for key, value in recipe.encoder.to_dict().items() if key != "name"}
    given = checked_fields(model, given, LOADING_FIELDS, field)
    path, first_layer = given.pop("pretrained", ""), given.pop("first_layer", "")
    if first_layer not in ("", *pretrained.FIRST_LAYERS):
        raise UserError(f"{field}.first_layer: {first_layer!r} is neither {' nor '.join(pretrained.FIRST_LAYERS)}")
    converted = _converted(recipe.encoder.name, path, given, field) if path else None
    given.pop("grid", None)
    tokenizer = _tokenizer(recipe, dataset, converted, name)
    fields = {**(converted.card.fields if converted else {}), **given}
    if tokenizer and "vocabulary" in field_types(model):
        fields.setdefault("vocabulary", tokenizer.vocabulary)
        _check_vocabulary(fields["vocabulary"], tokenizer, field)
    if config.parallel == "pmap" and hasattr(model, "axis_name"):
        fields["axis_name"] = sharding.AXIS
    preprocessing = build_preprocess(recipe, modality, converted, name)
    if isinstance(preprocessing, preprocess.Columns) and "levels" in field_types(model):
        fields.setdefault("levels", preprocessing.levels)
    tower = Tower(
        name=name,
        preprocess=preprocessing,
        encoder=functools.partial(model, **fields),
        frozen=recipe.frozen or config.fusion.only,
    )
    buckets = _checked_buckets(recipe, f"config.inputs.{name}.buckets")
    built = Input(name, tower, recipe.length or None, buckets, tokenizer, converted, first_layer)
    rows = config.data.batch_size // jax.process_count()
    if reason := memory.excess(SMALLEST_VALUE * rows * recipe.length):  # before there is as much as one row
        raise UserError(f"config.inputs.{name}.length: {reason}")
    raw, x, features, variables = _trace(built, modality, recipe.encoder.name)
    if converted:
        with _at(f"{field}.pretrained"):
            converted.check(variables, first_layer)
    sizes = {"parameter_bytes": _bytes(variables), "row_bytes": (_bytes(raw), _bytes(x))}
    return dataclasses.replace(built, width=features.shape[-1], **sizes)


def export(inputs: Sequence[Input], variables: PyTree, folder: Path) -> list[Path]:
    """Writes the trained encoders that started from PyTorch checkpoints, under their original names.

    Args:
      inputs: of the experiment.
      variables: of the model.
      folder: to fill with a folder for each of these modalities.

    Returns:
      The folders.

    Raises:
      UserError: there is no such encoder, a size was changed, or a folder exists.
    """
    started = [x for x in inputs if x.pretrained]
    if not started:
        raise UserError("--mode=export: no encoder of this config started from a checkpoint (`pretrained`)")
    for x in started:
        group = sharding.fetch(x.group(variables))
        distributed.by_first(functools.partial(x.pretrained.export, folder / x.name, group))
    return [folder / x.name for x in started]


@contextlib.contextmanager
def _at(field: str) -> Iterator[None]:
    """Puts the field of the config before the message of a UserError."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{field}: {error}") from error


def _converted(family: str, path: str, given: dict[str, Any], field: str) -> Converted:
    with _at(f"{field}.pretrained"):
        return pretrained.obtain(family, path, given)


def build_preprocess(recipe: ConfigDict, modality: Modality, converted: Converted | None, name: str) -> Any:
    """The preprocessing; what the config does not say is the checkpoint's, else the dataset's.

    Raises:
      UserError: a field that cannot be right, or a sample rate that is not the checkpoint's.
    """
    given = recipe.preprocess.to_dict()
    stated = dict(converted.card.inputs) if converted else {}
    if isinstance(stated.get("mean"), list):  # of channels
        channels = len(modality.mean or ())
        for key in ("mean", "std"):
            stated[key] = stated[key] * channels if len(stated[key]) == 1 else stated[key]
        stated = stated if len(stated["mean"]) == len(stated["std"]) == channels else {}
    if "form" in stated and given.get("form", stated["form"]) != stated["form"]:
        stated = {}
    rate = stated.pop("sample_rate", modality.sample_rate)
    if rate != modality.sample_rate and "sample_rate" not in given:
        raise UserError(
            f"config.inputs.{name}.preprocess.sample_rate: the checkpoint is for {rate} Hz, and the dataset has "
            f"{modality.sample_rate} Hz: prepare it with that rate, or give the dataset's here to go on"
        )
    return preprocess.build(modality.kind, modality, {**stated, **given}, name)


def _tokenizer(
    recipe: ConfigDict, dataset: Dataset, converted: Converted | None, name: str
) -> Tokenizer | NGrams | None:
    """That of the config, else the checkpoint's, else the dataset's own."""
    field, modality = f"config.inputs.{name}", dataset.info.modalities[name]
    if not takes_tokenizer(modality):
        if recipe.tokenizer:
            raise UserError(f"{field}.tokenizer: {name} is {modality.kind}, leave it empty")
        return None
    if recipe.tokenizer == NGRAMS:
        return NGrams(recipe.encoder.get("vocabulary", IDS))
    path = recipe.tokenizer or (converted.folder if converted else dataset.path / TOKENIZER)
    if not recipe.tokenizer and not converted and not path.exists():
        raise UserError(f"{field}.tokenizer: name a folder or file with the tokenizer, e.g. a vocab.txt")
    if not recipe.tokenizer and not converted:
        dataset.check_file(TOKENIZER)
    with _at(f"{field}.tokenizer"):
        return load_tokenizer(path)


def _checked_buckets(recipe: ConfigDict, field: str) -> tuple[int, ...]:
    lengths = (*recipe.buckets, recipe.length)
    if not all(config_lib.fits(length, int) and length > 0 for length in recipe.buckets):
        raise UserError(f"{field}: {tuple(recipe.buckets)} are not all whole numbers above 0")
    if any(shorter >= longer for shorter, longer in itertools.pairwise(lengths)):
        raise UserError(f"{field}: {lengths} do not ascend, the last of which is the length")
    return tuple(recipe.buckets)


def _check_vocabulary(rows: int, tokenizer: Tokenizer, field: str) -> None:
    if not 0 <= rows - tokenizer.vocabulary <= LARGEST_PADDING:
        raise UserError(
            f"{field}: its vocabulary is {rows}, that of the tokenizer {tokenizer.path} is {tokenizer.vocabulary}: "
            "use the tokenizer that belongs to the encoder"
        )


def _bytes(tree: PyTree) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _trace(built: Input, modality: Modality, encoder: str) -> tuple[PyTree, PyTree, jax.ShapeDtypeStruct, PyTree]:
    """One row of a batch, and the shapes of what the encoder takes, of its features and of its variables.

    Values that are each of the right type may not go together.
    """
    field = f"config.inputs.{built.name}"
    try:
        raw = codec(modality, built.length, built.tokenizer).decode([None])
    except (ValueError, MemoryError) as error:
        raise UserError(f"{field}.length: {error}") from error
    try:
        x = jax.eval_shape(built.tower.preprocess, raw)
    except UserError as error:
        raise UserError(f"{field}.{error}") from error

    def initialise(x: PyTree) -> tuple[jax.Array, PyTree]:
        return built.tower.encoder().init_with_output(jax.random.key(0), x, train=False)

    try:
        features, variables = jax.eval_shape(initialise, x)
    except UserError as error:
        raise UserError(f"{field}.encoder: {error}") from error
    except Exception as error:
        if "." in encoder:
            raise  # a module of the user's own, who needs the traceback
        reason = (str(error).splitlines() or [""])[0]
        shapes = ", ".join(str(leaf.shape) for leaf in jax.tree.leaves(x))
        raise UserError(
            f"{field}.encoder: {built.encoder} fails on inputs of shape {shapes} ({type(error).__name__}: {reason})"
        ) from error
    if len(features.shape) != 2 or not all(features.shape):
        raise UserError(f"{field}.encoder: {built.encoder} gives features of shape {features.shape} instead of [B, D]")
    return raw, x, features, variables
