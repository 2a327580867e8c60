"""Folders in the making, `NAME.partial-XXXXXXXX`, beside the place that they, or what is in them, take when finished.

Whoever makes one holds a lock on it, which dies with the process. So the next one to make the same finds, and removes,
what a killed process has left, and leaves alone what a live one is at.
"""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from umemma_jax.errors import UserError


class UnfinishedFolder:
    """A new folder beside `place`, locked; as a context manager it is removed at the end.

    Attributes:
      path: of the folder.
    """

    def __init__(self, place: Path) -> None:
        """Makes the folder, and those above it. Raises OSError."""
        self.path = _sibling(place, "partial")
        self.path.mkdir(parents=True)
        self._descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        _lock(self._descriptor)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Removes the folder, unless it was renamed, and lets go of the lock."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@contextlib.contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Gives a path for a file or a folder, in an `UnfinishedFolder`, that is renamed to `path` if all goes well.

    What killed processes have left of it goes.

    Raises:
      UserError: it cannot be written.
    """
    try:
        clear_up(path)
        with UnfinishedFolder(path) as folder:
            yield folder / path.name
            os.replace(folder / path.name, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}): make room, or name another") from error


def put_in_place(folder: Path, place: Path) -> None:
    """Renames a finished folder to `place`; a folder that was there goes only after that, or comes back.

    Raises OSError, with the folder's name where what was replaced cannot be removed.
    """
    if not place.exists():
        folder.rename(place)
        return
    replaced = _sibling(place, "replaced")
    place.rename(replaced)
    try:
        folder.rename(place)
    except BaseException:
        replaced.rename(place)
        raise
    shutil.rmtree(replaced)


def clear_up(place: Path) -> None:
    """Removes what killed processes left beside `place`, and puts back what one had moved aside. Raises OSError."""
    if not place.parent.is_dir():
        return
    name = re.escape(place.name)
    live = [folder for folder in _found(place.parent, name, "partial") if not _removed(folder)]
    if live:
        return  # whoever is at it may be about to replace what is there
    for folder in _found(place.parent, name, "replaced"):
        if place.exists():
            shutil.rmtree(folder)
        else:
            folder.rename(place)


def remove_unfinished(parent: Path) -> None:
    """Removes what killed processes left in a folder, whatever it was to be, as far as that is possible."""
    with contextlib.suppress(OSError):  # there is no such folder, or it or what is in it is somebody else's
        for folder in _found(parent, ".+", "partial"):
            _removed(folder)


def _sibling(place: Path, state: str) -> Path:
    return place.with_name(f"{place.name}.{state}-{secrets.token_hex(4)}")


def _found(parent: Path, name: str, state: str) -> list[Path]:
    """The folders that `_sibling` named, of places whose names match a regular expression."""
    pattern = re.compile(rf"{name}\.{state}-[0-9a-f]{{8}}", re.DOTALL)
    return [path for path in parent.iterdir() if pattern.fullmatch(path.name) and path.is_dir()]


def _removed(folder: Path) -> bool:
    """Removes a folder, if no process holds its lock; False too where the file system has no locks."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:  # finished, or removed by another process, meanwhile
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        with contextlib.suppress(FileNotFoundError):  # another process was quicker
            shutil.rmtree(folder)
        return True
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
