"""What a model takes from a request: its fields by name, and rows of them as the model reads them.

A file is never named: what stands for one is its content. So nothing that a request says can be read from the server's
disk.
"""

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from typing import Any

from umemma_jax.data_prep.build.dataframes import IN_MEMORY
from umemma_jax.data_prep.build.rows import Row, Table, meant, row_of, short
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

    def table(self, given: Sequence[Mapping[str, Any]]) -> Table:
        """Rows for `Predictor.examples`, of a request's, in which what is None or empty is missing.

        Args:
          given: of each row by field: texts, numbers and truth values as they are; of a file its bytes, or base64 of
            them, as a data: URL too; of a video also a list of pictures.

        Raises:
          UserError: an unknown field, or a value that is none of it or exceeds a limit.
        """
        rows = [self._row(values, f"row {number}") for number, values in enumerate(given)]
        return Table(IN_MEMORY, tuple(self._kinds), rows)

    def _row(self, given: Mapping[str, Any], where: str) -> Row:
        plain, files = {}, {}
        for column, value in given.items():
            if column not in self._kinds:
                known = ", ".join(map(repr, self._kinds))
                raise UserError(f"no field {short(column)}{meant(column, list(self._kinds))}: there are {known}")
            if value is None or value == "" or value == b"" or value == []:
                continue
            try:
                if self._kinds[column] in CHECKS:
                    files[column] = self._files(self._kinds[column], value)
                else:
                    plain[column] = self._plain(value)
            except UserError as error:
                raise UserError(f"{column!r}: {error}") from error
        # Files are put in as bytes and stay so: of other values, bytes that are a text would become one, and so a path.
        return Row(row_of(plain, list(plain), where).values | files, where)

    def _files(self, kind: str, value: Any) -> bytes | list[bytes]:
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
