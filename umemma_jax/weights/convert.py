"""Foreign checkpoints to our parameters and back, strictly: one driver for the tables of every encoder module.

python -m umemma_jax.weights.convert --family=vit --from=CHECKPOINT --to=DIR
python -m umemma_jax.weights.convert --export --from=DIR --to=FILE.safetensors|DIR

A converted folder holds `parameters.safetensors`: our parameters in the checkpoint's own sizes and, under `carried/`,
what an export needs besides; `model.json`, the model card; and the files of a tokenizer.
"""

import ast
import contextlib
import dataclasses
import importlib
import json
import math
import os
import pkgutil
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np
import safetensors

import umemma_jax
from umemma_jax import checksums, command, encoders
from umemma_jax.data import tokenizer
from umemma_jax.encoders.foreign import OWN, Default, Format, Rule, Source, is_own
from umemma_jax.errors import UserError
from umemma_jax.model import checked_fields, encoder_module
from umemma_jax.weights import files, preprocessing
from umemma_jax.weights.files import Weights
from umemma_jax.weights.model_card import CARRIED, PARAMETERS, VERSION, Card, open_parameters, read_card, write_card

GRID = {"grid": tuple[int, ...]}  # what may be given besides fields of the Model: rows and columns of patches
SHOWN = 6  # tensors of each list in an error message


def convert(
    family: str, source: str | os.PathLike, target: str | os.PathLike, given: Mapping[str, Any] | None = None
) -> Card:
    """Converts a checkpoint into a folder.

    Args:
      family: encoder module.
      source: what `files.open_weights` takes. Its values are taken as they are: safetensors have no checksums, zipped
        pickles have, which are verified.
      target: the folder, which appears when all went well, with checksums of all its files.
      given: fields of the Model, and `grid`, (rows, columns) of the patches that position embeddings are for: for what
        neither the shapes nor config.json decide, and what is a choice.

    Raises:
      UserError: the checkpoint cannot be read, is of another family, has tensors that no rule names or lacks some that
        a rule needs, or values that are not finite; or a given field is unknown, or contradicts it.
    """
    opened, target = files.open_weights(source), Path(target)
    given = checked_fields(encoder_module(family).Model, given or {}, GRID, "--field")
    if os.path.exists(target) and not (target.is_dir() and not any(target.iterdir())):
        raise UserError(f"{target}: is in use, name another folder")
    plan = make_plan(family, opened, given, source)
    carried = [f"{CARRIED}{name}" for name in plan.carried]
    paths = [path for rule in plan.rules for path in rule.ours]
    with files.appearing(target) as folder:
        folder.mkdir()
        files.write_safetensors(folder / PARAMETERS, [*paths, *carried], _values(plan, opened, source))
        card = _card(family, plan, opened, open_parameters(folder).shapes)
        write_card(card, folder)
        for path in preprocessing.beside(opened.folder, tokenizer.FILES):
            shutil.copyfile(path, folder / path.name)
        checksums.write_folder(folder)
        if target.exists():
            target.rmdir()
    return card


@dataclasses.dataclass(frozen=True)
class Plan:
    """What becomes of each tensor of a checkpoint.

    Attributes:
      table: the checkpoint's format.
      source: its tensors without any prefix, and its config.json.
      fields: of the Model, and what its tables take besides.
      rules: those of the table whose tensors are there.
      prefix: of the encoder's tensors, where others have it not.
      names: tensor without the prefix that all have -> full name in the file.
      carried: of these names, those that an export needs besides the rules'.
      ignored: those that are left out.
    """

    table: Format
    source: Source
    fields: dict[str, Any]
    rules: list[Rule]
    prefix: str
    names: dict[str, str]
    carried: list[str]
    ignored: list[str]


def make_plan(family: str, opened: Weights, given: Mapping[str, Any], where: Any) -> Plan:
    """Sorts the tensors of a checkpoint, and raises UserError where any is left or missing."""
    table, wrapper, prefix = _recognise(family, opened)
    names = {name.removeprefix(wrapper): name for name in opened.shapes}
    inner = {name.removeprefix(prefix): name for name in names if name.startswith(prefix)}
    shapes = {name: opened.shapes[names[full]] for name, full in inner.items()}
    fields = _decided(table, source := _source(table, shapes, opened), given, where, opened.config)
    with _reading(where):
        rules = _present(table.rules(source, fields), source.shapes)
    used = {name for rule in rules for name in rule.theirs}
    rest = {full: name for name, full in inner.items() if name not in used}
    rest |= {name: name for name in names if not name.startswith(prefix)}
    carried = sorted(full for full, name in rest.items() if _matches(table.carried, name))
    ignored = [full for full, name in rest.items() if full not in carried and _matches(table.ignored, name)]
    unused = [f"{full} {opened.shapes[names[full]]}" for full in rest if full not in carried and full not in ignored]
    missing = sorted(used - inner.keys())
    if unused or missing:
        raise UserError(f"{where}: does not match {table.name}: {lists(missing, unused, [])}")
    _check_shapes(rules, source, table, where)
    return Plan(table, source, {**fields, **given}, rules, prefix, names, carried, ignored)


def _check_shapes(rules: Sequence[Rule], source: Source, table: Format, where: Any) -> None:
    """Raises UserError if a rule cannot take tensors of the shapes that it gets."""
    for rule in rules:
        stand_ins = [np.broadcast_to(np.float32(0), source.shapes[name]) for name in rule.theirs]
        try:
            fitting = len(rule.hook.load(stand_ins)) == len(rule.ours)
        except (ValueError, IndexError, TypeError):
            fitting = False
        if not fitting:
            found = ", ".join(f"{name} {source.shapes[name]}" for name in rule.theirs)
            raise UserError(f"{where}: does not match {table.name}: {found} is not of a shape that it can have")


def _values(plan: Plan, opened: Weights, where: Any) -> Iterator[np.ndarray]:
    """What is written: our parameters, rule by rule, then what is carried."""
    for rule in plan.rules:
        full = [plan.names[f"{plan.prefix}{name}"] for name in rule.theirs]
        yield from rule.hook.load([_float32(opened.read(name), f"{where}: tensor {name}") for name in full])
    for name in plan.carried:
        yield opened.read(plan.names[name])


def _card(family: str, plan: Plan, opened: Weights, written: Mapping[str, tuple[int, ...]]) -> Card:
    used = {name for rule in plan.rules for name in rule.theirs}
    return Card(
        version=VERSION,
        family=family,
        format=plan.table.name,
        fields={name: value for name, value in plan.fields.items() if name not in GRID},
        besides={name: value for name, value in plan.fields.items() if name in GRID},
        parameters=sum(math.prod(shape) for path, shape in written.items() if path.startswith("params/")),
        sha256=opened.sha256(),
        prefix=plan.prefix,
        config=dict(plan.source.config),
        shapes={name: list(shape) for name, shape in plan.source.shapes.items() if name in used},
        inputs=preprocessing.stated(opened.folder, plan.source.config),
        optional=[path for rule in plan.rules if rule.optional for path in rule.ours],
        fit={path: rule.fit for rule in plan.rules if rule.fit for path in rule.ours},
        carried=plan.carried,
        ignored=plan.ignored,
        libraries={module.__name__: module.__version__ for module in (umemma_jax, jax, flax, safetensors)},
    )


def export(folder: Path, path: Path, arrays: Mapping[str, np.ndarray] | None = None) -> None:
    """Writes weights under their original names, for the original PyTorch class.

    Args:
      folder: the converted one.
      path: a `.safetensors` file, or a folder for `model.safetensors` and the `config.json`.
      arrays: ours by path, trained from the folder's; None: those of the folder as they are.

    Raises:
      UserError: a size is not the original's, or the file cannot be written.
    """
    card, converted = read_card(folder), open_parameters(folder)
    if os.path.exists(path):
        raise UserError(f"{path}: is in use, name another file or folder")
    # What an option of the Model has left out stays as it was.
    kept = converted.shapes.keys() if arrays is None else set(card.optional) - arrays.keys()
    theirs = dict(_exported(card, lambda name: converted.read(name) if name in kept else arrays[name]))
    theirs |= {name: converted.read(f"{CARRIED}{name}") for name in card.carried}
    with files.appearing(path) as partial:
        file = partial
        if path.suffix != ".safetensors":
            partial.mkdir()
            file = partial / "model.safetensors"
            if card.config:
                (partial / files.CONFIG).write_text(json.dumps(card.config, indent=2) + "\n", encoding="utf-8")
        files.write_safetensors(file, list(theirs), theirs.values())


def _exported(card: Card, read: Callable[[str], np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    source = Source({name: tuple(shape) for name, shape in card.shapes.items()}, card.config)
    table = next(table for table in formats(card.family) if table.name == card.format)
    for rule in _present(table.rules(source, {**card.fields, **card.besides}), source.shapes):
        values = rule.hook.export([np.asarray(read(path)) for path in rule.ours])
        for name, value in zip(rule.theirs, values, strict=True):
            if value.shape != source.shapes[name]:
                raise UserError(
                    f"{name} is {value.shape}, and {source.shapes[name]} in the original: its size was changed, and "
                    "the original class cannot take it"
                )
            yield f"{card.prefix}{name}", value


def formats(family: str) -> tuple[Format, ...]:
    """The tables of an encoder module. Raises UserError if it has none."""
    tables = getattr(encoder_module(family), "FORMATS", ())
    if not tables:
        raise UserError(f"encoder '{family}' exports no FORMATS: no checkpoint can be converted for it")
    return tables


def _families() -> Iterator[str]:
    """The encoder modules of this package that have tables."""
    for module in pkgutil.iter_modules(encoders.__path__):
        if hasattr(importlib.import_module(f"{encoders.__name__}.{module.name}"), "FORMATS"):
            yield module.name


def _recognise(family: str, opened: Weights) -> tuple[Format, str, str]:
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
    others = [name for name in _families() if name != family and _matches_of(formats(name), opened)]
    if others:
        raise UserError(f"{where}: is no checkpoint of family {family}, it looks like {' or '.join(others)}")
    known = ", ".join(table.name for table in tables)
    kind = f"; its config.json says model_type {opened.config['model_type']}" if "model_type" in opened.config else ""
    raise UserError(
        f"{where}: is no checkpoint of family {family} ({known}); its tensors are {_some(sorted(opened.shapes))}{kind}"
    )


def _matches_of(tables: Sequence[Format], opened: Weights) -> list[tuple[Format, str, str]]:
    """The formats whose markers a checkpoint has, as `_recognise` gives them."""
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


def _source(table: Format, shapes: Mapping[str, Any], opened: Weights) -> Source:
    """What is known of a checkpoint.

    A config.json that does not say what it is of counts for nothing, if it could say so in this format.
    """
    own = is_own(opened.config) or not (table.model_types or table.timm)
    return Source(shapes, opened.config if own else {}, preprocessing.pooling(opened.folder))


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
    table, wrapper, prefix = _recognise(family, opened)
    start = f"{wrapper}{prefix}"
    shapes = {name.removeprefix(start): shape for name, shape in opened.shapes.items() if name.startswith(start)}
    where = opened.files[0]
    fields = _fields(table, _source(table, shapes, opened), where)
    _check_given(table, fields, given, where)
    return {name: given[name] for name, value in fields.items() if name in given and _is_open(value)}


def _is_open(value: Any) -> bool:
    return value is None or isinstance(value, Default)


def _fields(table: Format, described: Source, where: Any) -> dict[str, Any]:
    with _reading(where):
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


def _decided(
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
def _reading(where: Any) -> Iterator[None]:
    """Names the checkpoint in what a table raises."""
    try:
        yield
    except KeyError as error:
        raise UserError(f"{where}: {error} is missing in its config.json or among its tensors") from error
    except (IndexError, ValueError, TypeError) as error:
        raise UserError(f"{where}: its tensors' shapes or its config.json are of another kind ({error})") from error
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _present(rules: Sequence[Rule], shapes: Mapping[str, Any]) -> list[Rule]:
    return [rule for rule in rules if not rule.optional or shapes.keys() >= set(rule.theirs)]


def _matches(patterns: Sequence[str], name: str) -> bool:
    return any(re.match(pattern, name) for pattern in patterns)


def _float32(array: np.ndarray, where: str) -> np.ndarray:
    if array.dtype.name not in ("float32", "float16", "bfloat16", "float64"):
        raise UserError(f"{where} is {array.dtype.name}, not floating point: save the weights as float32")
    array = array.astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        raise UserError(f"{where} has values that are not finite: this checkpoint is broken")
    return array


def lists(missing: Sequence[str], unused: Sequence[str], other: Sequence[str]) -> str:
    """What is wrong with the tensors of a checkpoint, in one line."""
    kinds = {"missing": missing, "not used": unused, "of another shape": other}
    return "; ".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in kinds.items() if names)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(name if len(name) <= 120 else f"{name[:120]}..." for name in names[:SHOWN]) + more


# The command line.


def main(argv: Sequence[str] | None = None) -> None:
    """Does what the command line says. Raises UserError for a mistake in it."""
    parser = command.Parser(
        prog="python -m umemma_jax.weights.convert", allow_abbrev=False, description=__doc__.splitlines()[0]
    )
    parser.add_argument("--family", metavar="NAME", help=f"encoder: {', '.join(_families())}, or a module's path")
    parser.add_argument("--from", required=True, metavar="PATH", dest="source", help="checkpoint: a file or a folder")
    parser.add_argument(
        "--to", required=True, type=Path, metavar="PATH", help="folder (or, with --export, file) to make"
    )
    parser.add_argument("--export", action="store_true", help="from a converted folder back to the original names")
    parser.add_argument(
        "--field",
        action="append",
        default=[],
        type=_field,
        metavar="NAME=VALUE",
        help="of the encoder, for what the checkpoint does not say, e.g. heads=12",
    )
    arguments = parser.parse_args(argv)
    if arguments.export:
        export(Path(arguments.source), arguments.to)
        print(f"Exported: {arguments.to}")
        return
    if not arguments.family:
        raise UserError("--family is missing: name the encoder, see --help")
    card = convert(arguments.family, arguments.source, arguments.to, dict(arguments.field))
    print(card.line())


def _field(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


if __name__ == "__main__":
    command.run(main)
