"""What training holds on the device between steps, as a multiple of the parameters.

python -m benchmarks.state_memory [--config=benchmarks/two_transformers.py] [--data=DIR] [--quick]

Whatever arrays there are between the steps of the real training loop, once it has run for a while, on the first
device: parameters, the optimiser's slots, moving average, best epochs, the batch, what earlier stages have left. XLA's
scratch space within a step is not in it (`benchmarks.roofline` shows that).

With validation both stages keep their best epochs: once more the parameters. `fusion after unimodal` is the fusion
stage of a run that had both.
"""

import collections
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
RUNS = [
    # fields of the config, and the row of each stage
    ({}, {"fusion": "fusion, AdamW"}),
    ({"fusion.moments": "bfloat16"}, {"fusion": "fusion, AdamW, moments in bfloat16"}),
    ({"fusion.ema": 0.99}, {"fusion": "fusion, AdamW, moving average"}),
    ({"fusion.optimizer": "sgd"}, {"fusion": "fusion, SGD with momentum"}),
    ({"inputs.*.frozen": True}, {"fusion": "fusion, frozen encoders"}),
    (
        {"unimodal.epochs": 1, "data.validation_share": 0.2},
        {"unimodal": "unimodal, AdamW, best epochs", "fusion": "fusion after unimodal, AdamW, best epoch"},
    ),
]


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = workload.parse(__doc__, "benchmarks/two_transformers.py", argv)
    config = arguments.config
    splits = {"train": 2 * STEPS * config.data.batch_size, "test": 1}  # of which some are for validation
    rows = []
    with workload.data_folder(arguments.data, splits) as config.data.dir:
        config.data.validation_share = 0.0
        config.log_every, config.checkpoint_every = 1, 10**9
        config.unimodal.epochs, config.fusion.epochs = 0, 1
        for fields, names in RUNS:
            print(*names.values(), sep="; ", file=sys.stderr)
            parameters, held = bytes_between_steps(experiment_lib.build(changed(config, fields)))
            for stage, name in names.items():
                cells = (f"{parameters / 1e6:,.1f}", f"{held[stage] / 1e6:,.1f}", f"{held[stage] / parameters:.2f}")
                rows.append((name, *cells))
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


def bytes_between_steps(experiment: Experiment) -> tuple[int, Mapping[str, int]]:
    """Bytes of the parameters, and by stage the most that is held between its steps but for its first and its last."""
    held = collections.defaultdict(int)

    class Watched(Progress):
        """Looks at the arrays after each step."""

        def __init__(self, workdir: Path, stage: str, total_steps: int, *args: Any, **kwargs: Any) -> None:
            super().__init__(workdir, stage, total_steps, *args, **kwargs)
            self.stage, self.looked_at = stage, range(2, total_steps)

        def update(self, step: int) -> None:
            super().update(step)
            if step in self.looked_at:
                held[self.stage] = max(held[self.stage], bytes_on_first_device(jax.live_arrays()))

    gc.collect()  # what the run before has left
    with (
        tempfile.TemporaryDirectory(prefix="umemma_jax_benchmark_") as folder,
        contextlib.redirect_stdout(sys.stderr),
        mock.patch.object(train, "Progress", Watched),
    ):
        trained = train.train(experiment, Path(folder))
    return bytes_on_first_device(jax.tree.leaves(trained.fusion["params"])), held


def bytes_on_first_device(arrays: Iterable[jax.Array]) -> int:
    """What they keep there; arrays that share memory, as those that Orbax makes of shards do, count once."""
    first = jax.local_devices()[0]
    shards = [
        shard.data for x in arrays if not x.is_deleted() for shard in x.addressable_shards if shard.device == first
    ]
    return sum({x.unsafe_buffer_pointer(): x.nbytes for x in shards}.values())


if __name__ == "__main__":
    workload.run(main)
