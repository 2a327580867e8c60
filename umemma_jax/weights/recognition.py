"""Of which format a checkpoint is, and what it says of the Model's fields, before any tensor is read."""

import contextlib
import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from umemma_jax import encoders
from umemma_jax.encoders.foreign import OWN, Default, Format, Source, is_own
from umemma_jax.errors import UserError
from umemma_jax.model import encoder_module
from umemma_jax.weights import preprocessing
from umemma_jax.weights.files import Weights

SHOWN = 6  # tensors of each list in an error message


def formats(family: str) -> tuple[Format, ...]:
    """The tables of an encoder module. Raises UserError if it has none."""
    tables = getattr(encoder_module(family), "FORMATS", ())
    if not tables:
        raise UserError(f"encoder '{family}' exports no FORMATS: no checkpoint can be converted for it")
    return tables


def families() -> Iterator[str]:
    """The encoder modules of this package that have tables."""
    for module in pkgutil.iter_modules(encoders.__path__):
        if hasattr(importlib.import_module(f"{encoders.__name__}.{module.name}"), "FORMATS"):
            yield module.name


def recognise(family: str, opened: Weights) -> tuple[Format, str, str]:
    """The format of a checkpoint, the prefix that all its tensors share, and that of the encoder's after it."""
    tables, where = formats(family), opened.files[0]
    found = _matches_of(tables, opened)
    for match in found:
        if not match[0].objection(opened.config):
            return match
    if found:
        table = found[0][0]
        known = [*table.model_types, *([table.timm] if table.timm else [])]
        raise UserError(
            f"{where}: the tensors' names are those of {table.name}, but its config.json says "
            f"{table.objection(opened.config)}, which may compute something else (known: {', '.join(known)}): "
            "name another checkpoint, or put its own config.json beside it"
        )
    others = [name for name in families() if name != family and _matches_of(formats(name), opened)]
    if others:
        raise UserError(f"{where}: is no checkpoint of family {family}, it looks like {' or '.join(others)}")
    known = ", ".join(table.name for table in tables)
    kind = f"; its config.json says model_type {opened.config['model_type']}" if "model_type" in opened.config else ""
    raise UserError(
        f"{where}: is no checkpoint of family {family} ({known}); its tensors are {_some(sorted(opened.shapes))}{kind}"
    )


def family_of(opened: Weights, among: Sequence[str]) -> str:
    """Of which of these encoder modules a checkpoint is. Raises UserError if of none."""
    for family in among:
        if any(not table.objection(opened.config) for table, _, _ in _matches_of(formats(family), opened)):
            return family
    raise UserError(f"{opened.files[0]}: is no checkpoint of {' or '.join(among)}: name another one")


def _matches_of(tables: Sequence[Format], opened: Weights) -> list[tuple[Format, str, str]]:
    """The formats whose markers a checkpoint has, as `recognise` gives them."""
    found = []
    for table in tables:
        marker = table.markers[0]
        prefixes = [name[: -len(marker)] for name in opened.shapes if f".{name}".endswith(f".{marker}")]
        for prefix in sorted(prefixes, key=len):
            if all(f"{prefix}{name}" in opened.shapes for name in table.markers):
                wrapper = _shared(prefix, opened.shapes)
                found.append((table, wrapper, prefix.removeprefix(wrapper)))
                break
    return found


def source_of(table: Format, shapes: Mapping[str, Any], opened: Weights) -> Source:
    """What is known of a checkpoint.

    A config.json that does not say what it is of counts for nothing, if it could say so in this format.
    """
    own = is_own(opened.config) or not (table.model_types or table.timm)
    config, folder = opened.config if own else {}, opened.folder
    return Source(shapes, config, preprocessing.pooling(folder), preprocessing.unit_length(folder))


def _shared(prefix: str, names: Iterable[str]) -> str:
    """The longest dotted start of `prefix` that all names have: that of DataParallel and the like."""
    parts = prefix.split(".")[:-1]
    starts = [".".join([*parts[:size], ""]) if size else "" for size in range(len(parts), -1, -1)]
    return next(start for start in starts if all(name.startswith(start) for name in names))


def undecided(family: str, opened: Weights, given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the given fields that the checkpoint leaves to the user.

    Raises:
      UserError: one that it does decide is given otherwise.
    """
    table, wrapper, prefix = recognise(family, opened)
    start = f"{wrapper}{prefix}"
    shapes = {name.removeprefix(start): shape for name, shape in opened.shapes.items() if name.startswith(start)}
    where = opened.files[0]
    fields = _fields(table, source_of(table, shapes, opened), where)
    _check_given(table, fields, given, where)
    return {name: given[name] for name, value in fields.items() if name in given and _is_open(value)}


def _is_open(value: Any) -> bool:
    return value is None or isinstance(value, Default)


def _fields(table: Format, described: Source, where: Any) -> dict[str, Any]:
    with reading(where):
        return table.fields(described)


def _check_given(table: Format, fields: Mapping[str, Any], given: Mapping[str, Any], where: Any) -> None:
    """Raises UserError for a given field that a checkpoint decides otherwise, and that is no choice."""
    for name, value in fields.items():
        if name not in given or name in table.choices or _is_open(value):
            continue
        mine = tuple(given[name]) if isinstance(given[name], list) else given[name]
        if mine != value:
            raise UserError(
                f"{where}: {name} = {mine!r:.80} was given, and the checkpoint has {value!r:.80}: leave it out"
            )


def decided(
    table: Format, described: Source, given: Mapping[str, Any], where: Any, config: Mapping[str, Any]
) -> dict[str, Any]:
    """The Model's fields; the user's where the checkpoint does not decide."""
    fields = _fields(table, described, where)
    _check_given(table, fields, given, where)
    fields = {name: given.get(name, value) if _is_open(value) else value for name, value in fields.items()}
    fields = {name: value.value if isinstance(value, Default) else value for name, value in fields.items()}
    names = ", ".join(name for name, value in fields.items() if value is None)
    if names:
        reason = "its config.json does not say" if described.config else "there is no config.json beside it"
        if config and not described.config:
            reason = f"the config.json beside it does not say of what it is (no {' or '.join(OWN)})"
        raise UserError(
            f"{where}: {names} cannot be read from the tensors' shapes, and {reason}: give the encoder's {names}"
        )
    return fields


@contextlib.contextmanager
def reading(where: Any) -> Iterator[None]:
    """Names the checkpoint in what a table raises."""
    try:
        yield
    except KeyError as error:
        raise UserError(f"{where}: {error} is missing in its config.json or among its tensors") from error
    except (IndexError, ValueError, TypeError) as error:
        raise UserError(f"{where}: its tensors' shapes or its config.json are of another kind ({error})") from error
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def lists(missing: Sequence[str], unused: Sequence[str], other: Sequence[str]) -> str:
    """What is wrong with the tensors of a checkpoint, in one line."""
    kinds = {"missing": missing, "not used": unused, "of another shape": other}
    return "; ".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in kinds.items() if names)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(name if len(name) <= 120 else f"{name[:120]}..." for name in names[:SHOWN]) + more
