"""What a model takes from a request: its fields by name, and rows of them as the model reads them.

A file is never named: what stands for one is its content. So nothing that a request says can be read from the server's
disk.
"""

import base64
import binascii
import difflib
import math
from collections.abc import Mapping
from typing import Any

from umemma_jax.data_prep.raw.media import DATA_URL
from umemma_jax.errors import UserError
from umemma_jax.predictor import Predictor
from umemma_jax.serving.limits import CHECKS, Limits

Described = dict[str, Any]


class Fields:
    """The fields of a model's requests: the columns of the table that it was trained on.

    Attributes:
      inputs: what people and programs have to know of each modality, in a form for JSON.
    """

    def __init__(self, model: Predictor, limits: Limits) -> None:
        self._limits = limits
        self._kinds: dict[str, str] = {}  # of modalities, by column
        self.inputs = []
        for m in model.modalities:
            modality = model.info.modalities[m]
            self._kinds |= dict.fromkeys(model.columns[m], modality.kind)
            self.inputs.append(
                {
                    "name": m,
                    "kind": modality.kind,
                    "required": m in model.required,
                    "fields": [_described(column, modality.levels or {}) for column in model.columns[m]],
                }
            )

    def row(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """A row for `Predictor.examples`, from values of a request, of which those that are None or empty are missing.

        Args:
          given: by field: texts, numbers and truth values as they are; of a file its bytes, or base64 of them, as a
            data: URL too; of a video also a list of pictures.

        Raises:
          UserError: an unknown field, or a value that is none of it or exceeds a limit.
        """
        row = dict.fromkeys(self._kinds)
        for column, value in given.items():
            if column not in self._kinds:
                close = difflib.get_close_matches(column, self._kinds, 1)
                hint = f", is {close[0]!r} meant?" if close else ""
                raise UserError(f"no field {column[:100]!r}{hint} There are {', '.join(map(repr, self._kinds))}")
            if value is None or value == "" or value == b"" or value == []:
                continue
            try:
                row[column] = self._value(self._kinds[column], value)
            except UserError as error:
                raise UserError(f"{column!r}: {error}") from error
        return row

    def _value(self, kind: str, value: Any) -> Any:
        if kind not in CHECKS:
            return self._plain(value)
        if kind == "video" and isinstance(value, list):
            return [self._file(kind, item) for item in value]
        return self._file(kind, value)

    def _plain(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._plain(item) for item in value]
        if isinstance(value, bytes):
            raise UserError("is a file: give a text or a number")
        if not isinstance(value, str | int | float):
            raise UserError(f"is {type(value).__name__}: give a text or a number")
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError("is no finite number")
        if isinstance(value, int) and abs(value) >= 1 << 63:
            raise UserError("is too large a number")
        if isinstance(value, str) and len(value) > self._limits.characters:
            raise UserError(f"{len(value)} characters, more than {self._limits.characters}")
        return value

    def _file(self, kind: str, value: Any) -> bytes:
        """Always bytes, so that no text is ever taken for a path."""
        data = value if isinstance(value, bytes) else _decoded(value)
        CHECKS[kind](data, self._limits)
        return data


def _decoded(value: Any) -> bytes:
    if not isinstance(value, str):
        raise UserError(f"is {type(value).__name__}: give a file in base64, or send a form with the file")
    url = DATA_URL.match(value)
    try:
        return base64.b64decode(value[url.end() if url else 0 :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise UserError(
            "is no base64: give the content of a file, not its name, or send a form with the file"
        ) from error


def _described(column: str, levels: Mapping[str, Mapping[str, int]]) -> Described:
    return {"name": column, "levels": list(levels[column]) if column in levels else None}
