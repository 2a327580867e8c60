"""What `dataset.json` says, as dataclasses and as JSON.

Since version 2 it is sealed by a checksum of its own and states those of all other files. Version 1 is still read.
"""

import dataclasses
import itertools
import math
import numbers
import re
import reprlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from umemma_jax import checksums
from umemma_jax.data import bounds, kinds, tfrecord
from umemma_jax.data.kinds import Modality
from umemma_jax.data.targets import Target

DATASET = "dataset.json"
STATISTICS = "statistics.npz"
# `<split>/labels` int32 [N], bool [N, K] or float32 [N, T], if there are labels; `<split>/present` bool [N, M],
# `<split>/ids` uint8, as in `Columns`: exact for any id, which the fixed width of NumPy's strings is not; and
# `<split>/checksums` uint32 [N], of the records; `<split>/weights` float32 [N], where the examples have any.
ROWS = "rows.npz"

FORMAT_VERSION = 2
_UNSEALED = 1  # the version before there were checksums

_NAME = re.compile(r"[A-Za-z0-9_]{1,100}")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,239}")  # with the ending of an index still a name of 255 letters
_CRC32C = re.compile(r"[0-9a-f]{8}")
_LONGEST_NAME = 120  # bytes of the dataset's, which becomes part of the names of files
_LARGEST_COUNT = 2**53  # of anything: beyond, no float tells neighbours apart


@dataclass(frozen=True)
class Shard:
    """One TFRecord file.

    Attributes:
      file: its name within the folder.
      examples: how many there are.
      bytes: its length.
      crc32c: of its content; this and `index_crc32c` are None in version 1.
      last_crc32c: its last four bytes, the masked CRC-32C of its last record; in version 1 those found on opening.
      index_crc32c: of its index's content.
    """

    file: str
    examples: int
    bytes: int
    crc32c: str | None = None
    last_crc32c: str | None = None
    index_crc32c: str | None = None


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
      classes: names of the K classes; labels are indices into it. With neither classes nor targets the examples have
        no labels.
      multi_label: whether an example can have any number of classes, or exactly one; False without classes.
      modalities: what each modality is.
      splits: by name.
      source: where the data come from: command line, seeds, counts.
      files: length and CRC-32C, eight hexadecimal digits, of all other files, but shards and indexes; None in version
        1.
      targets: of regression, T of them; then there are no classes, and a label is T numbers.
    """

    name: str
    description: str
    classes: tuple[str, ...]
    multi_label: bool
    modalities: dict[str, Modality]
    splits: dict[str, Split] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)
    files: dict[str, tuple[int, str]] | None = None
    targets: tuple[Target, ...] = ()

    @property
    def labelled(self) -> bool:
        """Whether the examples have labels."""
        return bool(self.classes or self.targets)

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Of a label in a batch: () of a class index, (K,) of indicators, (T,) of targets."""
        if self.targets:
            return (len(self.targets),)
        return (len(self.classes),) if self.multi_label else ()

    @property
    def label_dtype(self) -> type[np.number]:
        """Likewise."""
        return np.float32 if self.label_shape else np.int32


class OtherVersionError(ValueError):
    """`dataset.json` is of another format version."""


def to_json(info: Info) -> dict[str, Any]:
    """The content of `dataset.json`, sealed. Fields of modalities that are None are left out, and no targets."""
    data = {"format_version": FORMAT_VERSION, **dataclasses.asdict(info)}
    data["targets"] = [_known(target) for target in data["targets"]]
    if not info.targets:
        del data["targets"]
    data["modalities"] = {name: _known(record) for name, record in data["modalities"].items()}
    return checksums.seal(data)


def _known(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if value is not None}


def from_json(data: Any) -> Info:
    """Back from the content of `dataset.json`.

    Raises:
      OtherVersionError: the format version is none of those known.
      ValueError: a field is missing, unknown, of the wrong type, beyond its bounds, or contradicts another; or the
        content does not match its checksum.
    """
    if not isinstance(data, dict):
        raise ValueError("not a JSON object")
    version = data.get("format_version")
    if version not in (_UNSEALED, FORMAT_VERSION):
        raise OtherVersionError(f"format_version {reprlib.repr(version)} instead of {FORMAT_VERSION}")
    sealed = version != _UNSEALED
    if sealed and checksums.seal(data)[checksums.FIELD] != data.get(checksums.FIELD):
        raise ValueError("does not match its checksum, so it was damaged or edited")
    _check_fields(data, {"format_version", checksums.FIELD}, Info, without=() if sealed else ("files", checksums.FIELD))
    source = _get(data, "source", dict)
    modalities = _named(_records(data, "modalities", _modality), source)
    classes = _get(data, "classes", list, str)
    bounds.check("number of classes", len(classes), bounds.CLASSES)
    if len(set(classes)) < len(classes):
        raise ValueError("field 'classes' names one twice")
    multi_label = _get(data, "multi_label", bool)
    if multi_label and not classes:
        raise ValueError("multi_label, but there are no classes")
    targets = _targets(_get(data, "targets", list, dict)) if "targets" in data else ()
    if classes and targets:
        raise ValueError("there are classes and targets: labels are of either")
    splits = _records(data, "splits", lambda record: _split(record, sealed))
    for name, split in splits.items():
        if len(split.classes) != len(classes) or split.present.keys() != modalities.keys():
            raise ValueError(f"splits.{name}: counts of other classes or modalities than there are")
        if classes and not multi_label and sum(split.classes) != split.examples:
            raise ValueError(f"splits.{name}: {split.examples} examples, but the classes have another number")
    shards = [shard for split in splits.values() for shard in split.shards]
    if len({shard.file for shard in shards}) < len(shards):
        raise ValueError("field 'shards' names a file twice")
    _check_sizes(modalities, max(shard.bytes for shard in shards))
    name = _get(data, "name", str)
    check_title(name)
    return Info(
        name=name,
        description=_get(data, "description", str),
        classes=classes,
        multi_label=multi_label,
        modalities=modalities,
        splits=splits,
        source=source,
        files=_files(_get(data, "files", dict)) if sealed else None,
        targets=targets,
    )


def check_title(name: str) -> None:
    """Raises ValueError unless it can be a dataset's name, which people read and files' names are made of."""
    if not name.isprintable() or set(name) & set("/\\") or set(name) <= set(".") or len(name.encode()) > _LONGEST_NAME:
        raise ValueError(
            f"name {reprlib.repr(name)}: up to {_LONGEST_NAME} bytes of printable characters without slashes"
        )


def check_name(what: str, name: str) -> None:
    """Raises ValueError unless it can be the name of a split or a modality, which become part of files' names."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{what} {reprlib.repr(name)}: up to 100 letters, digits and underscores only")


def check_file_name(name: str) -> None:
    """Raises ValueError unless it can be the name of a file in a dataset's folder."""
    if not _FILE.fullmatch(name):
        raise ValueError(f"{reprlib.repr(name)} is no name of a file in this folder")


def _targets(records: Sequence[dict[str, Any]]) -> tuple[Target, ...]:
    targets = []
    for record in records:
        _check_fields(record, (), Target)
        known = {name: _get(record, name, numbers.Real) for name in ("mean", "std") if name in record}
        if len(known) == 1 or not all(map(math.isfinite, known.values())) or known.get("std", 1) <= 0:
            raise ValueError(f"field 'targets' holds no mean and standard deviation: {reprlib.repr(record)}")
        targets.append(Target(_get(record, "name", str), **known))
    check_targets([target.name for target in targets])
    return tuple(targets)


def check_targets(names: Sequence[str]) -> None:
    """Raises ValueError where a name stands twice, or there are too many."""
    bounds.check("number of targets", len(names), bounds.CLASSES)
    if len(set(names)) < len(names):
        raise ValueError("targets must be distinct")


def _modality(record: dict[str, Any]) -> Modality:
    _check_fields(record, (), Modality)
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
            ("quantiles", (list, list)),
            ("levels", (dict,)),
        )
        if name in record
    }
    if "quantiles" in optional:
        optional["quantiles"] = tuple(map(_ascending, optional["quantiles"]))
    if "levels" in optional:
        optional["levels"] = {name: _counts(optional["levels"], name) for name in optional["levels"]}
    for name in ("sample_rate", "frame_rate", "max_samples", "max_frames"):
        if not 0 < optional.get(name, 1) < math.inf:
            raise ValueError(f"field {name!r} is {optional[name]} instead of a number above 0")
    for name in ("sample_rate", "frame_rate"):
        bounds.check(f"field {name!r}", optional.get(name, 1), bounds.HERTZ)
    for name in ("mean", "std"):
        if not all(math.isfinite(x) and (name == "mean" or x >= 0) for x in optional.get(name, ())):
            raise ValueError(f"field {name!r} holds what is no {name}")
    modality = Modality(_get(record, "kind", str), _get(record, "encoding", str), **optional)
    codec = kinds.codec(modality)  # raises ValueError where the kind is unknown or lacks something
    for name in ("mean", "std", "columns", "missing", "quantiles"):
        if name in optional and len(optional[name]) != getattr(codec, "channels", 0):
            raise ValueError(f"field {name!r} has {len(optional[name])} values, of another number of channels")
    return modality


def _ascending(quantiles: list[Any]) -> tuple[float, ...]:
    """The field `quantiles` of one column."""
    numbers = _get({"quantiles": quantiles}, "quantiles", list, (int, float))
    if not all(map(math.isfinite, numbers)) or any(low > high for low, high in itertools.pairwise(numbers)):
        raise ValueError("field 'quantiles' holds what is not ascending")
    return numbers


def _counts(levels: dict[str, Any], column: str) -> dict[str, int]:
    """The field `levels` of one column."""
    _check_text("levels", [column, *levels[column]])
    return {level: _get(_get(levels, column, dict), level, int) for level in levels[column]}


def _named(modalities: dict[str, Modality], source: dict[str, Any]) -> dict[str, Modality]:
    """The modalities with the names of their columns, which older datasets have only in the command that made them."""
    given = source.get("modalities")
    columns = {}
    for record in given if isinstance(given, list) else ():
        if not isinstance(record, dict) or not isinstance(record.get("name"), str):
            continue
        names = record.get("columns")
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            columns[record["name"]] = tuple(names)
    named = {}
    for name, modality in modalities.items():
        lacks = modality.kind == "tabular" and modality.columns is None
        fit = lacks and modality.shape == (len(columns.get(name, ())),)
        named[name] = dataclasses.replace(modality, columns=columns[name]) if fit else modality
    return named


def _split(record: dict[str, Any], sealed: bool) -> Split:
    _check_fields(record, (), Split)
    shards = tuple(_shard(shard, sealed) for shard in _get(record, "shards", list, dict))
    examples = _get(record, "examples", int)
    if not shards or sum(shard.examples for shard in shards) != examples:
        raise ValueError(f"{examples} examples, but the shards have another number")
    present = {name: _get(record["present"], name, int) for name in _get(record, "present", dict)}
    classes = _get(record, "classes", list, int)
    if max(itertools.chain(present.values(), classes), default=0) > examples:
        raise ValueError(f"{examples} examples, but a modality or class has more")
    return Split(examples, shards, present, classes)


def _shard(record: dict[str, Any], sealed: bool) -> Shard:
    checksums = ("crc32c", "last_crc32c", "index_crc32c")
    _check_fields(record, (), Shard, without=() if sealed else checksums)
    file, examples, size = _get(record, "file", str), _get(record, "examples", int), _get(record, "bytes", int)
    check_file_name(file)
    if examples < 1 or size < examples * tfrecord.FRAME:
        raise ValueError(f"{file}: {examples} examples in {size} bytes")
    stated = {name: _get(record, name, str) for name in checksums if sealed}
    if not all(map(_CRC32C.fullmatch, stated.values())):
        raise ValueError(f"{file}: a checksum that is none")
    return Shard(file, examples, size, **stated)


def _files(record: dict[str, Any]) -> dict[str, tuple[int, str]]:
    """The field `files`."""
    for name, stated in record.items():
        check_file_name(name)
        if (
            not isinstance(stated, list)
            or list(map(type, stated)) != [int, str]
            or stated[0] < 0
            or not _CRC32C.fullmatch(stated[1])
        ):
            raise ValueError(f"files.{name}: not a length and a checksum")
    return {name: (size, crc) for name, (size, crc) in record.items()}


def _check_sizes(modalities: Mapping[str, Modality], longest_shard: int) -> None:
    """Raises ValueError if values are said to be larger than any shard, which holds one for sure."""
    for name, modality in modalities.items():
        for what in ("shape", "max_samples", "max_frames"):
            stated = getattr(modality, what)
            if stated and math.prod(stated if what == "shape" else (stated,)) > longest_shard:
                raise ValueError(
                    f"modalities.{name}: field {what!r} is {reprlib.repr(stated)}, more than the shards hold"
                )


def _check_fields(record: dict[str, Any], others: Collection[str], made: type, without: Collection[str] = ()) -> None:
    """Raises ValueError if the record has fields that neither `others` nor the dataclass `made` has."""
    known = {*others, *(field.name for field in dataclasses.fields(made))} - set(without)
    if unknown := [name for name in record if name not in known]:
        raise ValueError(f"field {reprlib.repr(unknown[0])} is unknown")


def _records(data: dict[str, Any], name: str, make: Any) -> dict[str, Any]:
    """A field that maps names to objects, each turned into what `make` makes of it."""
    made = {}
    for key, record in _get(data, name, dict).items():
        check_name(name, key)
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
    if not _fits(value, kind):
        raise ValueError(f"field {name!r} is {reprlib.repr(value)} instead of {_WORDS.get(kind, kind.__name__)}")
    _check_text(name, value if kind is list else [value])
    if kind is not list:
        return value
    if not all(_fits(x, element) for x in value):
        raise ValueError(f"field {name!r} holds elements of a wrong type")
    return tuple(value)


def _check_text(name: str, values: Sequence[Any]) -> None:
    """Raises ValueError if a string among them is no Unicode, which JSON can hold, but no file of a report."""
    try:
        "".join(value for value in values if isinstance(value, str)).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"field {name!r} holds what is no Unicode") from error


_WORDS = {int: "a whole number from 0 on", numbers.Real: "a number"}


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, kind):
        return isinstance(value, bool) and kind is bool
    return not isinstance(value, int) or (0 if kind is int else -_LARGEST_COUNT) <= value < _LARGEST_COUNT
