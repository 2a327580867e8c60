"""Numbers as people write them in tables."""

import numbers
import re
import unicodedata
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from umemma_jax.data_prep.build.rows import MISSING_MARKS, is_missing

LARGEST = 3.4028234663852886e38  # float32's
_NO_NUMBER = "is no finite number"
_COMMA = "has a comma before its decimals, where a point is needed"
_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(?P<sign>[,' \u00a0\u2009\u202f])\d{3}((?P=sign)\d{3})*(\.\d*)?")
_DECIMAL_COMMA = re.compile(r"[+-]?[\d.' \u00a0\u2009\u202f]*,\d+")


def as_number(field: Any, marks: Sequence[str] = MISSING_MARKS) -> float | None:
    """The number that a field of a table holds; None where it is missing.

    - A number is itself, true and false are 1 and 0.
    - A text is a decimal number with a point, as in `-1.5`, `.5` or `2e-3`; its minus may be U+2212.
    - Thousands may be divided by commas, spaces or apostrophes, as in `1,234,567.8`: all by the same sign, and all in
      groups of three digits.
    - One currency sign may stand before or behind, and is left out: `$5`, `-5 €`.
    - A percent sign divides by a hundred: `12%` is 0.12.
    - A comma never starts the decimals, since `1,234` would then be two numbers; `1,5` is none.

    >>> as_number("1,234.5"), as_number("12 %"), as_number("?")
    (1234.5, 0.12, None)

    Args:
      field: of a row.
      marks: what stands for a missing value, beside nothing at all, in upper or lower case.

    Raises:
      ValueError: it is no number, or none that float32 holds; the message is what is wrong with it, a predicate.
    """
    if is_missing(field, marks):
        return None
    number = _of_text(field.strip()) if isinstance(field, str) else _of_value(field)
    if not abs(number) <= LARGEST:
        raise ValueError(_NO_NUMBER)
    return number


def _of_value(value: Any) -> float:
    if not isinstance(value, numbers.Real | Decimal):
        raise ValueError(_NO_NUMBER)
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(_NO_NUMBER) from error


def _of_text(text: str) -> float:
    if _PLAIN.fullmatch(text):
        return float(text)
    bare = text.replace("\u2212", "-")
    percent = bare.endswith("%")
    bare = _without_currency(bare.removesuffix("%").strip())
    if grouped := _GROUPED.fullmatch(bare):
        bare = bare.replace(grouped["sign"], "")
    if not _PLAIN.fullmatch(bare):
        raise ValueError(_COMMA if _DECIMAL_COMMA.fullmatch(bare) else _NO_NUMBER)
    return float(bare) / 100 if percent else float(bare)


def _without_currency(text: str) -> str:
    """The text without one currency sign, which may stand between a minus and the digits."""
    places = [place for place, sign in enumerate(text) if unicodedata.category(sign) == "Sc"]
    if len(places) != 1:
        return text
    before, after = text[: places[0]].strip(), text[places[0] + 1 :].strip()
    return before + after if before in ("", "+", "-") or not after else text
