"""From the fields of a table's column to the names of classes, by rules that are said where they change anything."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from decimal import Decimal
from typing import Any

from umemma_jax.data_prep.build.prep_report import Report
from umemma_jax.data_prep.build.rows import Row, is_missing, short
from umemma_jax.errors import UserError

SEPARATOR = "|"  # of which it must be said whether it stands between several labels of a field
LONGEST = 200  # characters of a label
FEWEST_TOO_MANY = 50_000  # classes, for any column
MOST_CLASSES = 20  # that numbers may have, and labels that hardly ever come twice

NO_LABEL = "row without label (dropped)"
NO_ENTRY = "missing entry in a list of labels (left out)"
SEVERAL = "field of several labels"
WHOLE_NUMBER = "label with .0 at its end (taken as the whole number)"
NUMBERS = "numbers as labels (each is a class: --target=numbers predicts them as numbers)"
ALIKE = "labels that differ only in case, white space, form of characters or leading zeros (kept apart)"

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


def read_labels(
    rows: Sequence[Row], column: str, separator: str | None, missing: Sequence[str], report: Report
) -> tuple[dict[str, list[str]], bool]:
    """Classes to learn: as `class_names`. Raises UserError also where the column is not one of classes."""
    labels, several = class_names(rows, column, separator, missing, report)
    _check(labels, column, report)
    return labels, several


def class_names(
    rows: Sequence[Row], column: str, separator: str | None, missing: Sequence[str], report: Report
) -> tuple[dict[str, list[str]], bool]:
    """Class names of each row, by `Row.where`, and whether rows may have several.

    A row without label is left out, but not one with an empty list.

    Args:
      rows: of the table.
      column: of the labels.
      separator: between the labels of a field; "" where each field is one label; None is refused where it matters.
      missing: what stands for no label, beside nothing at all.
      report: gets what is dropped or changed.

    Raises:
      UserError: a field is no label, or no row has one.
    """
    fields = {}
    for row in rows:
        value = row.values.get(column)
        entries = value if isinstance(value, list) else [value]
        known = [_name(row, column, entry) for entry in entries if not is_missing(entry, missing)]
        if entries and not known:
            report.add(NO_LABEL, row.where if value is None else f"{row.where}: {short(value)}")
            continue
        if len(known) < len(entries):
            report.add(NO_ENTRY, f"{row.where}: {short(value)}")
        fields[row.where] = (isinstance(value, list), known)
    if not fields:
        raise UserError(f"--label={column}: none of the {len(rows)} rows has a label: name another column")
    _check_types([row for row in rows if row.where in fields], column, missing)
    lists = any(is_list for is_list, _ in fields.values())
    single = {where: names[0] for where, (is_list, names) in fields.items() if not is_list}
    several = [where for where, text in single.items() if (separator or SEPARATOR) in text]
    labels = {where: names for where, (_, names) in fields.items()}
    if several and separator is None:
        raise UserError(
            f"{several[0]}: label {single[several[0]]!r}: say --label-separator='{SEPARATOR}' if it is several labels, "
            "--label-separator='' if it is one"
        )
    for where in several if separator else ():
        labels[where] = _parts(single[where], separator, missing)
        report.add(SEVERAL, f"{where}: {single[where]}")
    labels = _whole({where: list(dict.fromkeys(names)) for where, names in labels.items()}, report)
    return labels, lists or any(len(names) > 1 for names in labels.values())


def _check_types(rows: Sequence[Row], column: str, missing: Sequence[str]) -> None:
    """Raises UserError if some labels are texts, others numbers or truth values: nobody meant that."""
    first: dict[str, tuple[Row, Any]] = {}
    for row in rows:
        value = row.values[column]
        for entry in value if isinstance(value, list) else [value]:
            if not is_missing(entry, missing) and (type := _type(entry)) is not None:
                first.setdefault(type, (row, entry))
    if len(first) > 1:
        (type, (row, entry)), (other, (_, before)), *_ = reversed(first.items())
        raise UserError(
            f"{row.where}: label {short(entry)} in column {column!r} is a {type}, and {short(before)} a {other}: "
            "make all of one type"
        )


def _type(label: Any) -> str | None:
    """None of a number that is written as text, which may stand beside both."""
    if isinstance(label, bool):
        return "truth value"
    if isinstance(label, int | float | Decimal):
        return "number"
    return None if _NUMBER.fullmatch(str(label)) else "text"


def sorted_classes(names: Collection[str]) -> list[str]:
    """By number if all are numbers, else by name."""
    numbers = all(_NUMBER.fullmatch(name) for name in names)
    return sorted(names, key=lambda name: (Decimal(name), name)) if numbers else sorted(names)


def _name(row: Row, column: str, value: Any) -> str:
    if isinstance(value, float) and value.is_integer():  # 2.0 is what pandas makes of 2 in a column with holes
        value = int(value)
    if isinstance(value, Decimal) and value == value.to_integral_value():
        value = int(value)
    name = str(value).strip()
    if (
        isinstance(value, list | dict | tuple)
        or value in (math.inf, -math.inf)
        or len(name) > LONGEST
        or any(unicodedata.category(sign) == "Cc" for sign in name)
    ):
        raise UserError(
            f"{row.where}: {short(value)} in column {column!r} is no label: give one value in one line of up to "
            f"{LONGEST} characters, or a list of such"
        )
    return name


def _parts(text: str, separator: str, missing: Sequence[str]) -> list[str]:
    parts = [stripped for part in text.split(separator) if not is_missing(stripped := part.strip(), missing)]
    return parts or [text]


def _whole(labels: dict[str, list[str]], report: Report) -> dict[str, list[str]]:
    """The labels, without the .0 behind them if all are whole numbers."""
    names = {name for of_row in labels.values() for name in of_row}
    short = {name: re.sub(r"\.0+$", "", name) for name in names}
    if not all(re.fullmatch(r"[+-]?\d+", name) for name in short.values()):
        return labels
    for name in sorted_classes(names):
        if name != short[name]:
            report.add(WHOLE_NUMBER, name)
    return {where: list(dict.fromkeys(short[name] for name in of_row)) for where, of_row in labels.items()}


def _check(labels: dict[str, list[str]], column: str, report: Report) -> None:
    """Raises UserError if this is no column of classes; tells of labels that may be meant as the same."""
    times = Counter(name for of_row in labels.values() for name in of_row)
    if len({frozenset(of_row) for of_row in labels.values()}) == 1:
        same = ", ".join(map(repr, times)) or "an empty list"
        raise UserError(f"--label={column}: every row has the same label, {same}: there is nothing to tell apart")
    numbers = all(_NUMBER.fullmatch(name) for name in times)
    fractions = numbers and any(re.search(r"\.0*[^0]", name) for name in times)
    rare = sum(times.values()) < 2 * len(times)
    if len(times) >= FEWEST_TOO_MANY or (len(times) > MOST_CLASSES and (fractions or rare)):
        what, remedy = "labels", "name another column"
        if numbers:
            what, remedy = "numbers", "say --target=numbers, or make classes of them, e.g. ranges"
        raise UserError(f"--label={column}: {len(times)} different {what} in {len(labels)} rows, no classes: {remedy}")
    if numbers and len(times) > MOST_CLASSES:
        first, *_, last = sorted_classes(times)
        report.add(NUMBERS, f"{len(times)} different ones, from {first} to {last}")
    alike: dict[str, list[str]] = {}
    for name in sorted(times):
        alike.setdefault(_folded(name), []).append(name)
    for names in alike.values():
        if len(names) > 1:
            report.add(ALIKE, ", ".join(f"{name!r} ({times[name]} x)" for name in names))


def _folded(name: str) -> str:
    """A name without what people do not see, or take for the same."""
    visible = (sign for sign in unicodedata.normalize("NFKC", name) if unicodedata.category(sign) != "Cf")
    return re.sub(r"^([+-]?)0+(?=\d)", r"\1", " ".join("".join(visible).casefold().split()))
