"""main.py in processes of its own, as a user starts it: alone, or several as one run over loopback."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time

from tests.evaluation import said

ROOT = pathlib.Path(__file__).resolve().parents[1]
PRELUDE = "import os, resource, signal, sys; {code}; os.execv(sys.executable, sys.argv[1:])"
# What a shell's foreground job has; a background job's SIGINT may be ignored.
INTERRUPTIBLE = "signal.signal(signal.SIGINT, signal.SIG_DFL)"


def start(*arguments, environment=None, prelude=None):
    """main.py in a process of its own, on one device, where `prelude` has run before.

    (Not as a `preexec_fn`: that forks, which a process with JAX's threads must not.)
    """
    command = [sys.executable, "main.py", *map(str, arguments)]
    if prelude:
        command = [sys.executable, "-c", PRELUDE.format(code=prelude), *command]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_together(count, devices, *arguments):
    """main.py in so many processes of so many devices each."""
    environment = {
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_ENABLE_PREEMPTION_SERVICE": "false",  # as an environment may have it; SIGTERM is heeded all the same
    }
    if count == 1:
        return [start(*arguments, environment=environment)]
    joined = (f"--coordinator=127.0.0.1:{free_port()}", f"--processes={count}")
    return [start(*arguments, *joined, f"--process={n}", environment=environment) for n in range(count)]


def free_port():
    """A port of 127.0.0.1 that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def finish(processes):
    """Standard output of each, all of which succeed."""
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), outputs
    return [output for output, _ in outputs]


def wait_for(process, workdir, stage, step):
    """Returns once the stage has logged the step."""
    path = workdir / "metrics.jsonl"
    while process.poll() is None:
        lines = path.read_text().splitlines() if path.exists() else []
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:  # half-written at this moment
                continue
            if record["stage"] == stage and record["step"] >= step:
                return
        time.sleep(0.005)
    raise AssertionError(f"ended before {stage} {step}: {process.communicate()}")


def figures(workdir):
    """What the report says, but for times and the command, and so its checksum."""
    results = json.loads((workdir / "report" / "report.json").read_text())
    return {name: value for name, value in results.items() if name not in ("timing", "cost", "command", "crc32c")}


def assert_same_figures(found, expected):
    """Of two workdirs: all that is counted to the bit, and the rest as far as probabilities are the same."""
    found, expected = figures(found), figures(expected)
    assert found["patterns"] == expected["patterns"] and found["ceilings"] == expected["ceilings"]
    said.assert_close(found, expected)
