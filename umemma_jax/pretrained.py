"""Converted checkpoints in the form of a Model: layers stacked for `scan`, positions resized, channels adapted."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np

from umemma_jax import __version__, convert, weights
from umemma_jax.errors import UserError

PyTree = Any

FIRST_LAYERS = ("average", "tile")


class Converted:
    """A converted folder.

    Attributes:
      folder: where it is.
      card: its model card.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        """Raises UserError if it is not one of this version."""
        self.folder = Path(folder)
        self.card = convert.read_card(self.folder)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Our parameters and statistics in the checkpoint's sizes, float32, by path from the collection on."""
        parameters = convert.open_parameters(self.folder)
        return {name: parameters.read(name) for name in parameters.shapes if not name.startswith(convert.CARRIED)}

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
        expected = {path: tuple(x.shape) for path, x in flax.traverse_util.flatten_dict(like, sep="/").items()}
        arrays = _stacked(self.arrays, expected)
        for path in arrays.keys() & self.card.fit.keys() & expected.keys():
            if arrays[path].shape != expected[path]:
                fit = FITS[self.card.fit[path]]
                arrays[path] = fit(arrays[path], expected[path], first_layer)
        missing = [f"{path} {shape}" for path, shape in expected.items() if path not in arrays]
        extra = [path for path in arrays.keys() - expected.keys() if path not in _scanned(self.card.optional)]
        unused = [f"{path} {arrays[path].shape}" for path in sorted(extra)]
        other = [
            f"{path} {arrays[path].shape} instead of {shape}"
            for path, shape in expected.items()
            if path in arrays and arrays[path].shape != shape
        ]
        if missing or unused or other:
            raise UserError(
                f"{self.folder}: this checkpoint does not fit the encoder: {convert.lists(missing, unused, other)}: "
                "give the encoder the checkpoint's own sizes (leave them out of the config)"
            )
        fitted = {path: arrays[path] for path in expected}
        return flax.traverse_util.unflatten_dict(fitted, sep="/")

    def export(self, path: str | os.PathLike, variables: Mapping[str, PyTree]) -> None:
        """Writes variables of a Model, trained from this checkpoint, under the original names; see `convert.export`."""
        arrays = flax.traverse_util.flatten_dict(variables, sep="/")
        convert.export(self.folder, Path(path), _unstacked(arrays))


def obtain(family: str, path: str | os.PathLike, given: Mapping[str, Any], cache: Path | None = None) -> Converted:
    """The converted checkpoint of a path: itself if it is converted, else converted into the cache, once.

    Args:
      family: encoder module.
      path: converted folder, or what `weights.open_weights` takes.
      given: fields of the Model that the user gives; used where neither the shapes nor config.json decide.
      cache: folder; None for `umemma_jax` in the user's cache folder.
    """
    path = Path(path)
    if (path / convert.CARD).exists():
        converted = Converted(path)
        if converted.card.family != family:
            raise UserError(f"{path}: is of family {converted.card.family}, not {family}")
        return converted
    if cache is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "umemma_jax"
    opened = weights.open_weights(path)
    given = {name: given[name] for name in convert.undecided(family, opened) if name in given}
    target = cache / f"{family.replace('.', '_')}-{_key(family, opened, given)}"
    if not (target / convert.CARD).exists():
        try:
            convert.convert(family, path, target, given)
        except UserError:
            if not (target / convert.CARD).exists():  # else another process has been quicker
                raise
    return Converted(target)


def _key(family: str, opened: weights.Weights, given: Mapping[str, Any]) -> str:
    """Hexadecimal digits that stand for all that a conversion reads, and for what does it."""
    digests = opened.sha256()
    for file in convert.beside(opened, (convert.PREPROCESSOR, *convert.TOKENIZER_FILES)):
        digests[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    parts = [convert.VERSION, __version__, family, sorted(given.items()), sorted(digests.items())]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


# Layers of scanned models: `layers/...` holds `layer0/...`, `layer1/...`, stacked.


def _stacked(arrays: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    arrays = dict(arrays)
    for path, shape in expected.items():
        parts = [re.sub(r"/layers/", f"/layer{index}/", path) for index in range(shape[0] if shape else 0)]
        if "/layers/" in path and all(part in arrays for part in parts):
            arrays[path] = np.stack([arrays.pop(part) for part in parts])
    return arrays


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


# What may be adapted to the Model's size.


def _fit_positions(grid: np.ndarray, shape: tuple[int, ...], first_layer: str) -> np.ndarray:
    """Position embeddings [GH, GW, D] for another grid, as PyTorch's bicubic `interpolate` has them."""
    del first_layer
    if len(shape) != grid.ndim or shape[-1] != grid.shape[-1]:
        return grid
    return np.asarray(jax.image.resize(grid, shape, jax.image.ResizeMethod.CUBIC_PYTORCH, antialias=False))


def _fit_channels(kernel: np.ndarray, shape: tuple[int, ...], first_layer: str) -> np.ndarray:
    """A first layer [H, W, C, D] for another number of channels C; see `Converted.fit`."""
    if kernel.shape[:2] != shape[:2] or kernel.shape[3:] != shape[3:]:
        return kernel
    channels, wanted = kernel.shape[2], shape[2]
    if first_layer not in FIRST_LAYERS:
        raise UserError(
            f"the checkpoint's first layer takes {channels} channels, the inputs have {wanted}: set the encoder's "
            f"first_layer to {' or '.join(FIRST_LAYERS)}"
        )
    if first_layer == "average":
        kernel = kernel.mean(axis=2, keepdims=True)
    return kernel.take(np.arange(wanted) % kernel.shape[2], axis=2) * np.float32(channels / wanted)


FITS = {"positions": _fit_positions, "channels": _fit_channels}
