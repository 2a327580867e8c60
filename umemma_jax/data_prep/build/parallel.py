"""Files read and converted by several processes: in order, in bounded memory, continued where a run was stopped.

Finished work goes to a folder, chunk by chunk. A chunk's name is a hash of what it was made from: the conversions, and
the names, sizes and times of the files. So the same command finds what an earlier run has done, and a file that was
replaced since is converted again. Whoever consumes the results reads them from there: nothing piles up in memory.

Whatever goes wrong in a task, in Python or beneath it, is that task's failure and no other's: an exception, a crash, a
process that is killed for its memory, or one that never ends.
"""

import contextlib
import fcntl
import hashlib
import multiprocessing
import os
import shutil
import signal
import sys
import traceback
import types
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

from umemma_jax.data_prep.build.results import Failure, Noted, Result, partial_path, read_results, write_results
from umemma_jax.errors import UserError

CHUNK = 64  # tasks
TIMEOUT = 60.0  # seconds for one task
_DEATHS = 2  # processes that a task may take with it: the first death can have had another cause
_FORM = 2  # of the files of finished work: those of another form are not looked at
_LONGEST = 200  # characters of an exception's message
_AHEAD = 2  # chunks that a process has been given, so that it need not wait for the next one
_READY, _CHUNK_DONE = "ready", "done"


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


def work_folder_path(out: str | Path) -> Path:
    """Where finished work of the dataset at `out` is kept until the dataset stands."""
    out = Path(os.path.realpath(out))
    return out.with_name(f"{out.name}.work")


@contextlib.contextmanager
def work_folder(out: str | Path) -> Iterator[Path]:
    """The folder beside `out` that keeps finished work; removed at the end, but not after an exception.

    Raises:
      UserError: it cannot be made, or another run is using it.
    """
    folder = work_folder_path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror}): choose another --out") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{folder}: another run is preparing this dataset: wait for it, or stop it") from error
        except OSError:
            pass  # a file system without locks
        for partial in folder.glob("*.partial"):  # of a killed run
            partial.unlink(missing_ok=True)
        try:
            yield folder
        except BaseException:
            if {path.name for path in folder.iterdir()} == {"lock"}:
                shutil.rmtree(folder, ignore_errors=True)
            raise
    shutil.rmtree(folder, ignore_errors=True)  # the lock is closed by now, as NFS wants it


def run_tasks(
    tasks: Sequence[Task], folder: Path, processes: int, timeout: float = TIMEOUT, chunk: int = CHUNK
) -> Iterator[Result]:
    """Runs tasks, each in one of several processes.

    A task that raises an exception is a failure. One that ends its process (a crash, out of memory) or takes longer
    than `timeout` does so once more at most; then it is a failure too.

    Args:
      tasks: what to run.
      folder: keeps finished chunks; one that an earlier run has put there is not made again.
      processes: how many to start.
      timeout: seconds that one task may take.
      chunk: tasks that are handed over together.

    Yields:
      One result for each task, in their order.

    Raises:
      UserError: the folder cannot be written, or a chunk in it is damaged.
    """
    chunks = [_Chunk(folder, tasks[start : start + chunk]) for start in range(0, len(tasks), chunk)]
    todo = deque(chunk for chunk in chunks if not chunk.done)
    pool = _Pool(min(processes, len(todo)), todo, timeout)
    try:
        for chunk_of_tasks in chunks:
            while not chunk_of_tasks.done:
                pool.run()
            yield from read_results(chunk_of_tasks.path)
            pool.run(block=False)
    finally:
        pool.close()


class _Chunk:
    """Consecutive tasks, and the file that their results go to."""

    def __init__(self, folder: Path, tasks: Sequence[Task]) -> None:
        made_from = "\n".join([str(_FORM), *(task.fingerprint() for task in tasks)])
        self.path = folder / f"{hashlib.sha256(made_from.encode(errors='surrogateescape')).hexdigest()[:32]}.chunk"
        self.done = self.path.is_file()
        self.tasks = tasks
        self.deaths: Counter[int] = Counter()  # of processes, by position of the task
        self.failures: dict[int, Failure] = {}  # given up, by position


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    chunks: deque[_Chunk] = field(default_factory=deque)  # given to it and not finished, the current one first
    ready: bool = False
    position: int = 0  # of the task at work in the current chunk


class _Pool:
    """Processes at work on chunks. All of its methods return to the caller; nothing runs in the background here."""

    def __init__(self, processes: int, todo: deque[_Chunk], timeout: float) -> None:
        self._context = multiprocessing.get_context("spawn")  # fork is not safe beside threads
        self._todo = todo
        self._timeout = timeout
        self._workers: list[_Worker] = []
        try:
            for _ in range(processes):
                self._start()
        except BaseException:
            self.close()
            raise

    def run(self, block: bool = True) -> None:
        """Takes in what the processes have to say and gives them work; with `block`, waits until one says something."""
        for worker in self._workers:
            self._give_work(worker)
        waiting_for = {worker.connection: worker for worker in self._workers}
        for connection in wait(waiting_for, timeout=None if block else 0):
            self._listen(waiting_for[connection])

    def close(self) -> None:
        """Ends the processes, at once."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.connection.close()
        self._workers.clear()

    def _start(self) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, self._timeout), daemon=True)
        # Ctrl-C goes to every process of the terminal; only this one shall act on it, and ends the others. They inherit
        # the mask, unless the start of the resource tracker, which the first process would cause, has undone it.
        resource_tracker.ensure_running()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            with _without_main():
                process.start()
            self._workers.append(_Worker(process, ours))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        theirs.close()  # so that its end is noticed when the process dies

    def _give_work(self, worker: _Worker) -> None:
        while self._todo and len(worker.chunks) < _AHEAD:
            chunk = self._todo.popleft()
            worker.chunks.append(chunk)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has died, which `_listen` sees to
                worker.connection.send((chunk.path, chunk.tasks, chunk.failures))

    def _listen(self, worker: _Worker) -> None:
        try:
            while worker.connection.poll():
                message = worker.connection.recv()
                if isinstance(message, Exception):
                    raise message
                if message == _READY:
                    worker.ready = True
                elif message == _CHUNK_DONE:
                    worker.chunks.popleft().done = True
                    worker.position = 0
                else:
                    worker.position = message
        except (EOFError, ConnectionResetError):
            self._bury(worker)

    def _bury(self, worker: _Worker) -> None:
        """A process died: counts it against the task that was at work, and starts another in its place."""
        worker.process.join()
        worker.connection.close()
        self._workers.remove(worker)
        ending = _ending(worker.process.exitcode)
        if not worker.ready:
            raise UserError(f"a process to read files could not be started ({ending}): try again with fewer processes")
        if worker.chunks:
            chunk, position = worker.chunks[0], worker.position
            partial_path(chunk.path, worker.process.pid).unlink(missing_ok=True)
            chunk.deaths[position] += 1
            if chunk.deaths[position] >= _DEATHS:
                chunk.failures[position] = Failure(
                    f"took longer than {self._timeout:g} s"
                    if worker.process.exitcode == -signal.SIGALRM
                    else f"reading it ended the process ({ending})"
                )
        self._todo.extendleft(reversed(worker.chunks))
        self._start()


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Hides the module that was started, which new processes would run once more: a user's script has no guard."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _ending(exit_code: int) -> str:
    """How a process ended, for people."""
    if exit_code == -signal.SIGKILL:
        return "killed, as for lack of memory"
    return signal.strsignal(-exit_code) if exit_code < 0 else f"exit code {exit_code}"


def _work(connection: Connection, timeout: float) -> None:
    """What a process does: chunks, until there is nobody to give it any."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process even inside a decoder that never returns
    try:
        connection.send(_READY)
        _mute()
        while True:
            path, tasks, failures = connection.recv()
            write_results(path, _results(connection, tasks, failures, timeout))
            connection.send(_CHUNK_DONE)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception as error:
        connection.send(error)


def _mute() -> None:
    """Sends away what libraries print about damaged files: the report says it, with the file's name."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)


def _results(
    connection: Connection, tasks: Sequence[Task], failures: dict[int, Failure], timeout: float
) -> Iterator[Result]:
    for position, task in enumerate(tasks):
        connection.send(position)
        yield failures.get(position) or _convert(task, timeout)


def _convert(task: Task, timeout: float) -> Result:
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        return attempt(task)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def attempt(task: Task) -> Result:
    """Runs a task here; what goes wrong is a failure."""
    try:
        return task()
    except Unreadable as error:
        return Failure(str(error))
    except Exception as error:  # nobody knows all that decoders raise; the place tells a fault of ours from a file's
        place = traceback.extract_tb(error.__traceback__)[-1]
        message = " ".join(str(error).split())[:_LONGEST]
        return Failure(f"{type(error).__name__}: {message} ({Path(place.filename).name}, line {place.lineno})")
