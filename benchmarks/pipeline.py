"""The pipeline alone against the step alone, and training, which is both, against the step alone.

python -m benchmarks.pipeline [--config=configs/quickstart.py] [--data=DIR]

- pipeline: batches read, parsed and assembled as NumPy arrays, nothing done with them;
- step: the fusion stage's step on one batch that lies on the device;
- training: the same step on a new batch from the pipeline each time, by the training loop's own parts.

Steps follow each other without waiting; a run of them is waited for at its end. The table gives the median throughput
of each and its ratio to the step's.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import timing, workload
from umemma_jax import experiment as experiment_lib
from umemma_jax import sharding, train

STEPS = 10  # of a run
PIPELINE_STEPS = 200  # many, since a few batches lie ready when a run starts
SYNTHETIC_EXAMPLES = 2000
SECONDS = 30.0


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = workload.parse(__doc__, "configs/av_mnist.py", argv)
    config, quick = arguments.config, arguments.quick
    batch_size, threads = config.data.batch_size, config.data.threads
    num_steps = 2 if quick else STEPS
    num_batches = {"pipeline": 4 if quick else PIPELINE_STEPS, "step": num_steps, "training": num_steps}
    splits = {"train": 4 * batch_size if quick else SYNTHETIC_EXAMPLES, "test": config.evaluation.batch_size}
    with workload.data_folder(arguments.data, splits) as config.data.dir:
        experiment = experiment_lib.build(config)
        step = workload.fusion_step(experiment, train.initial_variables(experiment))
        alone, batches = (train.training_batches(experiment, "fusion") for _ in range(2))
        fixed = sharding.put_batch(next(batches), experiment.mesh)

        def run_pipeline() -> None:
            for _ in range(num_batches["pipeline"]):
                next(alone)

        def run_step() -> Any:
            for _ in range(num_steps):
                metrics = step(fixed)
            return metrics

        def run_training() -> Any:
            for _ in range(num_steps):
                metrics = step(sharding.put_batch(next(batches), experiment.mesh))
            return metrics

        runs = {"pipeline": run_pipeline, "step": run_step, "training": run_training}
        seconds = timing.interleaved(runs, 0 if quick else SECONDS)
    rates = {name: num_batches[name] * batch_size / np.median(values) for name, values in seconds.items()}
    timing.print_table(
        f"Stage fusion, batch {batch_size}, {threads} reading thread(s): medians of {len(seconds['step'])} runs each",
        ("", "examples/s", "rate / step"),
        [(name, f"{rate:,.0f}", f"{rate / rates['step']:.2f}") for name, rate in rates.items()],
    )


if __name__ == "__main__":
    workload.run(main)
