"""Conversions for tests of data_prep.build.parallel, which finds them by name in its processes."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from data_prep.build.parallel import Damaged, Unreadable


@dataclass(frozen=True)
class Twice:
    """The content twice; a content that is one of the words below does what it says."""

    suffix: bytes = b""

    def __call__(self, path):
        content = path.read_bytes()
        match content:
            case b"unreadable":
                raise Unreadable("of no use")
            case b"crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            case b"exit":
                os._exit(3)
            case b"hang":
                signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
                time.sleep(1000)
            case b"bug":
                raise ZeroDivisionError("a bug")
            case b"crash once":
                path.write_bytes(b"fine")
                os.kill(os.getpid(), signal.SIGKILL)
        return content * 2 + self.suffix


@dataclass(frozen=True)
class FirstLine:
    """The first line of a text; what comes after it counts as damage."""

    def __call__(self, path):
        return path.read_bytes()

    def value(self, data):
        first, *others = data.decode().splitlines()
        return Damaged(first, f"{len(others)} more lines") if others else first


@dataclass(frozen=True)
class Slow:
    """Takes its time and says in a file what has been read by which process."""

    log: Path
    seconds: float

    def __call__(self, path):
        time.sleep(self.seconds)
        with self.log.open("a") as file:
            file.write(f"{path.name} {os.getpid()}\n")
        return path.name.encode()
