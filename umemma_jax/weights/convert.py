"""Foreign checkpoints to our parameters and back, strictly: one driver for the tables of every encoder module.

python -m umemma_jax.weights.convert --family=vit --from=CHECKPOINT --to=DIR
python -m umemma_jax.weights.convert --export --from=DIR --to=FILE.safetensors|DIR

A converted folder holds `parameters.safetensors`: our parameters in the checkpoint's own sizes and, under `carried/`,
what an export needs besides; `model.json`, the model card; and the files of a tokenizer.
"""

import ast
import dataclasses
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np
import safetensors

import umemma_jax
from umemma_jax import checksums, command
from umemma_jax.data import tokenizer
from umemma_jax.data.unfinished import appearing
from umemma_jax.encoders.foreign import Format, Rule, Source
from umemma_jax.errors import UserError
from umemma_jax.model import checked_fields, encoder_module
from umemma_jax.weights import files, preprocessing, recognition
from umemma_jax.weights.files import Weights
from umemma_jax.weights.model_card import CARRIED, PARAMETERS, VERSION, Card, open_parameters, read_card, write_card

GRID = {"grid": tuple[int, ...]}  # what may be given besides fields of the Model: rows and columns of patches


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
    with appearing(target) as folder:
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
    table, wrapper, prefix = recognition.recognise(family, opened)
    names = {name.removeprefix(wrapper): name for name in opened.shapes}
    inner = {name.removeprefix(prefix): name for name in names if name.startswith(prefix)}
    shapes = {name: opened.shapes[names[full]] for name, full in inner.items()}
    source = recognition.source_of(table, shapes, opened)
    fields = recognition.decided(table, source, given, where, opened.config)
    with recognition.reading(where):
        rules = _present(table.rules(source, fields), source.shapes)
    used = {name for rule in rules for name in rule.theirs}
    rest = {full: name for name, full in inner.items() if name not in used}
    rest |= {name: name for name in names if not name.startswith(prefix)}
    carried = sorted(full for full, name in rest.items() if _matches(table.carried, name))
    ignored = [full for full, name in rest.items() if full not in carried and _matches(table.ignored, name)]
    unused = [f"{full} {opened.shapes[names[full]]}" for full in rest if full not in carried and full not in ignored]
    missing = sorted(used - inner.keys())
    if unused or missing:
        raise UserError(f"{where}: does not match {table.name}: {recognition.lists(missing, unused, [])}")
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
    with appearing(path) as partial:
        file = partial
        if path.suffix != ".safetensors":
            partial.mkdir()
            file = partial / "model.safetensors"
            if card.config:
                (partial / files.CONFIG).write_text(json.dumps(card.config, indent=2) + "\n", encoding="utf-8")
        files.write_safetensors(file, list(theirs), theirs.values())


def _exported(card: Card, read: Callable[[str], np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    source = Source({name: tuple(shape) for name, shape in card.shapes.items()}, card.config)
    table = next(table for table in recognition.formats(card.family) if table.name == card.format)
    for rule in _present(table.rules(source, {**card.fields, **card.besides}), source.shapes):
        values = rule.hook.export([np.asarray(read(path)) for path in rule.ours])
        for name, value in zip(rule.theirs, values, strict=True):
            if value.shape != source.shapes[name]:
                raise UserError(
                    f"{name} is {value.shape}, and {source.shapes[name]} in the original: its size was changed, and "
                    "the original class cannot take it"
                )
            yield f"{card.prefix}{name}", value


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


# The command line.


def main(argv: Sequence[str] | None = None) -> None:
    """Does what the command line says. Raises UserError for a mistake in it."""
    parser = command.Parser(
        prog=command.program("umemma_jax.weights.convert"),
        allow_abbrev=False,
        description=__doc__.splitlines()[0],
    )
    parser.add_argument(
        "--family", metavar="NAME", help=f"encoder: {', '.join(recognition.families())}, or a module's path"
    )
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
