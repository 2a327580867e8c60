"""Names of splits, and split files: JSON objects that list the examples of each split."""

from collections.abc import Collection, Sequence
from pathlib import Path

from umemma_jax.data_prep.build import json_text
from umemma_jax.errors import UserError

SPLITS = ("train", "val", "test")  # of a prepared dataset
SPLIT_NAMES = {  # elsewhere -> in a prepared dataset
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


def read_split_file(path: Path, known: Sequence[str], required: Collection[str]) -> dict[str, list[str]]:
    """Reads {"train": [id, ...], ...}.

    Args:
      path: the file.
      known: names that splits may have.
      required: those that must be there.

    Returns:
      Split -> ids, in the order of `known`.

    Raises:
      UserError: the file cannot be read, is no such JSON, has unknown splits, lacks some, or lists an id twice.
    """
    try:
        content = json_text.parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}): bring a file {{split: [id, ...]}}") from error
    if not isinstance(content, dict) or not all(_is_list_of_str(ids) for ids in content.values()):
        raise UserError(f"{path}: not a JSON object {{split: [id, ...]}}: bring another file")
    for name in content:
        if name not in known:
            raise UserError(f"{path}: unknown split {name!r}: rename it to one of {', '.join(known)}")
    for name in required:
        if not content.get(name):
            raise UserError(f"{path}: no examples for {name!r}: bring a file with all of {', '.join(required)}")
    places: dict[str, str] = {}
    for name, ids in content.items():
        for id in ids:
            if id in places:
                raise UserError(f"{path}: {id!r} is listed in {places[id]!r} and in {name!r}: leave it in one")
            places[id] = name
    return {name: content[name] for name in known if name in content}


def _is_list_of_str(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
