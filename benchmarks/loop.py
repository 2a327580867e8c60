"""The training loop against the bare step, and the step at growing batch sizes.

python -m benchmarks.loop [--config=benchmarks/multibench.py] [--data=DIR] [--quick]

First table, stage fusion:
- bare step: the jitted step, on batches that lie on the device;
- step on new batches: on a batch that is read and put on the device each time;
- train.train: the real loop, with its batches, its checks, its log and its bar. It is timed from its first line in
  metrics.jsonl to its last but one, so that its start, compiling and the checkpoint at its end are not in it.

They take turns. `time / bare` is the median of the ratios within a turn, the next column where half of them lie. Give
it a recipe whose step takes some tens of milliseconds. What the pipeline takes is in the figure where XLA computes on
the same cores.

Second table: the bare step at batch sizes 1, 2, 4, ... per device, each row drawing what it loses at random: that
layout computes as much for an example in every batch.
"""

import contextlib
import functools
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks import timing, workload
from umemma_jax import experiment as experiment_lib
from umemma_jax.data.pipeline import steps_per_epoch
from umemma_jax.devices import sharding
from umemma_jax.experiment import Experiment
from umemma_jax.training import stages, train

STEPS = 120  # of a run
LARGEST_BATCH = 256  # per device
SYNTHETIC_EXAMPLES = 2000
SECONDS = 120.0
BATCH_SECONDS = 40.0


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = workload.parse(__doc__, "benchmarks/multibench.py", argv)
    config, quick = arguments.config, arguments.quick
    splits = {"train": 4 * config.data.batch_size if quick else SYNTHETIC_EXAMPLES, "test": 1}
    with workload.data_folder(arguments.data, splits) as config.data.dir, compiled_once():
        loop_table(config, 8 if quick else STEPS, 0 if quick else SECONDS)
        batch_table(config, 2 if quick else LARGEST_BATCH, 0 if quick else BATCH_SECONDS)


@contextlib.contextmanager
def compiled_once() -> Any:
    """A compilation cache for this process, since every run of the loop jits its step anew."""
    with tempfile.TemporaryDirectory(prefix="umemma_jax_compiled_") as folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        yield


def loop_table(config: ConfigDict, num_steps: int, seconds: float) -> None:
    """Times so many steps, or a few more, of the loop and of its parts; prints the table."""
    config.log_every = min(config.log_every, num_steps // 4)
    config.checkpoint_every = 10**9
    config.unimodal.epochs = 0
    config.fusion.epochs = 1
    experiment = experiment_lib.build(config)
    epoch_steps = steps_per_epoch(len(experiment.train_rows), config.data.batch_size)
    config.fusion.epochs = -(-num_steps // epoch_steps)

    step = workload.fusion_step(experiment, train.initial_variables(experiment))
    batches = stages.training_batches(experiment, "fusion")

    def next_batch() -> Any:
        return sharding.put_batch(next(batches), experiment.mesh)

    prepared = [next_batch() for _ in range(num_steps)]
    runs = {
        "bare step": lambda: timing.seconds_of(lambda: [step(batch) for batch in prepared]) / num_steps,
        "step on new batches": lambda: (
            timing.seconds_of(lambda: [step(next_batch()) for _ in range(num_steps)]) / num_steps
        ),
        "train.train": functools.partial(steady_seconds, experiment),
    }
    times = timing.interleaved(runs, seconds, clock=lambda run: run())
    rows = []
    for name, t in times.items():
        quarter, ratio, three_quarters = np.percentile(t / times["bare step"], (25, 50, 75))
        rate = config.data.batch_size / np.median(t)
        spread = f"{quarter:.3f} to {three_quarters:.3f}"
        rows.append((name, f"{1e3 * np.median(t):,.2f}", f"{rate:,.0f}", f"{ratio:.3f}", spread))
    timing.print_table(
        f"Stage fusion, batch {config.data.batch_size}, log_every {config.log_every}: medians of "
        f"{len(times['bare step'])} runs of {num_steps} steps",
        ("", "ms a step", "examples/s", "time / bare", "half of the runs"),
        rows,
    )


def steady_seconds(experiment: Experiment) -> float:
    """Seconds a step of the training loop, from the record of a whole run in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="umemma_jax_benchmark_") as folder:
        with contextlib.redirect_stdout(sys.stderr):
            train.train(experiment, Path(folder))
        records = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    first, *_, last, _ = [record for record in records if "event" not in record]
    return (last["time"] - first["time"]) / (last["step"] - first["step"])


def batch_table(config: ConfigDict, largest: int, seconds: float) -> None:
    """Times the bare step at batch sizes that double up to `largest` a device; prints the table."""
    config.missing.layout = "random"
    devices = jax.device_count()
    runs = {}
    for size in [devices << n for n in range(largest.bit_length())]:
        config.data.batch_size = size
        experiment = experiment_lib.build(config.copy_and_resolve_references())
        step = workload.fusion_step(experiment, train.initial_variables(experiment))
        batch = sharding.put_batch(next(stages.training_batches(experiment, "fusion")), experiment.mesh)
        runs[size] = functools.partial(step, batch)
    medians = {size: np.median(t) for size, t in timing.interleaved(runs, seconds).items()}
    alone = medians[devices] / devices
    timing.print_table(
        "Training step at growing batch sizes, stage fusion, random layout: medians",
        ("batch", "ms", "examples/s", "rate / first"),
        [(str(n), f"{1e3 * t:,.2f}", f"{n / t:,.0f}", f"{alone * n / t:.1f}") for n, t in medians.items()],
    )


if __name__ == "__main__":
    workload.run(main)
