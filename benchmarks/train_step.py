"""The fusion stage's training step on complete and on incomplete data: how little of what is absent is computed.

python -m benchmarks.train_step [--config=configs/av_mnist.py] [--data=DIR]

Missing augmentation keeps both modalities, only the first or only the second, a third of the rows each. In the random
layout, `all rows` runs every encoder on every row all the same, `compacted` on a static number of rows that nearly
always holds those that keep its modality; `stratified` runs it on the two thirds of the positions that do. The same
again with 70 % of the examples lacking one modality for good. The table gives the median time of a step on batches that
lie on the device, and the median over rounds of its ratio to the time of `all rows` in the same round.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from benchmarks import timing, workload
from umemma_jax import experiment as experiment_lib
from umemma_jax.devices import sharding
from umemma_jax.training import stages, train

DATA = {"complete": 0.0, "70 % incomplete": 0.7}
VARIANTS = {
    "all rows": {"layout": "random", "augment": True, "capacities": 0},
    "compacted": {"layout": "random", "augment": True, "capacities": 1},
    "stratified": {"layout": "stratified", "augment": True, "capacities": 1},
    "without augmentation": {"layout": "random", "augment": False, "capacities": 1},
}
BATCHES = 8
SECONDS = 40.0


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = workload.parse(__doc__, "benchmarks/multibench.py", argv)
    config = arguments.config
    batch_size = config.data.batch_size
    splits = {"train": BATCHES * batch_size, "test": config.evaluation.batch_size}
    kinds = DATA if not arguments.quick else {"70 % incomplete": DATA["70 % incomplete"]}
    with workload.data_folder(arguments.data, splits) as config.data.dir:
        runs = {}
        for (data, rate), (variant, missing) in itertools.product(kinds.items(), VARIANTS.items()):
            config.missing.update({**missing, "eta": {"rate": rate}})
            runs[data, variant] = stepping(config.copy_and_resolve_references())
        seconds = timing.interleaved(runs, 0 if arguments.quick else SECONDS)
    rows = []
    for (data, variant), values in seconds.items():
        median, ratio = np.median(values), np.median(values / seconds[data, "all rows"])
        rows.append((f"{data}, {variant}", f"{1e3 * median:,.1f}", f"{batch_size / median:,.0f}", f"{ratio:.2f}"))
    timing.print_table(
        f"Training step, stage fusion, batch {batch_size}: medians of {len(values)} steps each",
        ("", "ms", "examples/s", "time / all rows"),
        rows,
    )


def stepping(config: ConfigDict) -> Callable[[], Any]:
    """A call takes a step on the next of BATCHES batches."""
    experiment = experiment_lib.build(config)
    pipeline = stages.training_batches(experiment, "fusion")
    batches = [sharding.put_batch(next(pipeline), experiment.mesh) for _ in range(BATCHES)]
    step = workload.fusion_step(experiment, train.initial_variables(experiment))
    turns = itertools.cycle([functools.partial(step, batch) for batch in batches])
    return lambda: next(turns)()


if __name__ == "__main__":
    workload.run(main)
