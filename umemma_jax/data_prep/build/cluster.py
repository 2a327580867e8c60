"""Chunks of tasks on the workers of a Dask cluster, where one machine is not enough.

The workers see the same files under the same paths, and have umemma_jax installed. Each runs a chunk by
a `Pool` of one process, so that what goes wrong in a task is its failure there as here. Results come back to the
caller, who alone writes: the workers need no access to the folder of finished work.
"""

import contextlib
import multiprocessing
import tempfile
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from umemma_jax import extras
from umemma_jax.data_prep.build.pool import Pool
from umemma_jax.data_prep.build.results import Result, read_results, write_results
from umemma_jax.data_prep.build.tasks import Chunk, Task
from umemma_jax.errors import UserError

PATIENCE = 30.0  # seconds until a scheduler has answered, a first worker is there, and without any worker
_AHEAD = 2  # chunks that each thread of a worker has been given, so that it need not wait for the next one
_CONTINUES = "the same command continues"


class Cluster:
    """The workers of a cluster at work on chunks, as `Pool` has processes."""

    def __init__(self, address: str, todo: deque[Chunk], timeout: float) -> None:
        """Takes HOST:PORT of a scheduler, the chunks, and the seconds that one task may take.

        Raises:
          UserError: the extra is not installed, no scheduler answers, or it has no worker.
        """
        with extras.needed("dask", f"--scheduler={address}"):
            import distributed
        self._distributed, self._address = distributed, address
        self._todo, self._timeout = todo, timeout
        self._given: dict[Any, Chunk] = {}
        try:
            self._client = distributed.Client(address, timeout=PATIENCE, set_as_default=False)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"--scheduler={address}: no Dask scheduler answers there ({reason})") from error
        try:
            self._client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError as error:
            self.close()
            raise UserError(f"--scheduler={address}: it has no worker, start some: `dask worker {address}`") from error

    def run(self, block: bool = True) -> None:
        """Takes in what is finished and gives the workers more; with `block`, waits until something is finished."""
        self._give_work()
        done = self._finished(PATIENCE if block else 0)
        while block and not done:
            if not self._threads():
                raise UserError(f"--scheduler={self._address}: no worker is left: start some; {_CONTINUES}")
            done = self._finished(PATIENCE)
        for future in done:
            chunk = self._given.pop(future)
            write_results(chunk.path, iter(self._result(future)))
            chunk.done = True

    def close(self) -> None:
        """Takes back what is not finished, and leaves."""
        with contextlib.suppress(Exception):  # of a scheduler that is gone
            self._client.cancel(list(self._given), force=True)
        self._client.close(timeout=5)

    def _give_work(self) -> None:
        if not self._todo:
            return  # without asking the scheduler for its workers
        room = _AHEAD * self._threads() - len(self._given)
        for _ in range(min(room, len(self._todo))):
            chunk = self._todo.popleft()
            future = self._client.submit(run_chunk, chunk.tasks, self._timeout, key=chunk.path.stem, pure=False)
            self._given[future] = chunk

    def _finished(self, patience: float) -> list[Any]:
        with contextlib.suppress(TimeoutError), self._client.as_current():
            self._distributed.wait(list(self._given), timeout=patience, return_when="FIRST_COMPLETED")
        return [future for future in self._given if future.done()]

    def _threads(self) -> int:
        return sum(self._client.nthreads().values())

    def _result(self, future: Any) -> list[Result]:
        try:
            return future.result()
        except UserError:
            raise
        except Exception as error:  # of the cluster: a task's own are failures
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"--scheduler={self._address}: {type(error).__name__}: {reason}; {_CONTINUES}") from error


def run_chunk(tasks: Sequence[Task], timeout: float) -> list[Result]:
    """What a worker does: one result for each task.

    Raises:
      UserError: the worker may not start processes.
    """
    if multiprocessing.current_process().daemon:
        raise UserError(
            "the workers may start no process: set DASK_DISTRIBUTED__WORKER__DAEMON=False where they are started"
        )
    with tempfile.TemporaryDirectory(prefix="umemma_jax-") as folder:
        chunk = Chunk(Path(folder), tasks)
        pool = Pool(1, deque([chunk]), timeout)
        try:
            while not chunk.done:
                pool.run()
        finally:
            pool.close()
        return list(read_results(chunk.path))
