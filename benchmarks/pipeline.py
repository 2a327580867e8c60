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

ROUNDS = 7
STEPS = 10  # of a run
PIPELINE_STEPS = 200  # many, since some batches lie ready when a run starts
SYNTHETIC_EXAMPLES = 2000


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = workload.parse(__doc__, "configs/av_mnist.py", argv)
    config = arguments.config
    quick = arguments.quick
    counts = {"pipeline": 4 if quick else PIPELINE_STEPS, "step": 2 if quick else STEPS}
    counts["training"] = counts["step"]
    train_examples = 4 * config.data.batch_size if quick else SYNTHETIC_EXAMPLES
    with workload.data_folder(arguments.data, train_examples, config.evaluation.batch_size) as config.data.dir:
        experiment = experiment_lib.build(config)
        step = workload.fusion_step(experiment, train.initial_variables(experiment))
        batches = {name: train.training_batches(experiment, "fusion") for name in ("pipeline", "training")}
        fixed = sharding.put_batch(next(batches["training"]), experiment.mesh)

        def pipeline() -> None:
            for _ in range(counts["pipeline"]):
                next(batches["pipeline"])

        def step_alone() -> Any:
            for _ in range(counts["step"]):
                metrics = step(fixed)
            return metrics

        def training() -> Any:
            for _ in range(counts["training"]):
                metrics = step(sharding.put_batch(next(batches["training"]), experiment.mesh))
            return metrics

        seconds = timing.interleaved(
            {"pipeline": pipeline, "step": step_alone, "training": training}, 2 if quick else ROUNDS
        )
    rates = {name: counts[name] * config.data.batch_size / np.median(values) for name, values in seconds.items()}
    timing.print_table(
        f"Pipeline and training, stage fusion, batch {config.data.batch_size}, {config.data.threads} reading thread(s)",
        ("", "examples/s", "ratio to step"),
        [(name, f"{rate:,.0f}", f"{rate / rates['step']:.2f}") for name, rate in rates.items()],
    )


if __name__ == "__main__":
    main()
