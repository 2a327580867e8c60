"""The fusion stage's training step: random layout, stratified layout, and without missing augmentation.

python -m benchmarks.train_step [--config=configs/av_mnist.py] [--data=DIR]

Missing augmentation keeps both modalities, only the first or only the second, a third of the rows each. The random
layout runs every encoder on every row all the same; the stratified one runs it on the two thirds that keep its
modality. The table gives the median time of a step on one batch that lies on the device, and the ratio of the medians
to the random layout's.
"""

import functools
from collections.abc import Sequence

import numpy as np

from benchmarks import timing, workload
from umemma_jax import experiment as experiment_lib
from umemma_jax import sharding, train

VARIANTS = {
    "random layout": {"layout": "random", "augment": True},
    "stratified layout": {"layout": "stratified", "augment": True},
    "without augmentation": {"layout": "random", "augment": False},
}
SECONDS = 20.0


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = workload.parse(__doc__, "benchmarks/multibench.py", argv)
    config = arguments.config
    batch_size = config.data.batch_size
    splits = {"train": 4 * batch_size, "test": config.evaluation.batch_size}
    with workload.data_folder(arguments.data, splits) as config.data.dir:
        runs = {}
        for name, missing in VARIANTS.items():
            config.missing.update(missing)
            experiment = experiment_lib.build(config.copy_and_resolve_references())
            if not runs:
                variables = train.initial_variables(experiment)
            batch = sharding.put_batch(next(train.training_batches(experiment, "fusion")), experiment.mesh)
            runs[name] = functools.partial(workload.fusion_step(experiment, variables), batch)
        seconds = timing.interleaved(runs, 0 if arguments.quick else SECONDS)
    medians = {name: np.median(values) for name, values in seconds.items()}
    rows = [
        (name, f"{1e3 * t:,.1f}", f"{batch_size / t:,.0f}", f"{t / medians['random layout']:.2f}")
        for name, t in medians.items()
    ]
    timing.print_table(
        f"Training step, stage fusion, batch {batch_size}: medians of {len(seconds['random layout'])} steps each",
        ("", "ms", "examples/s", "time / random"),
        rows,
    )


if __name__ == "__main__":
    workload.run(main)
