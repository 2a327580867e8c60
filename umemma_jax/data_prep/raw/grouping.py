"""Which columns of a table make which modality."""

import fnmatch
import itertools
import re
from collections.abc import Collection, Mapping, Sequence

from umemma_jax.data_prep.build.rows import check_columns
from umemma_jax.data_prep.raw.column_types import JOINED, KIND_OF, ColumnType
from umemma_jax.data_prep.raw.columns import LONGEST_NAME, RESERVED, Column
from umemma_jax.errors import UserError

TABULAR = "tabular"  # the modality of what can be joined and is in no other


def modalities(types: Sequence[ColumnType], groups: Mapping[str, str | Sequence[str]] | None = None) -> list[Column]:
    """Which columns make which modality.

    All numbers, categories and dates that are in no group make the modality "tabular"; each other column makes one of
    its own, which is called as the column in letters, digits and underscores.

    >>> types = [ColumnType(name, "number", "", 1.0) for name in ("hr", "bp", "lab_na", "lab_k", "age")]
    >>> [(m.name, m.columns) for m in modalities(types, {"vitals": ["hr", "bp"], "labs": "lab_*"})]
    [('vitals', ('hr', 'bp')), ('labs', ('lab_na', 'lab_k')), ('tabular', ('age',))]

    Args:
      types: of the table's columns.
      groups: name of a modality -> its columns, or a pattern of their names: numbers, categories and dates, or one
        column of any type.

    Raises:
      UserError: no column is left, or a group names a column that is not there, is left out, in another group, or of a
        type that cannot be joined.
    """
    inputs = {column.name: column for column in types if column.type is not None}
    if not inputs:
        reasons = "; ".join(f"{column.name}: {column.reason}" for column in types)
        raise UserError(
            f"no column is left to be an input ({reasons}): say what one is, as in columns={{NAME: 'text'}}"
        )
    found: dict[str, list[ColumnType]] = {}
    for name, wanted in (groups or {}).items():
        found[name] = [inputs.pop(column) for column in _members(name, wanted, types, inputs)]
    joined = [column for column in inputs.values() if column.type in JOINED]
    alone = [column for column in inputs.values() if column.type not in JOINED]
    for name, members in [(TABULAR, joined), *((column.name, [column]) for column in alone)]:
        if members:
            found[_valid(name, found)] = members
    return [_modality(name, members) for name, members in found.items()]


def _members(
    group: str, wanted: str | Sequence[str], types: Sequence[ColumnType], inputs: Mapping[str, ColumnType]
) -> list[str]:
    """The names of a group's columns."""
    where = f"modality {group!r}"
    names = [column.name for column in types]
    if isinstance(wanted, str):
        members = [name for name in fnmatch.filter(names, wanted) if name in inputs]
        if not members:
            raise UserError(f"{where}: no input is called {wanted!r}; there are: {', '.join(inputs)}")
    else:
        members = list(check_columns(where, wanted, names))
    for name in members:
        if name not in inputs:
            reason = next(column.reason for column in types if column.name == name)
            raise UserError(f"{where}: column {name!r} is left out or in another modality ({reason})")
        if len(members) > 1 and inputs[name].type not in JOINED:
            raise UserError(
                f"{where}: column {name!r} is {inputs[name].type}: only numbers, categories and dates can be joined"
            )
    return members


def _modality(name: str, members: Sequence[ColumnType]) -> Column:
    return Column(
        KIND_OF[members[0].type],
        name,
        tuple(column.name for column in members),
        {column.name: column.type for column in members if column.type in ("category", "date")},
        {column.name: column.strays for column in members if column.strays},
    )


def _valid(name: str, taken: Collection[str]) -> str:
    """A modality's name in letters, digits and underscores that is not taken yet."""
    plain = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[: LONGEST_NAME - 10] or "column"
    numbered = itertools.chain([plain], (f"{plain}_{number}" for number in itertools.count(2)))
    return next(name for name in numbered if name not in taken and name not in RESERVED)


def describe(types: Sequence[ColumnType], modalities: Sequence[Column]) -> str:
    """The types as a table for people: column, type, modality, share of rows that have a value, and the reason."""
    modality_of = {column: modality.name for modality in modalities for column in modality.columns}
    lines = [("column", "type", "modality", "filled", "why")]
    for column in types:
        shown = column.name if column.name.isprintable() else ascii(column.name)
        filled = f"{100 * column.filled:.0f} %".rjust(6)
        lines.append((shown, column.type or "-", modality_of.get(column.name, "-"), filled, column.reason))
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
