"""Folders in the making, `NAME.partial-XXXXXXXX`, beside the place that they take by a rename when they are finished.

Whoever makes one holds a lock on it, which dies with the process. So the next one to make the same finds, and removes,
what a killed process has left, and leaves alone what a live one is at.
"""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
from pathlib import Path


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
    unfinished = _siblings(place, "partial")
    left = [folder for folder in unfinished if _is_left(folder)]
    for folder in left:
        shutil.rmtree(folder)
    if len(left) < len(unfinished):
        return  # whoever is at it may be about to replace what is there
    for folder in _siblings(place, "replaced"):
        if place.exists():
            shutil.rmtree(folder)
        else:
            folder.rename(place)


def _sibling(place: Path, state: str) -> Path:
    return place.with_name(f"{place.name}.{state}-{secrets.token_hex(4)}")


def _siblings(place: Path, state: str) -> list[Path]:
    name = re.compile(re.escape(f"{place.name}.{state}-") + "[0-9a-f]{8}")
    return [path for path in place.parent.iterdir() if name.fullmatch(path.name) and path.is_dir()]


def _is_left(folder: Path) -> bool:
    """Whether no process holds the folder's lock; False too where the file system has no locks."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:  # finished meanwhile
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
