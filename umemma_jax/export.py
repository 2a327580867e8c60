"""A trained model as one file that JAX and NumPy alone run, on CPUs, GPUs and TPUs: `umemma_jax.serving.load` reads it.

What is in the file is said in `umemma_jax.serving.model_file`, what the program does in `umemma_jax.program`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from umemma_jax import __version__, program
from umemma_jax.by_pattern import ByPattern
from umemma_jax.data import npz
from umemma_jax.data.kinds import Modality
from umemma_jax.data.ngrams import NGRAMS, NGrams
from umemma_jax.data.unfinished import appearing
from umemma_jax.errors import UserError
from umemma_jax.evaluation.metrics import undefined_as_none
from umemma_jax.inputs import Input
from umemma_jax.saved_model import SavedModel
from umemma_jax.serving import model_file, signature
from umemma_jax.serving.signature import BATCH

Described = dict[str, Any]
PLATFORMS = ("cpu", "cuda", "tpu")


def export(model: SavedModel, path: Path) -> None:
    """Writes a model into one file, and beside it what its `model.json` says, as `NAME.stablehlo.json`.

    Args:
      model: as it was saved.
      path: of the file, by custom `NAME.stablehlo`; what is there is replaced.

    Raises:
      UserError: the file cannot be written, or an encoder of the user's own cannot do with any number of rows.
    """
    weights, inputs = arguments(model)
    exported = _exported(program.of(model), weights, inputs)
    outputs = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    description = {
        **about(model),
        "inputs": inputs,
        "outputs": {name: signature.described(x) for name, x in outputs.items()},
        "program": {
            "platforms": exported.platforms,
            "calling_convention_version": exported.calling_convention_version,
            "takes": exported.module_kept_var_idx,
        },
    }
    parts = {
        model_file.PROGRAM: bytes(exported.mlir_module_serialized),
        model_file.WEIGHTS: npz.encode(weights),
        **_tokenizers(model.inputs),
    }
    content = model_file.described(description, parts)
    with appearing(path) as partial:
        model_file.write(partial, content, parts)
    with appearing(path.with_name(f"{path.name}.json")) as partial:
        partial.write_bytes(content)


def arguments(model: SavedModel) -> tuple[dict[str, np.ndarray], dict[str, Described]]:
    """The program's weights, by name, and what `model.json` says of its inputs, by modality."""
    run = ByPattern(model.module, model.variables, model.inputs, model.info, model.means)
    inputs = {x.name: _input(model, x, program.named(run.decode(x.name, [None]))) for x in model.inputs}
    return program.weights(model, run.stand_ins), inputs


def _exported(
    function: Callable[..., Any], weights: Mapping[str, np.ndarray], inputs: Mapping[str, Described]
) -> jax.export.Exported:
    arguments = signature.arguments(weights, inputs, signature.sizes(inputs))
    try:
        return jax.export.export(jax.jit(function), platforms=PLATFORMS)(*arguments)
    except (TypeError, jax.errors.InconclusiveDimensionOperation) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"export: an encoder cannot do with any number of rows ({reason}): in an encoder of your own, take sizes "
            "from x.shape, and no decision by the number of rows or of tokens"
        ) from error


# --- model.json -------------------------------------------------------------------------------------------------------


def about(model: SavedModel) -> Described:
    """What `model.json` says of a model besides its inputs and outputs."""
    info = model.info
    return {
        "umemma_jax": __version__,
        "jax": jax.__version__,
        "trained_on": info.name,
        "method": model.method,
        "classes": info.classes,
        "multi_label": info.multi_label,
        "targets": [target.name for target in info.targets],
        "required": model.required,
        "optional": [m for m in model.modalities if m not in model.required],
        "headline": model.headline,
        "quality": model.quality,
        "calibration": _calibration(model),
    }


def _calibration(model: SavedModel) -> Described | None:
    """What was fitted, by pattern, in lists; None where nothing was."""
    fitted = model.calibration
    if fitted is None:
        return None
    arrays = {name: x for name, x in dataclasses.asdict(fitted).items() if isinstance(x, np.ndarray)}
    by_pattern = {
        name: dict(zip(fitted.names, undefined_as_none(x.tolist()), strict=True)) for name, x in arrays.items()
    }
    return {"examples": fitted.examples, "alpha": fitted.alpha, **by_pattern}


def _input(model: SavedModel, x: Input, arrays: Mapping[str, np.ndarray]) -> Described:
    """What one input is made of.

    Of several lengths, or one that is not the same in all rows, `lengths` are those of the arrays' second axis, and
    `counted_by` says which array counts how much of it is there.
    """
    modality = model.info.modalities[x.name]
    described = {name: signature.described(array) for name, array in arrays.items()}
    found = {"kind": modality.kind, "required": x.name in model.required, **_about_modality(modality)}
    counts = [name for name, array in arrays.items() if array.ndim == 1]
    for name, array in described.items():
        array["shape"][0] = BATCH
        if x.buckets and name not in counts:
            array["shape"][1] = signature.free_length(x.name)
    if counts:
        (found["counted_by"],) = counts
        first = next(array for name, array in arrays.items() if name not in counts)
        found["lengths"] = [*x.buckets, x.length] if x.buckets else [first.shape[1]]
    if x.tokenizer is not None:
        found["tokenizer"] = _tokenizer(x)
    return {**found, "arrays": described}


def _about_modality(modality: Modality) -> Described:
    """What one has to know of the values to make the arrays."""
    known = {
        "sample_rate": modality.sample_rate,
        "frame_rate": modality.frame_rate,
        "framing": modality.framing,
        "columns": modality.columns,
        "levels": modality.level_names or None,
    }
    return {name: value for name, value in known.items() if value is not None}


# --- tokenizers -------------------------------------------------------------------------------------------------------


def _tokenizer(x: Input) -> Described:
    """The class of it, and what it takes to make it again."""
    if isinstance(x.tokenizer, NGrams):
        return {"kind": NGRAMS, "vocabulary": x.tokenizer.vocabulary}
    return {"kind": "vocabulary", "file": f"{model_file.TOKENIZERS}/{x.name}/{x.tokenizer.path.name}"}


def _tokenizers(inputs: Sequence[Input]) -> dict[str, bytes]:
    """The files of all of them, by name in the exported file."""
    return {
        f"{model_file.TOKENIZERS}/{x.name}/{file.name}": file.read_bytes()
        for x in inputs
        if x.tokenizer is not None
        for file in x.tokenizer.files
    }
