"""Runs an exported model with JAX and NumPy alone: no Flax, no recipe, no dataset."""

import io
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from umemma_jax.data import npz
from umemma_jax.errors import UserError
from umemma_jax.serving import model_file, signature
from umemma_jax.serving.inputs import Arrays, Input
from umemma_jax.serving.texts import Texts

MOST_ROWS = 256  # that one call computes


def load(path: str | os.PathLike) -> "ExportedModel":
    """A model that `Predictor.export` or `--mode=export --format=stablehlo` has written.

    Raises:
      UserError: there is none, it is damaged or of another format version, or this version of JAX cannot take it.
    """
    description, parts = model_file.read(path)
    try:
        return ExportedModel(description, parts)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(
            f"{path}: JAX {jax.__version__} cannot take this model, which JAX {description.get('jax')} has made "
            f"({reason:.200}): use that version"
        ) from error


class ExportedModel:
    """A trained model: answers for rows that lack any of their inputs.

    Attributes:
      description: the content of `model.json`.
      inputs: by modality, M of them.
      classes: K names; () where numbers are predicted.
      targets: T names; () where classes are predicted.
      quality: the report's headline metric by missing pattern.
    """

    def __init__(self, description: Mapping[str, Any], parts: Mapping[str, bytes]) -> None:
        """Takes what `model_file.read` gives. Raises an Exception where that is no model."""
        self.description = description
        self.inputs = {m: Input(m, x) for m, x in description["inputs"].items()}
        self._texts = {
            m: Texts(m, x["tokenizer"], x["lengths"][-1], parts)
            for m, x in description["inputs"].items()
            if "tokenizer" in x
        }
        self.classes, self.targets = tuple(description["classes"]), tuple(description["targets"])
        self.quality = dict(description["quality"])
        weights = npz.decode(io.BytesIO(parts[model_file.WEIGHTS]))
        exported = signature.exported(description, parts[model_file.PROGRAM], weights)
        exported.mlir_module()  # raises RuntimeError where this version of JAX does not know all of it
        self._weights, self._run = jax.device_put(weights), jax.jit(exported.call)

    def predict(self, inputs: Mapping[str, Any], present: np.ndarray | None = None) -> Arrays:
        """What the model says of N rows.

        A program is compiled for each power of two of rows, which are filled up to it, and each length of an input that
        comes in several.

        Args:
          inputs: by modality the arrays that `description["inputs"]` states; None, or not there, where no row has any.
            Of what is several arrays a mapping of them, as {"tokens": int32 [N, T], "length": int32 [N]}; instead of
            tokens also a list of N texts, for which n-grams need no package and other tokenizers need `tokenizers`.
          present: which rows have which of the modalities, bool [N, M]; None: what is given is there in all rows. What
            is given for a row that lacks it is not looked at.

        Returns:
          Of classes `logits` and calibrated `probabilities`, float32 [N, K], which classes are `predicted`, bool
          [N, K], and conformal `sets` of them, likewise, where there is a calibration. Of targets `values` and
          `sigmas`, float32 [N, T], and `low` and `high`, the ends of conformal intervals, where there is a calibration.
          NaN and False for a row without any input.

        Raises:
          UserError: an unknown modality, a wrong dtype or shape, too long a value, or a row without what is required.
        """
        arrays = self._checked(inputs)
        present = self._present(arrays, present)
        parts = list(self._parts(arrays, present))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _checked(self, inputs: Mapping[str, Any]) -> dict[str, Arrays]:
        for m in inputs:
            if m not in self.inputs:
                raise UserError(f"{m!r:.100}: no input of this model, which are {', '.join(self.inputs)}")
        given = {m: x for m, x in inputs.items() if x is not None}
        for m in given.keys() & self._texts.keys():
            if isinstance(given[m], list | tuple):
                given[m] = self._texts[m].encode(given[m])
        arrays = {m: self.inputs[m].checked(x) for m, x in given.items()}
        rows = {m: len(next(iter(x.values()))) for m, x in arrays.items()}
        if len(set(rows.values())) > 1:
            raise UserError(f"inputs are not of the same number of rows: {rows}")
        if not rows or 0 in rows.values():
            raise UserError(f"no row has any input: give some of {', '.join(self.inputs)}")
        return arrays

    def _present(self, arrays: Mapping[str, Arrays], present: np.ndarray | None) -> np.ndarray:
        """The presence mask, bool [N, M], in which no row lacks what is required."""
        rows = len(next(iter(next(iter(arrays.values())).values())))
        given = np.tile([m in arrays for m in self.inputs], (rows, 1))
        if present is not None:
            present = np.asarray(present)
            if present.dtype != bool or present.shape != given.shape:
                raise UserError(f"present: {present.dtype}{list(present.shape)} instead of bool{list(given.shape)}")
            given &= present
        for has, (m, x) in zip(given.T, self.inputs.items(), strict=True):
            if x.required and not has.all():
                raise UserError(f"row {np.argmin(has)}: lacks {m!r}, which this model requires: give it")
        return given

    def _parts(self, arrays: Mapping[str, Arrays], present: np.ndarray) -> Iterator[Arrays]:
        """What the program says, some rows at a time."""
        for start in range(0, len(present), MOST_ROWS):
            some = slice(start, start + MOST_ROWS)
            mask = present[some]
            rows = 1 << (len(mask) - 1).bit_length()
            fitted = {}
            for has, (m, x) in zip(mask.T, self.inputs.items(), strict=True):
                kept = {name: array[some] for name, array in arrays[m].items()} if has.any() else None
                fitted[m] = x.fitted(kept, has, rows)
            filled = np.concatenate([mask, np.zeros((rows - len(mask), mask.shape[1]), bool)])
            said = jax.device_get(self._run(self._weights, fitted, filled))
            yield {name: x[: len(mask)] for name, x in said.items()}

    def __repr__(self) -> str:
        predicted = ", ".join(self.targets) or f"{len(self.classes)} classes"
        return f"ExportedModel({', '.join(self.inputs)} -> {predicted})"
