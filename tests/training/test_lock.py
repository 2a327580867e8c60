"""The lock of a workdir, with processes that hold it, wait for it, and die with it."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from umemma_jax.errors import UserError
from umemma_jax.training.lock import locked

HOLDER = """
import pathlib, sys, time
from umemma_jax.training.lock import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_one_at_a_time_and_nothing_is_left(tmp_path):
    workdir = tmp_path / "runs" / "a"
    with locked(workdir), locked(tmp_path / "runs" / "b"):
        with pytest.raises(UserError) as error, locked(workdir):
            pass
        assert str(error.value).startswith(
            f"--workdir={workdir} is in use by process {os.getpid()} on {socket.gethostname()} since 20"
        )
        assert str(error.value).endswith(": wait until it ends, or end it, or choose another --workdir")
    with locked(workdir):
        pass
    assert list(workdir.iterdir()) == []


def test_a_killed_process_holds_nothing(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"is in use by process {process.pid} on "), locked(tmp_path):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (tmp_path / ".lock").exists()
    with locked(tmp_path):
        assert f"process {os.getpid()} on " in (tmp_path / ".lock").read_text()


def test_the_patient_get_it_one_after_another(tmp_path):
    inside = []

    def enter():
        with locked(tmp_path, patience=60):
            inside.append(1)
            assert len(inside) == 1
            inside.pop()

    threads = [threading.Thread(target=enter) for _ in range(8)]
    with locked(tmp_path):
        for thread in threads:
            thread.start()
    for thread in threads:
        thread.join()
    assert inside == [] and not (tmp_path / ".lock").exists()


def test_without_locks_there_is_a_warning(tmp_path, monkeypatch, capsys):
    def no_locks(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with locked(tmp_path):
        pass
    assert capsys.readouterr().err == (
        f"warning: {tmp_path}/.lock: there are no locks here: start no second process on this folder\n"
    )


def a_file(path):
    path.write_text("kept")


def circle(path):
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("name", "make", "reason"),
    [
        ("a", a_file, "it is no folder"),
        ("a/b", lambda path: a_file(path.parent), "Not a directory"),
        ("a" * 256, lambda path: None, "File name too long"),
        ("a", circle, "it is no folder"),
        ("a/b", lambda path: circle(path.parent), "Too many levels of symbolic links"),
        ("a", lambda path: (path / ".lock").mkdir(parents=True), "Is a directory"),
    ],
)
def test_what_is_no_folder_to_write_to(tmp_path, name, make, reason):
    make(tmp_path / name)
    with pytest.raises(UserError) as error, locked(tmp_path / name):
        pass
    assert str(error.value) == (
        f"--workdir={tmp_path / name} cannot be written ({reason}): make room or choose another --workdir"
    )
