"""Checks of fields, with the messages that `build` expects: they start with the field."""

import math
from typing import Any

import numpy as np

from umemma_jax.devices import memory

LARGEST_INT, LARGEST_FLOAT = 2**31 - 1, float(np.finfo(np.float32).max)
SMALLEST_FLOAT = float(np.finfo(np.float32).tiny)


def unfit(value: Any) -> str:
    """Why a number, or one of a list, cannot be computed with; empty if all can, or the value is none."""
    if isinstance(value, list | tuple):
        return next((reason for reason in map(unfit, value) if reason), "")
    if isinstance(value, int) and abs(value) > LARGEST_INT:
        return f"{value} does not fit into 31 bits" if abs(value) < 10**20 else "does not fit into 31 bits"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is not finite"
    if isinstance(value, float) and abs(value) > LARGEST_FLOAT:
        return f"{value} does not fit into float32"
    return ""


def check_not_negative(config: Any, *fields: str) -> None:
    """Raises ValueError if a field, or any number of it, is below 0 or NaN."""
    for field in fields:
        if not np.all(np.asarray(getattr(config, field)) >= 0):
            raise ValueError(f"{field}: must not be negative, got {getattr(config, field)}")


def check_positive(config: Any, *fields: str) -> None:
    """Raises ValueError if a field is NaN or below what float32 can tell from 0."""
    for field in fields:
        if not getattr(config, field) >= SMALLEST_FLOAT:
            raise ValueError(f"{field}: must be positive, got {getattr(config, field)}")


def check_at_most(config: Any, **most: float) -> None:
    """Raises ValueError if a field is above its largest value."""
    for field, largest in most.items():
        if getattr(config, field) > largest:
            raise ValueError(f"{field}: must be {largest:g} or less, got {getattr(config, field)}")


def check_memory(field: str, size: float) -> None:
    """Raises ValueError if the tables that a field asks for, so many bytes, are too many for this machine."""
    if reason := memory.excess(size):
        raise ValueError(f"{field}: {reason}")
