"""Files of a folder on this machine, read without trust in what lies there.

A name may be that of a pipe or a device, on which reading would wait or never end, or of a symbolic link to a file
elsewhere: a dataset that came from somewhere must not have files read that its user did not name. So links are followed
within their folder alone; the folder itself may be a link.
"""

import errno
import os
import stat
from pathlib import Path

from umemma_jax.data import bounds


def opened(path: Path) -> int:
    """A file descriptor to read a regular file. Raises OSError if it is none, or leads out of its folder."""
    _check_inside(path)
    return regular(path)


def regular(path: Path) -> int:
    """As `opened`, wherever links lead."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file")
    return descriptor


def size(path: Path) -> int:
    """Bytes of a regular file. Raises as `opened`."""
    _check_inside(path)
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    return found.st_size


def read(path: Path, bound: int = bounds.FILE_BYTES) -> bytes:
    """A whole file. Raises as `opened`, and ValueError if it has more bytes than the bound."""
    with open(opened(path), "rb", buffering=0) as file:
        bounds.check("bytes", os.fstat(file.fileno()).st_size, bound)
        return file.readall()


def _check_inside(path: Path) -> None:
    if os.path.islink(path) and not os.path.realpath(path).startswith(os.path.realpath(path.parent) + os.sep):
        raise OSError(errno.EPERM, "a symbolic link out of the folder: put the file itself there")
