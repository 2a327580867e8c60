"""The fusion stage's training step: random layout, stratified layout, and without missing augmentation.

python -m benchmarks.train_step [--config=configs/av_mnist.py] [--data=DIR]

Missing augmentation keeps both modalities, only the first or only the second, a third of the rows each. The random
layout runs every encoder on every row all the same; the stratified one runs it on the two thirds that keep its
modality. The table gives the median time of a step on one batch that lies on the device, and the ratio of the medians
to the random layout's.
"""

from collections.abc import Sequence

import numpy as np

from benchmarks import timing, workload
from umemma_jax import experiment as experiment_lib
from umemma_jax import sharding, train

VARIANTS = {
    "random": {"layout": "random", "augment": True},
    "stratified": {"layout": "stratified", "augment": True},
    "without augmentation": {"layout": "random", "augment": False},
}
ROUNDS = 30


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = workload.parse(__doc__, "benchmarks/multibench.py", argv)
    config = arguments.config
    with workload.data_folder(arguments.data, 4 * config.data.batch_size, config.evaluation.batch_size) as config.data.dir:
        runs = {}
        for name, missing in VARIANTS.items():
            config.missing.update(missing)
            experiment = experiment_lib.build(config.copy_and_resolve_references())
            if not runs:
                variables = train.initial_variables(experiment)
                batch = sharding.put_batch(next(train.training_batches(experiment, "fusion")), experiment.mesh)
            step = workload.fusion_step(experiment, variables)
            runs[name] = lambda step=step: step(batch)
        seconds = timing.interleaved(runs, 2 if arguments.quick else ROUNDS)
    medians = {name: np.median(values) for name, values in seconds.items()}
    timing.print_table(
        f"Training step, stage fusion, batch {config.data.batch_size}",
        ("missing modalities", "ms", "examples/s", "ratio to random"),
        [
            (name, f"{1e3 * t:.1f}", f"{config.data.batch_size / t:,.0f}", f"{t / medians['random']:.2f}")
            for name, t in medians.items()
        ],
    )


if __name__ == "__main__":
    main()
