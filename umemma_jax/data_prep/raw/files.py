"""Opening a raw file: what is no file, empty, or stands for a file is refused, and nothing is waited for."""

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from umemma_jax.data_prep.build.tasks import Unreadable

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@contextlib.contextmanager
def open_content(content: bytes) -> Iterator[BinaryIO]:
    """A file without a name that has this content. Raises Unreadable if it has none."""
    if not content:
        raise Unreadable("empty file")
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        yield file


def open_file(path: Path) -> BinaryIO:
    """Opens a file to be read.

    Raises:
      Unreadable: it cannot be opened, is no regular file, empty, or a pointer of Git LFS.
    """
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
        if kind != stat.S_IFREG:
            raise Unreadable(f"{_KINDS.get(kind, 'something else')} instead of a file")
        # Should it have become a pipe meanwhile, opening it does not wait for a writer.
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
        start = file.peek(len(_LFS_POINTER))
    except (OSError, ValueError) as error:  # the latter of a name with a null character
        raise Unreadable(getattr(error, "strerror", None) or str(error)) from error
    if not start or start.startswith(_LFS_POINTER):
        file.close()
        raise Unreadable(
            "a pointer of Git LFS instead of the file: fetch it with git lfs pull" if start else "empty file"
        )
    return file
