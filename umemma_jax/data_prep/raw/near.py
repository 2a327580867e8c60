"""A path that does not exist, and the file that may be meant."""

import functools
import os
import unicodedata
from pathlib import Path

MOST_FILES = 100_000  # that are looked at below a folder


def near(folder: Path, given: str) -> Path | None:
    """The file that a path means but for case, form of characters, backslashes, quotation marks or its ending.

    Args:
      folder: that it counts from.
      given: the path.
    """
    found = folder
    for part in Path(_plain(given)).parts:
        found = found / part if os.path.exists(found / part) else _alike(found, part)
        if found is None:
            return None
    return found if os.path.isfile(found) else None


def below(folder: Path, given: str) -> Path | None:
    """A file of the same name, likewise, somewhere below the folder."""
    names = _files(folder)
    name = Path(_plain(given)).name
    return names.get(_folded(name)) or names.get(_stem(name))


def _plain(given: str) -> str:
    return given.strip("'\" ").removeprefix("file://").replace("\\", "/")


def _alike(folder: Path, name: str) -> Path | None:
    names = _listed(folder)
    return names.get(_folded(name)) or names.get(_stem(name))


@functools.lru_cache(maxsize=256)
def _listed(folder: Path) -> dict[str, Path]:
    """What is in a folder, by folded name, and by that without its ending."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:  # no folder, or one that may not be looked into
        return {}
    return {key: path for path in reversed(entries) for key in (_stem(path.name), _folded(path.name))}


@functools.lru_cache(maxsize=4)
def _files(folder: Path) -> dict[str, Path]:
    """The first files below a folder, likewise."""
    found: dict[str, Path] = {}
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            for key in (_stem(name), _folded(name)):
                found.setdefault(key, Path(parent) / name)
        if len(found) > 2 * MOST_FILES:
            break
    return found


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _stem(name: str) -> str:
    return _folded(Path(name).stem) + "."  # the dot, so that no whole name is like it
