"""Checks of fields, with the messages that `build` expects: they start with the field."""

from typing import Any


def check_not_negative(config: Any, *fields: str) -> None:
    """Raises ValueError if a field is below 0 or NaN."""
    for field in fields:
        if not getattr(config, field) >= 0:
            raise ValueError(f"{field}: must not be negative, got {getattr(config, field)}")


def check_positive(config: Any, *fields: str) -> None:
    """Raises ValueError if a field is 0, below or NaN."""
    for field in fields:
        if not getattr(config, field) > 0:
            raise ValueError(f"{field}: must be positive, got {getattr(config, field)}")
