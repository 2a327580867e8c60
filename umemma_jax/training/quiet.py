"""Keeps Orbax from telling in its own way what it also raises, and what a UserError then says in one line."""

import functools
import inspect
import logging
import sys
from pathlib import Path

import absl.logging


@functools.cache
def quiet_orbax() -> None:
    """Drops, from now on, what comes of a failed save or restore besides its exception.

    Tracebacks are logged, and what was left unfinished complains when it is destroyed, or is told of its end too late.
    """
    for logger in (absl.logging.get_absl_logger(), logging.getLogger("asyncio")):
        logger.addFilter(lambda record: not _is_orbax(record.pathname, "asyncio"))
    tell = sys.unraisablehook
    sys.unraisablehook = lambda told: None if _of_orbax(told) else tell(told)


def _of_orbax(told: "sys.UnraisableHookArgs") -> bool:
    if inspect.iscoroutine(told.object):
        return _is_orbax(told.object.cr_code.co_filename)
    return told.object is None and str(told.exc_value) == "Event loop is closed"  # TensorStore's threads


def _is_orbax(path: str, *others: str) -> bool:
    return not {"orbax", *others}.isdisjoint(Path(path).parts)
