"""One damaged input and what it comes to."""

import contextlib
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from umemma_jax.errors import UserError

# Outcomes. Only the first two may happen.
SAME = "same"  # nothing that is read differs from what was written
REFUSED = "refused"  # in one line that names the file
SILENT = "silent"  # something else is read, without a word
TRACEBACK = "traceback"  # any other exception, or more than one line


def outcome(read: Callable[[], Any], same: Callable[[Any], bool]) -> tuple[str, str]:
    """The outcome of reading a damaged input, and what was said.

    Args:
      read: raises UserError where the input is refused.
      same: whether what was read is what was written.
    """
    try:
        found = read()
    except UserError as error:
        message = str(error)
        return (REFUSED, message) if "\n" not in message else (TRACEBACK, message)
    except Exception:
        return TRACEBACK, traceback.format_exc()
    return (SAME, "") if same(found) else (SILENT, "")


@contextlib.contextmanager
def flipped(path: Path, rng: np.random.Generator, whole_byte: bool = False) -> Iterator[int]:
    """One bit of the file is flipped, or one byte replaced, until the end; yields its byte's position."""
    data = path.read_bytes()
    position = int(rng.integers(len(data)))
    change = int(rng.integers(1, 256)) if whole_byte else 1 << int(rng.integers(8))
    path.write_bytes(data[:position] + bytes([data[position] ^ change]) + data[position + 1 :])
    try:
        yield position
    finally:
        path.write_bytes(data)
