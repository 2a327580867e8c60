"""Files to read and convert, one by one, and what goes wrong with one."""

import hashlib
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from umemma_jax.data_prep.build.results import Failure, Noted, Result
from umemma_jax.errors import UserError

_FORM = 2  # of the files of finished work: those of another form are not looked at
_LONGEST = 200  # characters of an exception's message


class Unreadable(Exception):
    """Something cannot be read or converted; the message is the reason."""


class Task(Protocol):
    """Something to read and convert. It goes to other processes, so it must be picklable."""

    def __call__(self) -> bytes | Noted:
        """The result; raises Unreadable."""

    def __str__(self) -> str:
        """What is read, for people."""

    def fingerprint(self) -> str:
        """Says all that the result depends on."""

    def value(self, data: bytes) -> Any:
        """The result as what DatasetWriter.write takes, or a dict of that, of several modalities by name."""


class Conversion(Protocol):
    """How files of a kind are read; its `repr` must say all that the bytes depend on besides the file."""

    def __call__(self, path: Path) -> bytes | Noted:
        """The bytes that are stored; raises Unreadable."""

    def convert(self, data: bytes) -> bytes | Noted:
        """Likewise of a file's content."""

    def value(self, data: bytes) -> Any:
        """These bytes as what DatasetWriter.write takes, or a dict of that, of several modalities by name."""


@dataclass(frozen=True)
class FileTask:
    """A file to read and convert."""

    convert: Conversion
    path: Path

    @property
    def source(self) -> Path:
        """What is read."""
        return self.path

    def __call__(self) -> bytes | Noted:
        """The converted file."""
        return self.convert(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def fingerprint(self) -> str:
        """Changes when the bytes can."""
        try:
            stat = self.path.stat()
        except OSError:
            return f"{self.convert!r} {self.path}"
        return f"{self.convert!r} {self.path} {stat.st_size} {stat.st_mtime_ns}"

    def value(self, data: bytes) -> Any:
        """As the conversion says."""
        return self.convert.value(data)


@dataclass(frozen=True)
class ContentTask:
    """The content of a file to convert.

    Attributes:
      convert: how.
      content: the file's.
      where: it is, for people.
    """

    convert: Conversion
    content: bytes = field(repr=False)
    where: str

    @property
    def source(self) -> bytes:
        """What is read."""
        return self.content

    def __call__(self) -> bytes | Noted:
        """The converted file."""
        return self.convert.convert(self.content)

    def __str__(self) -> str:
        return self.where

    def fingerprint(self) -> str:
        """Changes when the bytes can."""
        return f"{self.convert!r} {hashlib.sha256(self.content).hexdigest()}"

    def value(self, data: bytes) -> Any:
        """As the conversion says."""
        return self.convert.value(data)


def attempt(task: Task) -> Result:
    """Runs a task here; what goes wrong is a failure, but for what the user can mend, as a package that is missing."""
    try:
        return task()
    except UserError:
        raise
    except Unreadable as error:
        return Failure(str(error))
    except Exception as error:  # nobody knows all that decoders raise; the place tells a fault of ours from a file's
        place = traceback.extract_tb(error.__traceback__)[-1]
        message = " ".join(str(error).split())[:_LONGEST]
        return Failure(f"{type(error).__name__}: {message} ({Path(place.filename).name}, line {place.lineno})")


class Chunk:
    """Consecutive tasks, and the file that their results go to."""

    def __init__(self, folder: Path, tasks: Sequence[Task]) -> None:
        made_from = "\n".join([str(_FORM), *(task.fingerprint() for task in tasks)])
        self.path = folder / f"{hashlib.sha256(made_from.encode(errors='surrogateescape')).hexdigest()[:32]}.chunk"
        self.done = self.path.is_file()
        self.tasks = tasks
        self.deaths: Counter[int] = Counter()  # of processes, by position of the task
        self.failures: dict[int, Failure] = {}  # given up, by position
