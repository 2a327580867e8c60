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

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks import timing, workload
from umemma_jax import experiment as experiment_lib
from umemma_jax import sharding, train

STEPS = 20  # of a run
PIPELINE_STEPS = 200  # many, since a few batches lie ready when a run starts
SYNTHETIC_EXAMPLES = 2000
SECONDS = 40.0
MEMORY_MEGABYTES = 4096


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = workload.parse(__doc__, "benchmarks/multibench.py", argv)
    config, quick = arguments.config, arguments.quick
    batch_size = config.data.batch_size
    num_batches = {"step": 2 if quick else STEPS, "pipeline": 4 if quick else PIPELINE_STEPS}
    num_batches["training"] = num_batches["step"]
    splits = {"train": 4 * batch_size if quick else SYNTHETIC_EXAMPLES, "test": config.evaluation.batch_size}
    with workload.data_folder(arguments.data, splits) as config.data.dir:
        experiment = experiment_lib.build(config)
        step = workload.fusion_step(experiment, train.initial_variables(experiment))
        fixed = sharding.put_batch(next(train.training_batches(experiment, "fusion")), experiment.mesh)

        def steps_on(next_batch: Callable[[], Any]) -> Callable[[], Any]:
            def run() -> Any:
                for _ in range(num_batches["step"]):
                    metrics = step(next_batch())
                return metrics

            return run

        def pipeline(batches: Any) -> Callable[[], None]:
            def run() -> None:
                for _ in range(num_batches["pipeline"]):
                    next(batches)

            return run

        def training(batches: Any) -> Callable[[], Any]:
            return steps_on(lambda: sharding.put_batch(next(batches), experiment.mesh))

        runs = {"step": steps_on(lambda: fixed)}
        for name, part in {"pipeline": pipeline, "training": training}.items():
            for place, megabytes in {"disk": 0, "memory": MEMORY_MEGABYTES}.items():
                config.data.cache_megabytes = megabytes
                runs[f"{name}, {place}"] = part(train.training_batches(experiment, "fusion"))
        seconds = timing.interleaved(runs, 0 if quick else SECONDS)
    rates = {name: num_batches[name.split(",")[0]] * batch_size / np.median(values) for name, values in seconds.items()}
    timing.print_table(
        f"Stage fusion, batch {batch_size}, {config.data.threads} reading thread(s): "
        f"medians of {len(seconds['step'])} runs each",
        ("", "examples/s", "rate / step"),
        [(name, f"{rate:,.0f}", f"{rate / rates['step']:.2f}") for name, rate in rates.items()],
    )


if __name__ == "__main__":
    workload.run(main)
