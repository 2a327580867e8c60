"""How every command starts and ends: streams that cannot end it, signals, the folder it caches in, errors in one line.

Nothing here imports more than the standard library, so that a command is in order before it loads anything.
"""

import argparse
import contextlib
import io
import os
import re
import select
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from umemma_jax.addresses import redacted
from umemma_jax.errors import UserError

INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, a scheduler's, a terminal that goes away
KEPT_IN = "umemma_jax"  # folder in the user's cache folder


class Interrupted(KeyboardInterrupt):
    """The process was asked to end.

    Attributes:
      signal: by what.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.signal = signal.Signals(number)


def run(action: Callable[[], int | None]) -> NoReturn:
    """Does what a command is for, and ends the process with the exit status that `status` gives.

    Without the interpreter's shutdown: after an error or Ctrl-C, XLA may still be compiling in a thread and Orbax have
    unfinished coroutines; the one would crash then, the other complain.
    """
    keep_streams()
    _keep_home()
    _heed_signals()
    end(status(action))


def begin(package: str | None = None) -> None:
    """Puts a process in order before the command in it loads what it takes: `run` follows.

    Args:
      package: begins only where `python -m` has started a module of it; for the package's `__init__.py`.
    """
    started = sys.argv[:1] == ["-m"] and any(word.startswith(f"{package}.") for word in sys.orig_argv[1:])
    if package is None or started:
        keep_streams()
        if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # there is nothing to clean up yet, nor anyone to catch it
        sys.excepthook = _refused_while_loading


def end(code: int) -> NoReturn:
    """Ends the process at once, when all that was printed is out."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def status(action: Callable[[], int | None]) -> int:
    """Calls `action`; what ends it is said in one line. Returns the exit status.

    Errors of programming keep their traceback.
    """
    try:
        return action() or 0
    except (UserError, OSError) as error:
        return failed(str(error))
    except KeyboardInterrupt as stop:
        print("interrupted; the same command continues", flush=True)
        return 128 + getattr(stop, "signal", signal.SIGINT)  # what shells report of a process that a signal ended
    except Exception as error:
        if not _out_of_memory(error):
            raise
        return failed(
            f"out of memory ({_first_line(error)}): lower config.data.batch_size or the inputs' length, compute the "
            "batch in parts (config.<stage>.accumulate), or set `remat` of a transformer or a ResNet"
        )


def program(module: str) -> str:
    """How the command was started, for people: `umemma ...`, or `python -m` and the module."""
    return sys.argv[0] if sys.argv[0].startswith("umemma ") else f"python -m {module}"


class Parser(argparse.ArgumentParser):
    """A parser that raises UserError where `argparse` prints its usage and exits."""

    def error(self, message: str) -> NoReturn:
        """Raises UserError."""
        raise UserError(f"{message}; see --help")


def one_line(text: str) -> str:
    """The text without line breaks, and with its control characters and broken letters written out."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.splitlines()))


def failed(reason: str) -> int:
    """Says why the command has failed; returns the exit status."""
    print(f"error: {one_line(redacted(reason))}", file=sys.stderr, flush=True)
    return 1


def _out_of_memory(error: Exception) -> bool:
    """Whether the host's memory, or in the words of XLA that of a device, was not enough."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


# Signals.


def _heed_signals() -> None:
    """Lets the signals of INTERRUPTIONS raise `Interrupted`; a second one ends the process at once.

    What is ignored from the start stays so: Ctrl-C in a shell's background jobs, SIGHUP under nohup.
    """
    for number in INTERRUPTIONS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)
    sys.unraisablehook = _unraisable


def _interrupt(number: int, frame: object) -> None:
    for each in INTERRUPTIONS:
        if signal.getsignal(each) == _interrupt:
            signal.signal(each, _interrupt_again)
    raise Interrupted(number)


def _interrupt_again(number: int, frame: object) -> None:
    end(128 + number)


def _unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """Ends the process where a signal came in a destructor, in which Python swallows what is raised.

    Of the rest, what Orbax leaves behind after a failed save or restore is not worth a word.
    """
    if isinstance(unraisable.exc_value, Interrupted):
        end(status(lambda: _raise(unraisable.exc_value)))
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _raise(error: BaseException) -> NoReturn:
    raise error


# Loading.


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """For imports of JAX: its extension modules do not survive signals while they load, so that these come afterwards.

    Raises UserError where JAX refuses a variable of the environment.
    """
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTIONS)
    try:
        yield
    except ValueError as error:
        raise _as_user_error(error) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _as_user_error(error: ValueError) -> Exception:
    """What JAX, which checks its variables when it is imported, says of one, with its name; or the error itself."""
    found = re.search(r"flag (jax_\w+)|environment '(\w+)'", str(error))
    if not found:
        return error
    return UserError(f"{(found[1] or found[2]).upper()} in the environment: JAX says: {error}: mend or unset it")


def _refused_while_loading(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    known = _as_user_error(error) if isinstance(error, ValueError) else error
    if isinstance(known, UserError):
        status(lambda: _raise(known))
    else:
        sys.__excepthook__(kind, error, traceback)


# Streams.


def keep_streams() -> None:
    """Makes standard output and error take all that is printed, whatever they are: no run ends by what it says.

    Characters that their encoding lacks are written out (`\\xe9`). What nobody reads any more is lost (`| head`, a
    terminal that is gone, a full disk). Streams that are closed become /dev/null, or else the next file that is opened
    would get their number, and with it what XLA says.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest number that is free: this one
    sys.stdout, sys.stderr = _kept(sys.stdout, 1), _kept(sys.stderr, 2)


def _kept(stream: Any, descriptor: int) -> Any:
    if isinstance(getattr(getattr(stream, "buffer", None), "raw", None), _Descriptor):
        return stream
    if stream is not None:
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    encoding = getattr(stream, "encoding", None) or "utf-8"
    raw = io.BufferedWriter(_Descriptor(descriptor))
    return io.TextIOWrapper(raw, encoding, errors="backslashreplace", line_buffering=True)


class _Descriptor(io.RawIOBase):
    """A file descriptor, as long as it takes anything."""

    def __init__(self, number: int) -> None:
        self._number = number

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def write(self, data: Any) -> int:
        while True:
            try:
                return os.write(self._number, data)
            except BlockingIOError:  # somebody else has made it so
                select.select([], [self._number], [])
            except OSError:
                return len(data)


# Places.


def cache_folder() -> Path | None:
    """The folder that this project may keep things in between runs, or None where nothing can be written.

    The user's cache folder, or one of the user's alone among the temporary files: without a home, or one that is
    read-only, as in containers.
    """
    with contextlib.suppress(RuntimeError):  # there is no home
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / KEPT_IN
        if can_be_written(folder):
            return folder
    with contextlib.suppress(OSError):
        import tempfile  # here, since it loads much that is not needed

        folder = Path(tempfile.gettempdir()) / f"{KEPT_IN}-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        # Another user could have put it there, with programs in it for us to run.
        if stat.S_ISDIR(found.st_mode) and (found.st_uid, found.st_mode & 0o077) == (os.getuid(), 0):
            return folder
    return None


def can_be_written(folder: Path) -> bool:
    """Whether files can be put into the folder, which is made if it is absent."""
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        return os.access(folder, os.W_OK | os.X_OK)
    return False


def _keep_home() -> None:
    """Gives libraries another home where there is none, and matplotlib a place for what it keeps."""
    folder = cache_folder()
    if folder is not None:
        if "HOME" not in os.environ:
            os.environ["HOME"] = str(folder)
        if not can_be_written(Path.home() / ".config" / "matplotlib"):
            os.environ.setdefault("MPLCONFIGDIR", str(folder / "matplotlib"))
