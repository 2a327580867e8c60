"""A real scheduler and two real workers on this machine, in processes of their own."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.data_prep.conversions import Slow, Twice
from tests.data_prep.prepared import contents
from tests.data_prep.raw_photos import photo_bytes
from tests.processes import ROOT, free_port
from umemma_jax.data_prep.build.parallel import run_tasks
from umemma_jax.data_prep.build.results import Failure
from umemma_jax.data_prep.build.tasks import FileTask
from umemma_jax.errors import UserError

distributed = pytest.importorskip("distributed", reason="the extra `dask` is not installed")


def start(*arguments, daemon=False):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DASK_DISTRIBUTED__WORKER__DAEMON": str(daemon)}
    command = [sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *arguments[1:]]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def start_worker(address, folder, **options):
    return start("worker", address, "--nthreads=1", "--no-dashboard", f"--local-directory={folder}", **options)


@pytest.fixture(scope="module")
def scheduler():
    """Its address."""
    port = free_port()
    process = start("scheduler", f"--port={port}", "--host=127.0.0.1", "--no-dashboard")
    yield f"127.0.0.1:{port}"
    process.kill()
    process.wait()


@pytest.fixture
def workers(scheduler, tmp_path):
    """Two of them."""
    processes = [start_worker(scheduler, tmp_path / f"worker{number}") for number in range(2)]
    with distributed.Client(scheduler, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
        yield processes
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
        while client.nthreads():
            time.sleep(0.05)


def tasks_of(folder, *contents, convert=Twice()):  # noqa: B008
    folder.mkdir()
    paths = [folder / f"{number:03d}" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return [FileTask(convert, path) for path in paths]


def test_results_and_failures_are_those_of_one_machine(scheduler, workers, tmp_path):
    tasks = tasks_of(tmp_path / "files", *(b"%d" % n for n in range(9)), b"unreadable", b"bug", b"crash", b"hang")
    found = {}
    for name, processes in (("here", 2), ("cluster", scheduler)):
        (tmp_path / name).mkdir()
        found[name] = list(run_tasks(tasks, tmp_path / name, processes, timeout=1.0, chunk=3))
    assert found["cluster"] == found["here"]
    assert found["cluster"][-1] == Failure("took longer than 1 s")
    chunks = [{path.name: path.read_bytes() for path in (tmp_path / name).glob("*.chunk")} for name in found]
    assert chunks[0] == chunks[1] and len(chunks[0]) == 5


def test_a_lost_worker_costs_no_result(scheduler, workers, tmp_path):
    log = tmp_path / "log"
    tasks = tasks_of(tmp_path / "files", *[b""] * 12, convert=Slow(log, 0.1))
    (tmp_path / "work").mkdir()
    found = []
    for result in run_tasks(tasks, tmp_path / "work", scheduler, chunk=1):
        found.append(result)
        if len(found) == 1:
            kill_with_children(workers[0])
    assert found == [task.path.name.encode() for task in tasks]


def kill_with_children(process):
    """A worker's nanny is killed, and the worker that it watches over, as when a machine is lost."""
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False)
    for pid in (process.pid, *map(int, children.stdout.split())):
        os.kill(pid, signal.SIGKILL)


def test_a_table_is_prepared_to_the_same_bytes(scheduler, workers, tmp_path):
    for number in range(12):
        (tmp_path / f"{number}.jpg").write_bytes(photo_bytes(number))
    lines = [f"{number}.jpg,title {number},{'ab'[number % 2]}" for number in range(12)]
    (tmp_path / "mine.csv").write_text("\n".join(["photo,title,kind", *lines]))
    for out, how in (("here", "--processes=2"), ("cluster", f"--scheduler={scheduler}")):
        arguments = [f"--table={tmp_path / 'mine.csv'}", "--image=photo", "--text=title", "--label=kind"]
        command = [sys.executable, "-m", "data_prep.table", *arguments, f"--out={tmp_path / out}", how]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "cluster") == contents(tmp_path / "here")


def test_workers_that_may_start_no_process(scheduler, tmp_path):
    worker = start_worker(scheduler, tmp_path / "worker", daemon=True)
    (tmp_path / "work").mkdir()
    with pytest.raises(UserError, match="set DASK_DISTRIBUTED__WORKER__DAEMON=False where they are started"):
        list(run_tasks(tasks_of(tmp_path / "files", b"a"), tmp_path / "work", scheduler))
    worker.terminate()
    worker.wait()


def test_nobody_there(tmp_path, monkeypatch):
    monkeypatch.setattr("umemma_jax.data_prep.build.cluster.PATIENCE", 0.5)
    with pytest.raises(UserError, match=r"--scheduler=127.0.0.1:\d+: no Dask scheduler answers there"):
        list(run_tasks(tasks_of(tmp_path / "files", b"a"), tmp_path, f"127.0.0.1:{free_port()}"))


def test_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r"needs distributed, .*pip install .umemma_jax\[dask\]"):
        list(run_tasks(tasks_of(tmp_path / "files", b"a"), tmp_path, "127.0.0.1:1"))
