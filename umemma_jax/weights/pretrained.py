"""Converted checkpoints in the form of a Model: layers stacked for `scan`, positions resized, channels adapted."""

import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np

from umemma_jax import command, encoders
from umemma_jax.data import tokenizer
from umemma_jax.data.unfinished import remove_unfinished
from umemma_jax.errors import UserError
from umemma_jax.model import encoder_module
from umemma_jax.weights import convert, files, hub, model_card, preprocessing, recognition

PyTree = Any
Shape = tuple[int, ...]

FIRST_LAYERS = ("average", "tile")


class Converted:
    """A converted folder.

    Attributes:
      folder: where it is.
      card: its model card.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        """Raises UserError if it is not one of this version, or damaged."""
        self.folder = Path(folder)
        self.card = model_card.read_card(self.folder)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Our parameters and statistics in the checkpoint's sizes, float32, by path from the collection on."""
        parameters = model_card.open_parameters(self.folder)
        return {name: parameters.read(name) for name in parameters.shapes if _is_ours(name)}

    @property
    def shapes(self) -> dict[str, Shape]:
        """Those of `arrays`, which are not read."""
        found = model_card.open_parameters(self.folder).shapes
        return {name: shape for name, shape in found.items() if _is_ours(name)}

    def check(self, like: Mapping[str, PyTree], first_layer: str = "") -> None:
        """Raises what `fit` raises, and reads no tensor."""
        expected, shapes = _expected(like), self.shapes
        for path, layers in _scanned_layers(shapes, expected).items():
            shape, *_ = [shapes.pop(layer) for layer in layers]
            shapes[path] = (len(layers), *shape)
        for path in shapes.keys() & self.card.fit.keys() & expected.keys():
            if shapes[path] != expected[path]:
                fits, _ = FITS[self.card.fit[path]]
                if fits(shapes[path], expected[path], first_layer):
                    shapes[path] = expected[path]
        missing = [f"{path} {shape}" for path, shape in expected.items() if path not in shapes]
        extra = [path for path in shapes.keys() - expected.keys() if path not in _scanned(self.card.optional)]
        unused = [f"{path} {shapes[path]}" for path in sorted(extra)]
        other = [
            f"{path} {shapes[path]} instead of {shape}"
            for path, shape in expected.items()
            if path in shapes and shapes[path] != shape
        ]
        if missing or unused or other:
            found = recognition.lists(missing, unused, other)
            raise UserError(
                f"{self.folder}: this checkpoint does not fit the encoder: {found}: give the encoder the checkpoint's "
                "own sizes (leave them out of the config)"
            )

    def fit(self, like: Mapping[str, PyTree], first_layer: str = "") -> dict[str, PyTree]:
        """The parameters in the form of a Model's variables.

        Args:
          like: variables of the Model, arrays or their shapes: {"params": ..., "batch_stats": ...}.
          first_layer: how a first layer adapts to another number of input channels: `average` gives each channel the
            mean over the checkpoint's, `tile` repeats these; both are scaled such that an input whose channels are
            equal gets the response of the original. Empty: not at all.

        Raises:
          UserError: a parameter is missing, left over, or of another shape: all are named.
        """
        self.check(like, first_layer)
        expected, arrays = _expected(like), self.arrays
        for path, layers in _scanned_layers(self.shapes, expected).items():
            arrays[path] = np.stack([arrays.pop(layer) for layer in layers])
        for path, shape in expected.items():
            if arrays[path].shape != shape:
                _, adapted = FITS[self.card.fit[path]]
                arrays[path] = adapted(arrays[path], shape, first_layer)
        fitted = {path: arrays[path] for path in expected}
        return flax.traverse_util.unflatten_dict(fitted, sep="/")

    def export(self, path: str | os.PathLike, variables: Mapping[str, PyTree]) -> None:
        """Writes variables of a Model, trained from this checkpoint, under the original names; see `convert.export`."""
        arrays = flax.traverse_util.flatten_dict(variables, sep="/")
        convert.export(self.folder, Path(path), _unstacked(arrays))


def obtain(family: str, path: str | os.PathLike, given: Mapping[str, Any], cache: Path | None = None) -> Converted:
    """The converted checkpoint of a path: itself if it is converted, else converted into the cache, once.

    What is damaged in the cache is converted again, and what killed conversions have left there is removed.

    Args:
      family: encoder module.
      path: converted folder, or what `files.open_weights` takes, or `hf://OWNER/NAME`.
      given: fields of the Model that the user gives; used where neither the shapes nor config.json decide.
      cache: folder; None for `command.cache_folder()`.

    Raises:
      UserError: the checkpoint cannot be converted, or contradicts what is given; or `path` is a damaged folder.
    """
    path = hub.local(path)
    if os.path.exists(path / model_card.CARD):
        converted = Converted(path)
        if converted.card.family != family:
            raise UserError(f"{path}: is of family {converted.card.family}, not {family}")
        return converted
    if cache is None:
        cache = command.cache_folder()
    if cache is None:
        raise UserError(
            f"{path}: there is no folder to keep its conversion in (no home, no temporary files): convert it by hand "
            "with python -m umemma_jax.weights.convert, and name that folder"
        )
    opened = files.open_weights(path)
    given = recognition.undecided(family, opened, given)
    target = cache / f"{family.replace('.', '_')}-{_key(family, opened, given)}"
    remove_unfinished(cache)
    if target.exists():
        with contextlib.suppress(UserError):
            return Converted(target)
        shutil.rmtree(target, ignore_errors=True)
    try:
        convert.convert(family, path, target, given)
    except UserError:
        if not (target / model_card.CARD).exists():  # else another process has been quicker
            raise
    return Converted(target)


def _key(family: str, opened: files.Weights, given: Mapping[str, Any]) -> str:
    """Hexadecimal digits that stand for all that a conversion reads, and for what does it."""
    digests = opened.sha256()
    for file in preprocessing.beside(opened.folder, (*preprocessing.FILES, *tokenizer.FILES)):
        digests[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    parts = [model_card.VERSION, _code(family), family, sorted(given.items()), sorted(digests.items())]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _code(family: str) -> str:
    """Digest of the tables and of what applies them: a mended rule gives other weights."""
    folders = {Path(module.__file__).parent for module in (encoders, files, encoder_module(family))}
    sources = sorted(path for folder in folders for path in folder.glob("*.py"))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()


def _is_ours(name: str) -> bool:
    return not name.startswith(model_card.CARRIED)


def _expected(like: Mapping[str, PyTree]) -> dict[str, Shape]:
    """Shapes of a Model's variables by path."""
    return {path: tuple(x.shape) for path, x in flax.traverse_util.flatten_dict(like, sep="/").items()}


# Layers of scanned models: `layers/...` holds `layer0/...`, `layer1/...`, stacked.


def _scanned_layers(shapes: Mapping[str, Shape], expected: Mapping[str, Shape]) -> dict[str, list[str]]:
    """Path of what a Model scans -> those of its layers in the checkpoint, where they can be stacked."""
    found = {}
    for path, shape in expected.items():
        layers = [path.replace("/layers/", f"/layer{index}/") for index in range(shape[0] if shape else 0)]
        alike = len({shapes.get(layer) for layer in layers}) == 1
        if "/layers/" in path and alike and layers[0] in shapes:
            found[path] = layers
    return found


def _unstacked(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    found = {}
    for path, array in arrays.items():
        if "/layers/" in path:
            found |= {path.replace("/layers/", f"/layer{index}/"): value for index, value in enumerate(array)}
        else:
            found[path] = array
    return found


def _scanned(paths: Iterable[str]) -> set[str]:
    return {scanned for path in paths for scanned in (path, re.sub(r"/layer\d+/", "/layers/", path))}


# What may be adapted to the Model's size: whether it can, by shapes alone, and how.


def _grids_fit(shape: Shape, wanted: Shape, first_layer: str) -> bool:
    """Whether position embeddings [GH, GW, D] are of as many dimensions, and of the same D."""
    del first_layer
    return len(wanted) == len(shape) and wanted[-1] == shape[-1]


def _resized_grid(grid: np.ndarray, wanted: Shape, first_layer: str, antialias: bool) -> np.ndarray:
    """Position embeddings for another grid, as PyTorch's bicubic `interpolate` has them, antialiased or not.

    Antialiased, PyTorch has Keys' own kernel (a = -0.5), larger grids included; without, a = -0.75.
    """
    del first_layer
    method = jax.image.ResizeMethod.CUBIC if antialias else jax.image.ResizeMethod.CUBIC_PYTORCH
    return np.asarray(jax.image.resize(grid, wanted, method, antialias=antialias))


def _channels_fit(shape: Shape, wanted: Shape, first_layer: str) -> bool:
    """Whether first layers [H, W, C, D] differ in C only. Raises UserError if `first_layer` does not say how."""
    if shape[:2] != wanted[:2] or shape[3:] != wanted[3:]:
        return False
    if first_layer not in FIRST_LAYERS:
        raise UserError(
            f"the checkpoint's first layer takes {shape[2]} channels, the inputs have {wanted[2]}: set the encoder's "
            f"first_layer to {' or '.join(FIRST_LAYERS)}"
        )
    return True


def _other_channels(kernel: np.ndarray, wanted: Shape, first_layer: str) -> np.ndarray:
    """A first layer for another number of channels; see `Converted.fit`."""
    scale = np.float32(kernel.shape[2] / wanted[2])
    if first_layer == "average":
        kernel = kernel.mean(axis=2, keepdims=True)
    return kernel.take(np.arange(wanted[2]) % kernel.shape[2], axis=2) * scale


FITS = {
    "positions": (_grids_fit, functools.partial(_resized_grid, antialias=False)),
    "antialiased_positions": (_grids_fit, functools.partial(_resized_grid, antialias=True)),
    "channels": (_channels_fit, _other_channels),
}
