"""What training holds on the device between steps, as a multiple of the parameters.

python -m benchmarks.state_memory [--config=benchmarks/two_transformers.py] [--data=DIR] [--quick]

Whatever arrays there are between the steps of the real training loop, once it has run for a while, on the first
device: parameters, the optimiser's slots, moving average, best epochs, the batch, what earlier stages have left. XLA's
scratch space within a step is not in it (`benchmarks.roofline` shows that).

Stage unimodal keeps the best epoch of every modality: once more the parameters. `fusion after unimodal` is the fusion
stage of a run that had both.
"""

import contextlib
import gc
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import jax
from ml_collections import ConfigDict

from benchmarks import timing, workload
from umemma_jax import experiment as experiment_lib
from umemma_jax.experiment import Experiment
from umemma_jax.training import train
from umemma_jax.training.progress import Progress

PyTree = Any
STEPS = 4
FUSION = {"unimodal.epochs": 0, "fusion.epochs": 1}
BOTH = {"unimodal.epochs": 1, "fusion.epochs": 1}
RUNS = {
    # row: (stage that is looked at, fields of the config)
    "fusion, AdamW": ("fusion", FUSION),
    "fusion, AdamW, moments in bfloat16": ("fusion", {**FUSION, "fusion.moments": "bfloat16"}),
    "fusion, AdamW, moving average": ("fusion", {**FUSION, "fusion.ema": 0.99}),
    "fusion, SGD with momentum": ("fusion", {**FUSION, "fusion.optimizer": "sgd"}),
    "fusion, frozen encoders": ("fusion", {**FUSION, "inputs.*.frozen": True}),
    "unimodal, AdamW": ("unimodal", BOTH),
    "fusion after unimodal, AdamW": ("fusion", BOTH),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = workload.parse(__doc__, "benchmarks/two_transformers.py", argv)
    config = arguments.config
    splits = {"train": STEPS * config.data.batch_size, "test": 1}
    rows = []
    with workload.data_folder(arguments.data, splits) as config.data.dir:
        config.data.validation_share = 0.0
        config.log_every, config.checkpoint_every = 1, 10**9
        for name, (stage, fields) in RUNS.items():
            print(name, file=sys.stderr)
            experiment = experiment_lib.build(changed(config, fields))
            parameters, held = bytes_between_steps(experiment, stage)
            rows.append((name, f"{parameters / 1e6:,.1f}", f"{held / 1e6:,.1f}", f"{held / parameters:.2f}"))
    timing.print_table(
        f"Memory between steps, batch {config.data.batch_size}: all arrays on the first device",
        ("", "parameters, MB", "held, MB", "held / parameters"),
        rows,
    )


def changed(config: ConfigDict, fields: Mapping[str, Any]) -> ConfigDict:
    """A copy with other values; `*` stands for every modality."""
    config = config.copy_and_resolve_references()
    for field, value in fields.items():
        for name in config.modalities if "*" in field else ("",):
            config.update_from_flattened_dict({field.replace("*", name): value})
    return config


def bytes_between_steps(experiment: Experiment, stage: str) -> tuple[int, int]:
    """Bytes of the parameters, and the most that is held between steps of a stage but for its first and its last."""
    samples = []

    class Watched(Progress):
        """Looks at the arrays after each step of the stage."""

        def __init__(self, workdir: Path, name: str, total_steps: int, *args: Any, **kwargs: Any) -> None:
            super().__init__(workdir, name, total_steps, *args, **kwargs)
            self.looked_at = range(2, total_steps) if name == stage else ()

        def update(self, step: int) -> None:
            super().update(step)
            if step in self.looked_at:
                samples.append(bytes_on_first_device(jax.live_arrays()))

    gc.collect()  # what the run before has left
    with (
        tempfile.TemporaryDirectory(prefix="umemma_jax_benchmark_") as folder,
        contextlib.redirect_stdout(sys.stderr),
        mock.patch.object(train, "Progress", Watched),
    ):
        trained = train.train(experiment, Path(folder))
    return bytes_on_first_device(jax.tree.leaves(trained.fusion["params"])), max(samples)


def bytes_on_first_device(arrays: Iterable[jax.Array]) -> int:
    """What they keep there; arrays that share memory, as those that Orbax makes of shards do, count once."""
    first = jax.local_devices()[0]
    shards = [
        shard.data for x in arrays if not x.is_deleted() for shard in x.addressable_shards if shard.device == first
    ]
    return sum({x.unsafe_buffer_pointer(): x.nbytes for x in shards}.values())


if __name__ == "__main__":
    workload.run(main)
