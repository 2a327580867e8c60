"""Bits flipped in a checkpoint of a small run, over all of its files, and files that are gone or of another checkpoint.

A file is drawn first and a bit in it second, so that small files are hit as often as large ones.
"""

import functools
import shutil
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from benchmarks.faults.trial import flipped, outcome
from tests import small_run
from umemma_jax import experiment
from umemma_jax.training import stages, steps, train
from umemma_jax.training.checkpoint import Checkpoints
from umemma_jax.training.workdir import run_digest

COUNT = 500
STAGE = "fusion"


def run(rng: np.random.Generator, count: int, folder: Path) -> Iterator[tuple[str, str, str]]:
    """Outcomes of restoring the last state of the stage, and the position in the data."""
    small_run.write_dataset(folder / "data")
    built = experiment.build(small_run.get_config(folder / "data", unimodal__epochs=0, fusion__epochs=2))
    trained = train.train(built, folder / "run")
    spec, _ = stages.stage_spec(built, STAGE)
    like = jax.jit(functools.partial(steps.init_state, spec))(trained.fusion)
    run_id = run_digest(built.config, built.fingerprints)
    stage = folder / "run" / "checkpoints" / STAGE
    older, newest = sorted(stage.iterdir(), key=lambda path: int(path.name))
    last = int(newest.name)

    def restore() -> tuple[object, object]:
        batches = stages.training_batches(built, STAGE)
        with Checkpoints(folder / "run", STAGE, run=run_id) as checkpoints:
            return jax.device_get(checkpoints.restore(last, like, batches)), batches.get_state()

    written = restore()

    def same(found: tuple[object, object]) -> bool:
        return found[1] == written[1] and jax.tree.all(jax.tree.map(np.array_equal, found[0], written[0]))

    files = sorted(path for path in newest.rglob("*") if path.is_file())
    for _ in range(count):
        file = files[rng.integers(len(files))]
        with flipped(file, rng, whole_byte=bool(rng.integers(2))) as position:
            result, said = outcome(restore, same)
        yield "flips", result, f"{file.relative_to(newest)}, byte {position}: {said}"
    aside = folder / "aside"
    for file in files:
        file.rename(aside)
        result, said = outcome(restore, same)
        yield "files that are gone", result, f"{file.relative_to(newest)}: {said}"
        aside.rename(file)
    for file in files:
        other = older / file.relative_to(newest)
        if other.is_file() and other.read_bytes() != file.read_bytes():
            shutil.copy(file, aside)
            shutil.copy(other, file)
            result, said = outcome(restore, same)
            yield "files of another checkpoint", result, f"{file.relative_to(newest)}: {said}"
            shutil.copy(aside, file)
