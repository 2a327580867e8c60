import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from tests.data_prep.conversions import Slow, Twice
from umemma_jax.data_prep.build import pool
from umemma_jax.data_prep.build.parallel import run_tasks, work_folder, work_folder_path
from umemma_jax.data_prep.build.results import Failure
from umemma_jax.data_prep.build.tasks import FileTask
from umemma_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def files(tmp_path):
    """Writes files with the contents and returns their paths."""

    def write(*contents):
        folder = tmp_path / "files"
        folder.mkdir(exist_ok=True)
        paths = [folder / f"{number:03d}" for number in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        return paths

    return write


def convert(paths, folder, convert=Twice(), processes=2, chunk=3, **options):  # noqa: B008
    folder.mkdir(exist_ok=True)
    tasks = [FileTask(convert, path) for path in paths]
    return list(run_tasks(tasks, folder, processes, chunk=chunk, **options))


@pytest.mark.parametrize("processes", [1, 3])
def test_in_order_for_any_number_of_processes(tmp_path, files, processes):
    contents = [b"%d" % number * number for number in range(20)]
    assert convert(files(*contents), tmp_path / "work", processes=processes) == [2 * content for content in contents]
    assert multiprocessing.active_children() == []


def test_nothing_to_do(tmp_path):
    assert convert([], tmp_path / "work") == []


def test_failures_stand_in_their_places(tmp_path, files):
    paths = files(b"a", b"unreadable", b"b", b"unreadable", b"c")
    expected = [b"aa", Failure("of no use"), b"bb", Failure("of no use"), b"cc"]
    assert convert(paths, tmp_path / "work") == expected
    assert convert(paths, tmp_path / "work") == expected  # as kept


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"crash", "reading it ended the process (Segmentation fault)"),
        (b"hoard", "reading it ended the process (killed, as for lack of memory)"),
        (b"exit", "reading it ended the process (exit code 3)"),
        (b"hang", "took longer than 0.3 s"),
    ],
)
def test_a_file_that_ends_its_process(tmp_path, files, content, reason):
    paths = files(b"a", content, b"b", b"c", content, b"d", b"e")
    expected = [b"aa", Failure(reason), b"bb", b"cc", Failure(reason), b"dd", b"ee"]
    assert convert(paths, tmp_path / "work", timeout=0.3) == expected


def test_the_first_death_is_forgiven(tmp_path, files):
    assert convert(files(b"a", b"crash once", b"b"), tmp_path / "work") == [b"aa", b"finefine", b"bb"]


def test_any_exception_is_a_failure_that_says_where(tmp_path, files):
    found = convert(files(b"a", b"bug", b"c"), tmp_path / "work")
    assert found[::2] == [b"aa", b"cc"]
    assert re.fullmatch(r"ZeroDivisionError: a bug of two lines \(conversions.py, line \d+\)", found[1].reason)


def test_what_libraries_print_is_not_shown(tmp_path, files, capfd):
    assert convert(files(b"noise"), tmp_path / "work") == [b"noisenoise"]
    assert capfd.readouterr() == ("", "")


def test_a_process_that_cannot_start(tmp_path, files, monkeypatch):
    monkeypatch.setattr(pool, "_work", os._exit)
    with pytest.raises(UserError, match=r"could not be started .*: try again with fewer processes"):
        convert(files(b"a"), tmp_path / "work")


def test_processes_end_when_the_results_are_no_longer_wanted(tmp_path, files):
    paths = files(*[b"a", b"hang"] * 10)
    (tmp_path / "work").mkdir()
    results = run_tasks([FileTask(Twice(), path) for path in paths], tmp_path / "work", 2, chunk=1)
    assert next(results) == b"aa"
    results.close()
    assert multiprocessing.active_children() == []


def test_finished_work_is_not_done_again(tmp_path, files):
    paths, log = files(*[b"x"] * 10), tmp_path / "log"
    slow = Slow(log, 0.0)
    first = convert(paths, tmp_path / "work", slow)
    assert convert(paths, tmp_path / "work", slow) == first
    assert len(log.read_text().splitlines()) == 10


def test_replaced_files_and_other_conversions_are_done_again(tmp_path, files):
    paths = files(b"a", b"b", b"c", b"d")
    assert convert(paths, tmp_path / "work") == [b"aa", b"bb", b"cc", b"dd"]
    paths[3].write_bytes(b"new")
    assert convert(paths, tmp_path / "work") == [b"aa", b"bb", b"cc", b"newnew"]
    assert convert(paths, tmp_path / "work", Twice(b"!"))[0] == b"aa!"


def test_damaged_work_is_noticed(tmp_path, files):
    paths = files(b"a", b"b")
    convert(paths, tmp_path / "work")
    (chunk,) = (tmp_path / "work").glob("*.chunk")
    content = bytearray(chunk.read_bytes())
    content[content.index(b"bb")] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(UserError, match=r"finished work is damaged: remove the file and run again"):
        convert(paths, tmp_path / "work")


def test_full_disk(tmp_path, files):
    with pytest.raises(UserError, match=r"cannot be written .*: make room"):
        paths = files(b"a")
        list(run_tasks([FileTask(Twice(), path) for path in paths], tmp_path / "absent", 1))


def test_memory_is_bounded(tmp_path, files):
    """40 MB of results in chunks of 2 MB: a few copies of a chunk at a time, no more."""
    paths = files(*[b"x" * 500_000] * 40)
    (tmp_path / "work").mkdir()
    tracemalloc.start()
    try:
        for result in run_tasks([FileTask(Twice(), path) for path in paths], tmp_path / "work", 2, chunk=2):
            assert len(result) == 1_000_000
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 12_000_000


# --- the folder -------------------------------------------------------------------------------------------------------


def test_folder_is_removed_at_the_end(tmp_path):
    with work_folder(tmp_path / "new" / "out") as folder:
        assert folder == work_folder_path(tmp_path / "new" / "out")
        assert folder.parent == tmp_path / "new"
        (folder / "a.chunk").touch()
    assert not folder.exists()


def test_folder_stays_after_an_exception_if_there_is_work_in_it(tmp_path):
    with pytest.raises(KeyError), work_folder(tmp_path / "out") as folder:
        raise KeyError
    assert not folder.exists()
    with pytest.raises(KeyError), work_folder(tmp_path / "out") as folder:
        (folder / "a.chunk").touch()
        raise KeyError
    assert (folder / "a.chunk").exists()


def test_one_run_at_a_time(tmp_path):
    with (
        work_folder(tmp_path / "out"),
        pytest.raises(UserError, match="another run is preparing this dataset"),
        work_folder(tmp_path / "out"),
    ):
        pass


def test_what_a_killed_run_left_is_removed(tmp_path):
    (tmp_path / "out.work").mkdir()
    for name in ("a.chunk", "b.7.partial"):
        (tmp_path / "out.work" / name).touch()
    with work_folder(tmp_path / "out") as folder:
        assert sorted(path.name for path in folder.iterdir()) == ["a.chunk", "lock"]


# --- killing it -------------------------------------------------------------------------------------------------------

RUN = """
import sys
from pathlib import Path
from umemma_jax.data_prep.build.parallel import run_tasks, work_folder
from umemma_jax.data_prep.build.tasks import FileTask
from tests.data_prep.conversions import Slow
folder, log = Path(sys.argv[1]), Path(sys.argv[2])
tasks = [FileTask(Slow(log, 0.02), path) for path in sorted(folder.iterdir())]
with work_folder(folder.parent / "out") as work:
    print(b" ".join(run_tasks(tasks, work, 2, chunk=5)).decode())
"""  # without a guard of __name__, as people write


def has_ended(process):
    """Whether it ends within some seconds."""
    for _ in range(500):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_killed_and_run_again(tmp_path, files, kill):
    paths, log = files(*[b"x"] * 100), tmp_path / "log"
    script = tmp_path / "run.py"
    script.write_text(RUN)
    command = [sys.executable, str(script), str(paths[0].parent), str(log)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    while len(list((tmp_path / "out.work").glob("*.chunk"))) < 4:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(kill)
    process.wait()
    workers = {int(line.split()[1]) for line in log.read_text().splitlines()}
    assert len(workers) == 2
    assert all(has_ended(worker) for worker in workers)
    kept = len(list((tmp_path / "out.work").glob("*.chunk")))
    assert 4 <= kept < 20

    log.unlink()
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.split() == [path.name for path in paths]
    assert len(log.read_text().splitlines()) == 100 - 5 * kept
    assert not (tmp_path / "out.work").exists()
