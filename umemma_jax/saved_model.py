"""A trained model in a folder of its own: it needs neither the data nor the recipe nor the run that made it.

`model.json` has the recipe, with all that checkpoints and data have decided written out, and how good the model is by
missing pattern; beside it lie the dataset's own description, the weights, the calibration and the tokenizers, all of
them under one list of checksums.
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np
from ml_collections import ConfigDict

from umemma_jax import __version__, checksums
from umemma_jax.config import method_name, with_tuples
from umemma_jax.data import info as dataset_info
from umemma_jax.data import unfinished
from umemma_jax.data.dataset import Dataset
from umemma_jax.data.info import DATASET, STATISTICS, Info
from umemma_jax.data.kinds import Modality
from umemma_jax.devices import distributed, sharding
from umemma_jax.errors import UserError
from umemma_jax.evaluation import pattern_calibration
from umemma_jax.evaluation.pattern_calibration import PatternCalibration
from umemma_jax.experiment import Experiment, late_fusion
from umemma_jax.inputs import Input, build_input
from umemma_jax.model import LateFusion
from umemma_jax.preprocess import form_of
from umemma_jax.training.train import Trained
from umemma_jax.weights import files

PyTree = Any

FOLDER = "model"  # in the workdir of a run
RECORD = "model.json"
REPORT = "report.json"  # of the run, on the test examples
VALIDATION = "validation.npz"
WEIGHTS, CEILINGS = "weights.safetensors", "ceilings.safetensors"
TOKENIZERS = "tokenizers"
FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True)
class SavedModel:
    """A trained model, and all that is known of it.

    Attributes:
      config: the recipe.
      info: what the training's dataset says of itself.
      inputs: one per modality, in the column order of presence masks.
      module: encoders and fusion head.
      variables: of the module, on the host.
      ceilings: those of the uni-modal models, likewise; None where there are none.
      means: raw mean inputs, as `Experiment` has them.
      calibration: fitted on the validation examples; None where there were none.
      headline: name of the metric that `quality` is in.
      quality: the report's headline metric by missing pattern; None where no example has any of the pattern.
      required: modalities without which nothing is answered.
      method: that trained it.
      log_prior: of the classes in training, as `Experiment.log_prior`.
      validation: what it makes of the validation examples, as `evaluate.on_host` gives it; None where there were none.
    """

    config: ConfigDict
    info: Info
    inputs: tuple[Input, ...]
    module: LateFusion
    variables: PyTree
    ceilings: PyTree | None
    means: dict[str, PyTree]
    calibration: PatternCalibration | None
    headline: str
    quality: dict[str, float | None]
    required: tuple[str, ...]
    method: str
    log_prior: np.ndarray
    validation: dict[str, np.ndarray] | None

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names in the column order of presence masks."""
        return tuple(self.config.modalities)


def write(
    experiment: Experiment,
    trained: Trained,
    results: Mapping[str, Any],
    validation: Mapping[str, np.ndarray] | None,
    report: Path,
    folder: Path,
    required: tuple[str, ...] = (),
) -> None:
    """Writes a trained model; of several processes all call it, and the first writes.

    Args:
      experiment: that was trained.
      trained: what it came to.
      results: of its evaluation.
      validation: what it makes of the validation examples, as `evaluate.on_host` gives it; None without such.
      report: report.json, where they stand.
      folder: to make; what is there is replaced once the new one is whole.
      required: modalities without which it shall answer nothing.

    Raises:
      UserError: the folder cannot be written.
    """
    variables, ceilings = sharding.fetch(trained.fusion), trained.unimodal

    def write_folder() -> None:
        try:
            unfinished.clear_up(folder)
            with unfinished.UnfinishedFolder(folder) as partial:
                _fill(partial, experiment, results, required)
                shutil.copyfile(report, partial / REPORT)
                if validation is not None:
                    np.savez_compressed(partial / VALIDATION, **validation)
                _write_variables(partial / WEIGHTS, variables)
                if ceilings is not None:
                    _write_variables(partial / CEILINGS, ceilings)
                checksums.write_folder(partial)
                unfinished.put_in_place(partial, folder)
        except OSError as error:
            raise UserError(f"{folder}: cannot be written ({error.strerror or error}): make room there") from error

    distributed.by_first(write_folder)


def _fill(folder: Path, experiment: Experiment, results: Mapping[str, Any], required: tuple[str, ...]) -> None:
    """Writes what is no weight."""
    config, dataset = experiment.config.copy_and_resolve_references(), experiment.dataset
    config.parallel, config.fsdp = "jit", 1
    for x in experiment.inputs:
        recipe = config.inputs[x.name].to_dict()
        own = _standalone(recipe, x, dataset.info.modalities[x.name], folder / TOKENIZERS / x.name)
        config.inputs[x.name] = ConfigDict({**recipe, **own})
    (folder / DATASET).write_text(json.dumps(dataset_info.to_json(dataset.info), indent=1) + "\n", encoding="utf-8")
    if experiment.means:
        np.savez(folder / STATISTICS, **dataset.statistics)
    pattern_calibration.write(results, folder)
    record = {
        "format_version": FORMAT_VERSION,
        "umemma_jax": __version__,
        "method": method_name(experiment.config),
        "headline": results["headline"],
        "quality": {name: scores[results["headline"]] for name, scores in results["patterns"].items()},
        "required": list(required),
        "log_prior": experiment.log_prior().tolist(),
        "config": config.to_dict(),
    }
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _standalone(recipe: Mapping[str, Any], x: Input, modality: Modality, tokenizer: Path) -> dict[str, Any]:
    """The fields of a modality's recipe that depend on more than the recipe, as they came to be.

    Copies the files of its tokenizer into a folder.
    """
    fields = {name: value for name, value in x.tower.encoder.keywords.items() if name != "axis_name"}
    made = x.tower.preprocess
    defaults = {field.name: field.default for field in dataclasses.fields(made)}
    # What the dataset does state goes with dataset.json.
    stated = {key: value for key in made.STATED if (value := _as_tuple(getattr(modality, key))) is not None}
    values = {key: getattr(made, key) for key in defaults}
    preprocess = {key: value for key, value in values.items() if value != {**defaults, **stated}[key]}
    found = {
        "encoder": {"name": recipe["encoder"]["name"], "pretrained": "", **fields},
        "preprocess": {"form": form_of(made), **preprocess},
    }
    if x.tokenizer is None or not x.tokenizer.files:
        return found
    tokenizer.mkdir(parents=True)
    for file in x.tokenizer.files:
        (tokenizer / file.name).write_bytes(file.read_bytes())
    vocabulary = x.tokenizer.path.name if x.tokenizer.path in x.tokenizer.files else ""
    return {**found, "tokenizer": str(Path(TOKENIZERS, x.name, vocabulary))}


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def read(folder: Path) -> SavedModel:
    """Reads what `write` has written, wherever it was moved since.

    Raises:
      UserError: there is no such folder, a file of it is damaged or missing, or it is of another format version.
    """
    if not (folder / RECORD).is_file():
        raise UserError(f"{folder}: no saved model here ({RECORD} is missing): name the folder that `save` wrote")
    if damaged := checksums.damaged(folder):
        raise UserError(f"{folder / damaged}: copy the model's folder again")
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        version = record["format_version"]
        if version != FORMAT_VERSION:
            raise UserError(
                f"{folder / RECORD}: format_version {version} instead of {FORMAT_VERSION}: save the model again with "
                f"this version of umemma_jax ({__version__}), or install the one that wrote it ({record['umemma_jax']})"
            )
        return _built(folder, record)
    except (AttributeError, KeyError, OSError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{folder}: is no saved model ({error}): save it again") from error


def _built(folder: Path, record: Mapping[str, Any]) -> SavedModel:
    config = ConfigDict(with_tuples(record["config"]))
    for recipe in config.inputs.values():
        if recipe.tokenizer and (folder / recipe.tokenizer).exists():
            recipe.tokenizer = str(folder / recipe.tokenizer)
    info = dataset_info.from_json(json.loads((folder / DATASET).read_text(encoding="utf-8")))
    dataset = Dataset(folder, dataclasses.replace(info, files=None), fingerprint="")
    inputs = tuple(build_input(config, dataset, name) for name in config.modalities)
    has_ceilings = (folder / CEILINGS).exists()
    return SavedModel(
        config,
        info,
        inputs,
        late_fusion(config, inputs, info),
        _read_variables(folder / WEIGHTS),
        _read_variables(folder / CEILINGS) if has_ceilings else None,
        {x.name: x.mean(dataset) for x in inputs} if config.missing.stand_in == "mean" else {},
        pattern_calibration.read(folder, config.modalities),
        record["headline"],
        record["quality"],
        tuple(record["required"]),
        record["method"],
        np.array(record["log_prior"], np.float32),
        dict(np.load(folder / VALIDATION)) if (folder / VALIDATION).exists() else None,
    )


def copy(source: Path, target: Path) -> None:
    """Copies the folder of a saved model. Raises UserError if the target is there, or cannot be written."""
    if target.exists():
        raise UserError(f"{target}: exists already: name another folder, or remove it")
    with unfinished.appearing(target) as partial:
        shutil.copytree(source, partial)


# Variables.


def _write_variables(path: Path, variables: PyTree) -> None:
    arrays = flax.traverse_util.flatten_dict(jax.device_get(variables), sep="/")
    files.write_safetensors(path, list(arrays), map(np.asarray, arrays.values()))


def _read_variables(path: Path) -> PyTree:
    opened = files.open_weights(path)
    tree = flax.traverse_util.unflatten_dict({name: opened.read(name) for name in opened.shapes}, sep="/")
    return {"batch_stats": {}, **tree}
