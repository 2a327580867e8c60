"""What `dataset.json` says, as dataclasses and as JSON."""

import dataclasses
import numbers
from dataclasses import dataclass, field
from typing import Any

from umemma_jax.data import kinds
from umemma_jax.data.kinds import Modality

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Shard:
    """One TFRecord file: name within the folder, number of examples, length in bytes."""

    file: str
    examples: int
    bytes: int


@dataclass(frozen=True)
class Split:
    """One split.

    Attributes:
      examples: how many there are.
      shards: where they are, in order.
      present: examples in which each modality is present.
      classes: examples of each class, in the order of `Info.classes`.
    """

    examples: int
    shards: tuple[Shard, ...]
    present: dict[str, int]
    classes: tuple[int, ...]


@dataclass(frozen=True)
class Info:
    """What `dataset.json` says.

    Attributes:
      name: of the dataset.
      description: one or two sentences.
      classes: names of the K classes; labels are indices into it. Without classes the examples have no labels.
      multi_label: whether an example can have any number of classes, or exactly one; False without classes.
      modalities: what each modality is.
      splits: by name.
      source: where the data come from: command line, seeds, counts.
    """

    name: str
    description: str
    classes: tuple[str, ...]
    multi_label: bool
    modalities: dict[str, Modality]
    splits: dict[str, Split] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)


class OtherVersionError(ValueError):
    """`dataset.json` is of another format version."""


def to_json(info: Info) -> dict[str, Any]:
    """The content of `dataset.json`. Fields of modalities that are None are left out."""
    data = {"format_version": FORMAT_VERSION, **dataclasses.asdict(info)}
    data["modalities"] = {
        name: {key: value for key, value in record.items() if value is not None}
        for name, record in data["modalities"].items()
    }
    return data


def from_json(data: Any) -> Info:
    """Back from the content of `dataset.json`.

    Raises:
      OtherVersionError: the format version is not `FORMAT_VERSION`.
      ValueError: a field is missing, of the wrong type, or contradicts another.
    """
    if not isinstance(data, dict):
        raise ValueError("not a JSON object")
    if data.get("format_version") != FORMAT_VERSION:
        raise OtherVersionError(f"format_version {data.get('format_version')} instead of {FORMAT_VERSION}")
    source = _get(data, "source", dict)
    modalities = _named(_records(data, "modalities", _modality), source)
    classes = _get(data, "classes", list, str)
    multi_label = _get(data, "multi_label", bool)
    if multi_label and not classes:
        raise ValueError("multi_label, but there are no classes")
    splits = _records(data, "splits", _split)
    for name, split in splits.items():
        if len(split.classes) != len(classes) or split.present.keys() != modalities.keys():
            raise ValueError(f"splits.{name}: counts of other classes or modalities than there are")
    return Info(
        name=_get(data, "name", str),
        description=_get(data, "description", str),
        classes=classes,
        multi_label=multi_label,
        modalities=modalities,
        splits=splits,
        source=source,
    )


def _modality(record: dict[str, Any]) -> Modality:
    optional = {
        name: _get(record, name, *types)
        for name, types in (
            ("shape", (list, int)),
            ("sample_rate", (int,)),
            ("max_samples", (int,)),
            ("frame_rate", (numbers.Real,)),
            ("max_frames", (int,)),
            ("mean", (list, (int, float))),
            ("std", (list, (int, float))),
            ("framing", (str,)),
            ("columns", (list, str)),
            ("missing", (list, int)),
        )
        if name in record
    }
    modality = Modality(_get(record, "kind", str), _get(record, "encoding", str), **optional)
    kinds.codec(modality)  # raises ValueError where the kind is unknown or lacks something
    return modality


def _named(modalities: dict[str, Modality], source: dict[str, Any]) -> dict[str, Modality]:
    """The modalities with the names of their columns, which older datasets have only in the command that made them."""
    given = source.get("modalities")
    columns = {}
    for record in given if isinstance(given, list) else ():
        if isinstance(record, dict) and isinstance(record.get("columns"), list):
            columns[record.get("name")] = tuple(record["columns"])
    named = {}
    for name, modality in modalities.items():
        lacks = modality.kind == "tabular" and modality.columns is None
        fit = lacks and modality.shape == (len(columns.get(name, ())),)
        named[name] = dataclasses.replace(modality, columns=columns[name]) if fit else modality
    return named


def _split(record: dict[str, Any]) -> Split:
    shards = tuple(
        Shard(_get(shard, "file", str), _get(shard, "examples", int), _get(shard, "bytes", int))
        for shard in _get(record, "shards", list, dict)
    )
    examples = _get(record, "examples", int)
    if not shards or sum(shard.examples for shard in shards) != examples:
        raise ValueError(f"{examples} examples, but the shards have another number")
    present = _get(record, "present", dict)
    return Split(
        examples,
        shards,
        {name: _get(present, name, int) for name in present},
        _get(record, "classes", list, int),
    )


def _records(data: dict[str, Any], name: str, make: Any) -> dict[str, Any]:
    """A field that maps names to objects, each turned into what `make` makes of it."""
    made = {}
    for key, record in _get(data, name, dict).items():
        if not isinstance(record, dict):
            raise ValueError(f"{name}.{key}: not an object")
        try:
            made[key] = make(record)
        except ValueError as error:
            raise ValueError(f"{name}.{key}: {error}") from error
    if not made:
        raise ValueError(f"field {name!r} is empty")
    return made


def _get(data: dict[str, Any], name: str, kind: type, element: Any = None) -> Any:
    """A field of the given type; a list becomes a tuple, whose elements are checked too."""
    if name not in data:
        raise ValueError(f"field {name!r} is missing")
    value = data[name]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"field {name!r} is {value!r} instead of {kind.__name__}")
    if kind is not list:
        return value
    if not all(isinstance(x, element) for x in value):
        raise ValueError(f"field {name!r} holds elements of a wrong type")
    return tuple(value)
