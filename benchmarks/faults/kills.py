"""Runs killed at random moments and started again with the same command, and second processes on their workdirs.

Every run, of both stages or of a fusion head on stored features, must end with the parameters of one that nobody
disturbed, bit for bit, and with nothing half-written in its workdir.
"""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.faults.trial import REFUSED, SAME, SILENT, TRACEBACK
from tests import small_run
from umemma_jax import experiment
from umemma_jax.training import train
from umemma_jax.training.lock import locked

COUNT = 20
KILLS = 10  # of one run at most
ROOT = Path(__file__).resolve().parents[2]
CHANGES = ({}, {"fusion__only": True, "missing__layout": "random"})
RECIPE = """
from tests import small_run

def get_config():
    return small_run.get_config({path!r}, **{changes!r})
"""


def run(rng: np.random.Generator, count: int, folder: Path) -> Iterator[tuple[str, str, str]]:
    """An outcome for each kill, and for each second process."""
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax tells more than once what it is asked to do
    small_run.write_dataset(folder / "data")
    recipes = [_Recipe(folder, str(number), changes) for number, changes in enumerate(CHANGES)]
    killed = number = 0
    while killed < count:
        recipe, workdir = recipes[number % len(recipes)], folder / f"run{number}"
        kills = 0
        while kills < min(KILLS, count - killed) and recipe.killed(rng, workdir):
            kills += 1
        yield "second process", *recipe.beside_another(workdir)
        outcome = recipe.finished(workdir)
        for _ in range(max(kills, 1)):
            yield "kills", *outcome
        killed, number = killed + kills, number + 1


class _Recipe:
    """A config file, and what its undisturbed run comes to."""

    def __init__(self, folder: Path, name: str, changes: dict[str, Any]) -> None:
        changes = {"checkpoint_every": 2, **changes}
        self._file = folder / f"recipe{name}.py"
        self._file.write_text(RECIPE.format(path=str(folder / "data"), changes=changes))
        self._built = experiment.build(small_run.get_config(folder / "data", **changes))
        whole = folder / f"whole{name}"
        self._start(whole).communicate()
        self._expected = self._parameters(whole)

    def killed(self, rng: np.random.Generator, workdir: Path) -> bool:
        """Starts the run and kills it after a random number of steps and a moment; False if it has ended before."""
        process, steps = self._start(workdir), _lines(workdir) + rng.integers(10)
        _wait(process, lambda: _lines(workdir) >= steps)
        time.sleep(rng.uniform(0, 0.2))
        killed = process.poll() is None
        process.kill()
        process.communicate()
        return killed

    def beside_another(self, workdir: Path) -> tuple[str, str]:
        """The outcome of the same command where this process holds the workdir, as another run would."""
        with locked(workdir):
            _, errors = self._start(workdir).communicate()
        return (REFUSED if errors.startswith("error: ") and errors.count("\n") == 1 else TRACEBACK), errors

    def finished(self, workdir: Path) -> tuple[str, str]:
        """The outcome of the run after all its kills."""
        process = self._start(workdir)
        _, errors = process.communicate()
        if process.returncode or errors:
            return TRACEBACK, errors
        left = [str(path) for path in workdir.rglob("*") if "partial" in path.name or "tmp" in path.name]
        if left:
            return SILENT, f"left half-written: {', '.join(left)}"
        same = jax.tree.all(jax.tree.map(np.array_equal, self._parameters(workdir), self._expected))
        return (SAME, "") if same else (SILENT, f"{workdir}: other parameters")

    def _parameters(self, workdir: Path) -> Any:
        trained = train.load(self._built, workdir)
        return jax.device_get((trained.unimodal, trained.fusion))

    def _start(self, workdir: Path) -> subprocess.Popen:
        command = [sys.executable, "main.py", f"--config={self._file}", f"--workdir={workdir}"]
        pipe = subprocess.PIPE
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)


def _lines(workdir: Path) -> int:
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _wait(process: subprocess.Popen, ready: Callable[[], bool]) -> None:
    while not ready() and process.poll() is None:
        time.sleep(0.005)
