"""Conversions for tests of umemma_jax.data_prep.build.parallel, which finds them by name in its processes."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from umemma_jax.data_prep.build.prep_report import DAMAGED
from umemma_jax.data_prep.build.results import Noted
from umemma_jax.data_prep.build.tasks import Unreadable


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
                raise ZeroDivisionError("a bug\nof two lines")
            case b"noise":
                os.write(1, b"what a library prints\n")
                os.write(2, b"what a library prints\n")
            case b"hoard":
                os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory ends
            case b"crash once":
                path.write_bytes(b"fine")
                os.kill(os.getpid(), signal.SIGKILL)
        return content * 2 + self.suffix


@dataclass(frozen=True)
class FirstLine:
    """The first line of a text; what comes after it counts as damage."""

    def __call__(self, path):
        first, *others = path.read_bytes().splitlines()
        return Noted(first, {DAMAGED: f"{len(others)} more lines"}) if others else first

    def value(self, data):
        return data.decode()


@dataclass(frozen=True)
class FirstTwoLines:
    """The first two lines of a text, as two modalities; without a second one it gives one."""

    def __call__(self, path):
        return path.read_bytes()

    def value(self, data):
        return dict(zip(("first", "second"), data.decode().splitlines(), strict=False))


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
