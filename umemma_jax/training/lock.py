"""One process at a time writes into a workdir: a lock that the system holds, and gives up when the process is gone."""

import contextlib
import errno
import fcntl
import os
import socket
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TextIO

from umemma_jax.errors import UserError

FILE_NAME = ".lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)  # of file systems that keep none
RETRY_SECONDS = 0.1


@contextlib.contextmanager
def locked(workdir: Path, patience: float = 0.0) -> Iterator[None]:
    """Until the end, no other process gets the lock of the workdir, which is made where it is absent.

    It holds between machines as far as their file system carries locks (NFS does, by default). On one without locks,
    a warning is printed.

    Args:
      workdir: whose `.lock` says which process it is.
      patience: seconds to wait for another process.

    Raises:
      UserError: another process has it, or the workdir cannot be written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = _acquired(workdir / FILE_NAME, time.monotonic() + patience)
    except OSError as error:
        raise not_written(workdir, error) from error
    with file:
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                (workdir / FILE_NAME).unlink()


def not_written(workdir: Path, error: OSError) -> UserError:
    """What to say of a workdir that cannot be written."""
    reason = "it is no folder" if isinstance(error, FileExistsError) else error.strerror or error
    return UserError(f"--workdir={workdir} cannot be written ({reason}): make room or choose another --workdir")


def _acquired(path: Path, end: float) -> TextIO:
    """The locked file."""
    while True:
        file = path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with file:
                if time.monotonic() > end:
                    raise _in_use(path, file) from None
            time.sleep(RETRY_SECONDS)
            continue
        except OSError as error:
            if error.errno not in NO_LOCKS:
                file.close()
                raise
            print(f"warning: {path}: there are no locks here: start no second process on this folder", file=sys.stderr)
        if _is_at(path, file):
            return _signed(file)
        file.close()  # who held it has just removed it


def _is_at(path: Path, file: TextIO) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    return False


def _signed(file: TextIO) -> TextIO:
    """The file, with who holds it."""
    try:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M:%S}\n")
        file.flush()
    except OSError:
        file.close()
        raise
    return file


def _in_use(path: Path, file: TextIO) -> UserError:
    file.seek(0)
    owner = file.read(200).strip() or "another process"
    return UserError(
        f"--workdir={path.parent} is in use by {owner}: wait until it ends, or end it, or choose another --workdir"
    )
