"""What a converted folder holds, and its model card: how the parameters came to be, and what an export needs."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from umemma_jax import checksums
from umemma_jax.errors import UserError
from umemma_jax.weights import files
from umemma_jax.weights.files import Weights

VERSION = 2  # of the converted folder; another one is not read
CARD = "model.json"
PARAMETERS = "parameters.safetensors"
CARRIED = "carried/"  # before the names of tensors that only an export needs


@dataclasses.dataclass(frozen=True)
class Card:
    """What a converted folder says of itself.

    Attributes:
      version: of the folder's form.
      family: encoder module.
      format: name of the `Format` that its tables were.
      fields: of the Model, as the checkpoint has them.
      besides: what its tables take besides these, such as the grid of its patches.
      parameters: how many numbers the encoder learns.
      sha256: of the source's files.
      prefix: before the encoder's tensors in the source, back on export.
      config: the source's config.json.
      shapes: of the encoder's tensors in the source.
      inputs: fields of the preprocessing that the encoder was trained with, see `preprocessing.stated`; {} unknown.
      optional: our parameters that some options of the Model leave out.
      fit: our parameters whose size may be adapted -> how.
      carried: tensors that only an export needs.
      ignored: tensors that were left out.
      libraries: versions that converted it.
    """

    version: int
    family: str
    format: str
    fields: dict[str, Any]
    besides: dict[str, Any]
    parameters: int
    sha256: dict[str, str]
    prefix: str
    config: dict[str, Any]
    shapes: dict[str, list[int]]
    inputs: dict[str, Any]
    optional: list[str]
    fit: dict[str, str]
    carried: list[str]
    ignored: list[str]
    libraries: dict[str, str]

    def line(self) -> str:
        """The card in one line, without the source's long listings."""
        shown = dataclasses.asdict(self)
        for name in ("config", "shapes", "optional", "fit"):
            del shown[name]
        return json.dumps(shown)


def read_card(folder: Path) -> Card:
    """The card of a converted folder. Raises UserError if it is not one of this version, or any file is damaged."""
    try:
        contents = json.loads((folder / CARD).read_text(encoding="utf-8"))
        version = contents["version"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"{folder / CARD}: cannot be read ({error}): convert the checkpoint again") from error
    if version != VERSION:
        raise UserError(f"{folder}: is of version {version}, not {VERSION}: convert the checkpoint again")
    if found := checksums.damaged(folder):
        raise UserError(f"{folder}: {found}: convert the checkpoint again")
    try:
        return Card(**contents)
    except TypeError as error:
        raise UserError(f"{folder / CARD}: cannot be read ({error}): convert the checkpoint again") from error


def write_card(card: Card, folder: Path) -> None:
    """Writes the card into a folder, for `read_card`."""
    (folder / CARD).write_text(json.dumps(dataclasses.asdict(card)) + "\n", encoding="utf-8")


def open_parameters(folder: Path) -> Weights:
    """The tensors of a converted folder: ours by path from the collection on, and those that are carried."""
    return files.open_weights(folder / PARAMETERS)
