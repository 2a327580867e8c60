"""Processes of this machine at work on chunks of tasks.

Whatever goes wrong in a task, in Python or beneath it, is that task's failure and no other's: an exception, a crash, a
process that is killed for its memory, or one that never ends.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import types
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from umemma_jax.data_prep.build.results import Failure, Result, partial_path, write_results
from umemma_jax.data_prep.build.tasks import Chunk, Task, attempt
from umemma_jax.errors import UserError

_DEATHS = 2  # processes that a task may take with it: the first death can have had another cause
_AHEAD = 2  # chunks that a process has been given, so that it need not wait for the next one
_READY, _CHUNK_DONE = "ready", "done"


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    chunks: deque[Chunk] = field(default_factory=deque)  # given to it and not finished, the current one first
    ready: bool = False
    position: int = 0  # of the task at work in the current chunk


class Pool:
    """Processes at work on chunks. All of its methods return to the caller; nothing runs in the background here."""

    def __init__(self, processes: int, todo: deque[Chunk], timeout: float) -> None:
        self._context = multiprocessing.get_context("spawn")  # fork is not safe beside threads
        self._todo = todo
        self._timeout = timeout
        self._workers: list[_Worker] = []
        try:
            for _ in range(min(processes, len(todo))):
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
