"""What comes of a task, and the files that keep it until the dataset stands."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from umemma_jax import checksums
from umemma_jax.errors import UserError


@dataclass(frozen=True)
class Noted:
    """A result of which the report shall say something.

    Attributes:
      data: the result.
      notes: kind of a report's entry -> what is said of the task.
    """

    data: bytes
    notes: Mapping[str, str]


@dataclass(frozen=True)
class Failure:
    """What stands in for the result of a task that could not be done."""

    reason: str


Result = bytes | Noted | Failure


def write_results(path: Path, results: Iterable[Result]) -> None:
    """Writes results one by one as they come, so that no more than one is in memory; the file appears when all are in.

    Each is a line, with a checksum of what follows, whether it is a failure, its size and notes, and then its content.

    Raises:
      UserError: the file cannot be written.
    """
    partial = partial_path(path, os.getpid())
    try:
        with partial.open("wb") as file:
            for result in results:
                file.writelines(_encoded(result))
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except ConnectionError:  # not the file's, but of whoever makes the results
        raise
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"{path.parent}: cannot be written ({error.strerror}): make room, then run again") from error


def read_results(path: Path) -> Iterator[Result]:
    """Reads what `write_results` wrote, one by one. Raises UserError if it cannot be read, or is damaged."""
    try:
        with path.open("rb") as file:
            while line := file.readline():
                checksum, header = line[:8].decode(), line[8:]
                failed, size, notes = json.loads(header)
                content = file.read(size)
                if checksums.of_bytes(header, content) != checksum:
                    raise ValueError("checksum")
                if failed:
                    yield Failure(content.decode())
                else:
                    yield Noted(content, notes) if notes else content
    except OSError as error:
        raise UserError(f"{path}: finished work cannot be read ({error.strerror}): run again") from error
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: finished work is damaged: remove the file and run again") from error


def partial_path(path: Path, process: int) -> Path:
    """Where a process writes the file before it is renamed to `path`."""
    return path.with_name(f"{path.stem}.{process}.partial")


def _encoded(result: Result) -> tuple[bytes, bytes]:
    """A line and the content."""
    failed, notes = isinstance(result, Failure), {}
    if isinstance(result, Failure):
        result = result.reason.encode(errors="backslashreplace")
    elif isinstance(result, Noted):
        result, notes = result.data, dict(result.notes)
    header = json.dumps([failed, len(result), notes]).encode() + b"\n"
    return checksums.of_bytes(header, result).encode() + header, result
