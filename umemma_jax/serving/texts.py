"""Texts as what an exported model takes of them, by the tokenizer that is in its file."""

import functools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from umemma_jax.data.ngrams import NGRAMS, NGrams
from umemma_jax.errors import UserError


class Texts:
    """The tokenizer of one modality: n-grams need no package, others need `tokenizers`, when first used."""

    def __init__(self, name: str, described: Mapping[str, Any], length: int, files: Mapping[str, bytes]) -> None:
        """Takes the modality, its `tokenizer` and the last of `lengths` in `model.json`, and all parts."""
        self._name, self._described, self._length = name, described, length
        folder = described.get("file", "").rpartition("/")[0]
        self._files = {path: content for path, content in files.items() if folder and path.startswith(f"{folder}/")}

    def encode(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """N texts as arrays by name; what is longer than the model takes is cut.

        Raises:
          UserError: one is no text, or the package is not installed.
        """
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                raise UserError(f"{self._name}: row {number} is {type(text).__name__} instead of a text")
        return self._tokenizer.encode(texts, self._length)

    @functools.cached_property
    def _tokenizer(self) -> Any:
        if self._described["kind"] == NGRAMS:
            return NGrams(self._described["vocabulary"])
        try:
            from umemma_jax.data.tokenizer import load_tokenizer
        except ModuleNotFoundError as error:
            raise UserError(
                f"{self._name}: texts need the package {error.name}: install it, or give token ids and lengths"
            ) from error
        with tempfile.TemporaryDirectory() as folder:
            for path, content in self._files.items():
                (Path(folder) / Path(path).name).write_bytes(content)
            return load_tokenizer(Path(folder) / Path(self._described["file"]).name)
