"""The pipeline alone against the step alone, and training, which is both, against the step alone.

python -m benchmarks.pipeline [--config=configs/quickstart.py] [--data=DIR]

- step: the fusion stage's step on one batch that lies on the device;
- pipeline: batches as NumPy arrays, nothing done with them; from disk, each record is read, checked and parsed every
  time; from memory, that was done once at the start, as `config.data.cache_megabytes` allows for a small dataset;
- training: the step on a new batch from that pipeline each time, by the training loop's own parts.

Steps follow each other without waiting; a run of them is waited for at its end. The table gives the median throughput
of each and its ratio to the step's. Where XLA computes on the same cores, what the pipeline takes is not hidden behind
the step, and the lighter the encoders, the larger is its share.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks import timing, workload
from umemma_jax import experiment as experiment_lib
from umemma_jax.data.pipeline import reading_threads
from umemma_jax.devices import sharding
from umemma_jax.training import stages, train

STEPS = 20  # of a run
PIPELINE_STEPS = 200  # many, since a few batches lie ready when a run starts
SYNTHETIC_EXAMPLES = 2000
CACHE_MEGABYTES = {"disk": 0, "memory": 4096}
SECONDS = 40.0


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = workload.parse(__doc__, "benchmarks/multibench.py", argv)
    config, quick = arguments.config, arguments.quick
    batch_size = config.data.batch_size
    num_steps, num_batches = (2, 4) if quick else (STEPS, PIPELINE_STEPS)
    splits = {"train": 4 * batch_size if quick else SYNTHETIC_EXAMPLES, "test": config.evaluation.batch_size}
    with workload.data_folder(arguments.data, splits) as config.data.dir:
        experiment = experiment_lib.build(config)
        threads = config.data.threads or reading_threads(experiment.dataset, experiment.modalities)
        step = workload.fusion_step(experiment, train.initial_variables(experiment))

        def next_step(batches: Any) -> Any:
            return step(sharding.put_batch(next(batches), experiment.mesh))

        fixed = sharding.put_batch(next(stages.training_batches(experiment, "fusion")), experiment.mesh)
        runs = {"step": (num_steps, functools.partial(step, fixed))}
        for place, megabytes in CACHE_MEGABYTES.items():
            config.data.cache_megabytes = megabytes
            alone, consumed = (stages.training_batches(experiment, "fusion") for _ in range(2))
            runs[f"pipeline, {place}"] = (num_batches, functools.partial(next, alone))
            runs[f"training, {place}"] = (num_steps, functools.partial(next_step, consumed))
        repeated = {name: functools.partial(repeat, *run) for name, run in runs.items()}
        seconds = timing.interleaved(repeated, 0 if quick else SECONDS)
    rates = {name: runs[name][0] * batch_size / np.median(values) for name, values in seconds.items()}
    timing.print_table(
        f"Stage fusion, batch {batch_size}, {threads} thread(s) for disk: medians of {len(seconds['step'])} runs each",
        ("", "examples/s", "rate / step"),
        [(name, f"{rate:,.0f}", f"{rate / rates['step']:.2f}") for name, rate in rates.items()],
    )


def repeat(times: int, call: Callable[[], Any]) -> Any:
    """Calls so many times in a row; the last result."""
    for _ in range(times):
        result = call()
    return result


if __name__ == "__main__":
    workload.run(main)
