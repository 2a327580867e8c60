"""Files read and converted by several processes: in order, in bounded memory, continued where a run was stopped.

Finished work goes to a folder, chunk by chunk. A chunk's name is a hash of what it was made from: the conversions, and
the names, sizes and times of the files. So the same command finds what an earlier run has done, and a file that was
replaced since is converted again. Whoever consumes the results reads them from there: nothing piles up in memory.

Whatever goes wrong in a task, in Python or beneath it, is that task's failure and no other's: an exception, a crash, a
process that is killed for its memory, or one that never ends.
"""

import contextlib
import fcntl
import os
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from umemma_jax.data_prep.build.cluster import Cluster
from umemma_jax.data_prep.build.pool import Pool
from umemma_jax.data_prep.build.results import Result, read_results
from umemma_jax.data_prep.build.tasks import Chunk, Task
from umemma_jax.errors import UserError

CHUNK = 64  # tasks
TIMEOUT = 60.0  # seconds for one task


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
    tasks: Sequence[Task], folder: Path, processes: int | str, timeout: float = TIMEOUT, chunk: int = CHUNK
) -> Iterator[Result]:
    """Runs tasks, each in one of several processes, here or on the machines of a cluster.

    A task that raises an exception is a failure. One that ends its process (a crash, out of memory) or takes longer
    than `timeout` does so once more at most; then it is a failure too.

    Args:
      tasks: what to run.
      folder: keeps finished chunks; one that an earlier run has put there is not made again.
      processes: how many to start; or HOST:PORT of a Dask scheduler, whose workers do it, see `cluster`.
      timeout: seconds that one task may take.
      chunk: tasks that are handed over together.

    Yields:
      One result for each task, in their order.

    Raises:
      UserError: the folder cannot be written, or a chunk in it is damaged.
    """
    chunks = [Chunk(folder, tasks[start : start + chunk]) for start in range(0, len(tasks), chunk)]
    todo = deque(chunk for chunk in chunks if not chunk.done)
    workers = Cluster(processes, todo, timeout) if isinstance(processes, str) else Pool(processes, todo, timeout)
    try:
        for chunk_of_tasks in chunks:
            while not chunk_of_tasks.done:
                workers.run()
            yield from read_results(chunk_of_tasks.path)
            workers.run(block=False)
    finally:
        workers.close()
