"""umemma_jax/training/progress.py: what a training loop shows and leaves behind."""

import json
import os
import pty
import re
import resource
import signal
import subprocess
import sys
import termios
import textwrap
import types

import numpy as np
import pytest

from benchmarks.faults.trial import flipped
from umemma_jax.errors import UserError
from umemma_jax.training import progress as progress_module
from umemma_jax.training.progress import Progress, drop_unfinished
from umemma_jax.training.trackers import TensorBoard


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves; wall-clock times are its seconds too."""
    clock = types.SimpleNamespace(now=100.0)
    fake_time = types.SimpleNamespace(perf_counter=lambda: clock.now, time=lambda: clock.now)
    monkeypatch.setattr(progress_module, "time", fake_time)
    return clock


def records(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def tensorboard_reader(workdir, stage):
    name = "tensorboard.backend.event_processing.event_accumulator"
    return pytest.importorskip(name).EventAccumulator(str(workdir / "tensorboard" / stage))


def tensorboard_scalars(workdir, stage):
    """{tag: [(step, value)]} as TensorBoard itself reads them."""
    reader = tensorboard_reader(workdir, stage).Reload()
    tags = reader.Tags()["scalars"]
    return {tag: [(e.step, pytest.approx(e.value)) for e in reader.Scalars(tag)] for tag in tags}


def run_steps(workdir, first_step, last_step, stage="fusion"):
    """Loss 1/step at each step, a validation at every second step."""
    with Progress(workdir, stage, total_steps=6, first_step=first_step) as progress:
        for step in range(first_step + 1, last_step + 1):
            progress.update(step)
            progress.log(step, {"loss": 1 / step})
            if step % 2 == 0:
                progress.event("validation", step, {"accuracy": step / 10})


def test_plain_lines_show_speed_without_compilation_and_remaining_time(tmp_path, capsys, clock):
    with Progress(tmp_path, "fusion", total_steps=900, examples_per_step=64) as progress:
        clock.now += 30  # compilation
        progress.update(1)
        progress.log(1, {"loss": 2.5})
        for step in range(2, 102):
            clock.now += 0.0125
            progress.update(step)
        progress.log(101, {"learning_rate": 3e-5, "loss": 0.1234})
    assert capsys.readouterr().out.splitlines() == [
        "fusion 1/900  loss 2.5000",
        "fusion 101/900  loss 0.1234  learning_rate 3.00e-05  5,120 examples/s  0:10 left",
    ]


def test_validation_time_counts_for_the_remaining_time_but_not_for_the_speed(tmp_path, capsys, clock):
    with Progress(tmp_path, "fusion", total_steps=3601, examples_per_step=10) as progress:
        progress.update(1)
        clock.now += 1800
        progress.event("validation", 1, {"accuracy": 0.5})
        clock.now += 1800
        progress.update(1801)
        progress.log(1801, {"loss": 1.0})
    assert capsys.readouterr().out.splitlines()[-1] == ("fusion 1801/3601  loss 1.0000  10 examples/s  1:00:00 left")


def test_each_call_appends_one_json_line(tmp_path, clock):
    with Progress(tmp_path, "unimodal", total_steps=9, examples_per_step=8) as progress:
        progress.update(1)
        clock.now += 2
        progress.update(2)
        progress.log(2, {"loss": np.float32(0.5)})
        assert len(records(tmp_path)) == 1, "each line reaches the file at once"
        progress.event("validation", 2, {"image/accuracy": 0.75})
    assert records(tmp_path) == [
        {"stage": "unimodal", "step": 2, "time": 102.0, "loss": 0.5, "examples_per_second": 4.0},
        {
            "stage": "unimodal",
            "step": 2,
            "event": "validation",
            "time": 102.0,
            "image/accuracy": 0.75,
        },
    ]


def test_tensorboard_reads_the_same_numbers(tmp_path):
    run_steps(tmp_path, 0, 4)
    scalars = tensorboard_scalars(tmp_path, "fusion")
    assert scalars["loss"] == [(step, 1 / step) for step in (1, 2, 3, 4)]
    assert scalars["validation/accuracy"] == [(2, 0.2), (4, 0.4)]


def test_resumed_run_has_every_step_once(tmp_path):
    run_steps(tmp_path, 0, 5)  # the last checkpoint was at step 3
    run_steps(tmp_path, 3, 6)
    lines = [(r["step"], r.get("event")) for r in records(tmp_path)]
    assert [step for step, event in lines if event is None] == [1, 2, 3, 4, 5, 6]
    assert [step for step, event in lines if event == "validation"] == [2, 4, 6]
    scalars = tensorboard_scalars(tmp_path, "fusion")
    assert scalars["loss"] == [(step, 1 / step) for step in range(1, 7)]
    assert scalars["validation/accuracy"] == [(2, 0.2), (4, 0.4), (6, 0.6)]


def test_tensorboard_that_is_looking_follows_a_resumed_run(tmp_path):
    run_steps(tmp_path, 0, 5)
    reader = tensorboard_reader(tmp_path, "fusion").Reload()
    run_steps(tmp_path, 3, 4)
    assert [event.step for event in reader.Reload().Scalars("loss")] == [1, 2, 3, 4]


def test_stage_begun_afresh_drops_its_own_lines_only(tmp_path):
    run_steps(tmp_path, 0, 6, stage="unimodal")
    with Progress(tmp_path, "fusion", 6) as progress:
        progress.event("start", 0, {"accuracy": 0.9})
    unimodal = records(tmp_path)[:-1]
    run_steps(tmp_path, 0, 1)
    assert records(tmp_path)[:-1] == unimodal
    assert records(tmp_path)[-1]["stage"] == "fusion"
    assert tensorboard_scalars(tmp_path, "fusion") == {"start/accuracy": [], "loss": [(1, 1.0)]}


def test_half_written_last_line_is_dropped(tmp_path):
    run_steps(tmp_path, 0, 1)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "fusion", "st')
    run_steps(tmp_path, 1, 3)
    assert [r["step"] for r in records(tmp_path) if "event" not in r] == [1, 2, 3]


def test_a_record_that_is_damaged_anywhere_is_read_or_named(tmp_path):
    run_steps(tmp_path, 0, 3)
    path, rng = tmp_path / "metrics.jsonl", np.random.default_rng(0)
    for number in range(300):
        with flipped(path, rng, whole_byte=number % 2 == 0):
            content = path.read_bytes()
            try:
                TensorBoard(tmp_path / "again", "fusion", drop_unfinished(path, "fusion", 3)).close()
            except UserError as error:
                assert re.fullmatch(r".*metrics\.jsonl, line \d: not a record; delete the line", str(error))
                assert path.read_bytes() == content


def test_broken_line_in_the_middle_is_named(tmp_path):
    run_steps(tmp_path, 0, 1)
    path = tmp_path / "metrics.jsonl"
    path.write_text("garbage\n" + path.read_text())
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 1: not a record"):
        run_steps(tmp_path, 0, 1)


def test_killed_process_keeps_every_finished_line(tmp_path):
    script = """
        import os, signal, sys
        from pathlib import Path
        from umemma_jax.training.progress import Progress
        with Progress(Path(sys.argv[1]), "fusion", 6) as progress:
            for step in (1, 2, 3):
                progress.update(step)
                progress.log(step, {"loss": 1 / step})
            os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script), tmp_path])
    assert killed.returncode == -signal.SIGKILL
    assert [r["step"] for r in records(tmp_path)] == [1, 2, 3]
    run_steps(tmp_path, 2, 4)
    loss = tensorboard_scalars(tmp_path, "fusion")["loss"]
    assert loss == [(step, 1 / step) for step in (1, 2, 3, 4)]


def test_bar_on_a_terminal(tmp_path):
    script = """
        import sys
        from pathlib import Path
        from umemma_jax.training.progress import Progress
        with Progress(Path(sys.argv[1]), "fusion", 120, first_step=100, examples_per_step=8) as p:
            for step in range(101, 121):
                p.update(step)
                if step % 10 == 0:
                    p.log(step, {"loss": 0.5})
            p.event("validation", 120, {"accuracy": 0.9})
    """
    reader, terminal = pty.openpty()
    # A pseudo-terminal has no size of its own, and a bar draws nothing on 0 rows.
    termios.tcsetwinsize(terminal, (40, 100))
    command = [sys.executable, "-c", textwrap.dedent(script), tmp_path]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal, text=True)
    os.close(terminal)
    drawn = b""
    while chunk := read_terminal(reader):
        drawn += chunk
    stdout, _ = child.communicate()
    assert child.returncode == 0
    frames = drawn.decode().replace("\n", "\r").split("\r")
    assert any(frame.startswith("fusion 100/120 |") for frame in frames)
    last = next(frame for frame in reversed(frames) if frame.startswith("fusion"))
    assert last.startswith("fusion 120/120 |")
    assert " examples/s  0:00 left  loss 0.5000" in last
    assert stdout == "fusion 120/120  validation  accuracy 0.9000\n"
    assert [r["step"] for r in records(tmp_path)] == [110, 120, 120]


def read_terminal(reader):
    try:
        return os.read(reader, 4096)
    except OSError:  # how Linux reports that the other side has closed
        return b""


def test_inactive_process_writes_and_shows_nothing(tmp_path, capsys):
    with Progress(tmp_path / "run", "fusion", 6, active=False) as progress:
        progress.update(1)
        progress.log(1, {"loss": 1.0})
        progress.event("validation", 1, {"accuracy": 1.0})
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr().out == ""


def test_not_a_number_stays_valid_json(tmp_path, capsys):
    with Progress(tmp_path, "fusion", 6) as progress:
        progress.log(1, {"loss": float("nan")})
    assert records(tmp_path)[0]["loss"] is None
    assert capsys.readouterr().out == "fusion 1/6  loss \u2013\n"
    run_steps(tmp_path, 1, 2)
    loss = tensorboard_scalars(tmp_path, "fusion")["loss"]
    assert [step for step, _ in loss] == [1, 2]


def test_a_note_is_shown_and_recorded_once(tmp_path, capsys):
    with Progress(tmp_path, "fusion", 6) as progress:
        progress.note("it is so")
    assert capsys.readouterr().out == "fusion 0/6  it is so\n"
    run_steps(tmp_path, 1, 2)
    assert [(r["step"], r["text"]) for r in records(tmp_path) if r.get("event") == "note"] == [(0, "it is so")]


def test_names_of_the_record_are_refused_as_values(tmp_path):
    with Progress(tmp_path, "fusion", 6) as progress, pytest.raises(ValueError, match="step"):
        progress.log(1, {"step": 3.0})


def test_workdir_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*file.*choose another --workdir"):
        Progress(tmp_path / "file" / "run", "fusion", 6).__enter__()


def test_full_disk_ends_in_one_line(tmp_path, monkeypatch):
    """A limit on file size stands in for the disk: the same OSError from the same write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        with pytest.raises(UserError, match=r"cannot write to .*; free space"):
            run_steps(tmp_path, 0, 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_pytorch_is_not_loaded():
    """Which takes a second at every start, and which nothing here needs."""
    code = "import sys, umemma_jax.training.progress; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
