"""What the benchmarks measure: a recipe of configs/ or benchmarks/ on prepared or synthetic data."""

import argparse
import contextlib
import dataclasses
import runpy
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from umemma_jax import command, missing
from umemma_jax.data.dataset import DatasetWriter, Modality
from umemma_jax.devices import sharding
from umemma_jax.devices.memory import keep_freed_memory
from umemma_jax.errors import UserError
from umemma_jax.experiment import Experiment
from umemma_jax.model import LateFusion
from umemma_jax.training import stages, steps

PyTree = Any
CLASSES = 10
IMAGE_SHAPE = (28, 28, 1)
SAMPLE_RATE = 8000
SAMPLES = 8000


def run(main: Callable[[], int | None]) -> NoReturn:
    """Runs a benchmark; a user's mistake ends it with one line and exit status 1."""
    keep_freed_memory()  # as a training run does
    command.run(main)


def host() -> jax.Device:
    """The CPU, as a device. Raises UserError where JAX was told to do without."""
    try:
        return jax.devices("cpu")[0]
    except RuntimeError:
        raise UserError("JAX_PLATFORMS leaves out the CPU, on which FLOPs are counted: add it (cuda,cpu)") from None


def parse(description: str, config: str, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line that the benchmarks share, parsed."""
    return parser(description, config).parse_args(argv)


def parser(description: str, config: str) -> command.Parser:
    """The flags that the benchmarks share: `config` (a ConfigDict), `data` (a folder or None), `quick`."""
    summary, _, rest = description.partition("\n\n")
    flags = command.Parser(description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--config", type=load_config, default=config, help="recipe[:argument], default %(default)s")
    flags.add_argument("--data", help="prepared dataset; default: synthetic examples of AV-MNIST's shapes")
    flags.add_argument(
        "--quick", action="store_true", help="tiny sizes, to see that it works; the figures mean nothing"
    )
    return flags


def load_config(recipe: str) -> ConfigDict:
    """The config of `configs/<name>.py[:argument]`."""
    path, *argument = recipe.split(":")
    return runpy.run_path(path)["get_config"](*argument)


@contextlib.contextmanager
def data_folder(data: str | None, splits: Mapping[str, int]) -> Iterator[str]:
    """The prepared dataset named, or a synthetic one with so many examples per split that is gone afterwards."""
    if data:
        yield data
        return
    with tempfile.TemporaryDirectory(prefix="umemma_jax_benchmark_") as parent:
        folder = Path(parent) / "synthetic"
        write_synthetic(folder, splits)
        yield str(folder)


def write_synthetic(folder: Path, splits: Mapping[str, int]) -> None:
    """Writes noise of AV-MNIST's shapes: 28x28 pixels, and half a second to a second at 8 kHz."""
    rng = np.random.default_rng(0)
    modalities = {
        "image": Modality(kind="image", encoding="raw", shape=IMAGE_SHAPE),
        "audio": Modality(kind="audio", encoding="pcm_s16le", sample_rate=SAMPLE_RATE),
    }
    classes = [str(number) for number in range(CLASSES)]
    with DatasetWriter(
        folder, name="synthetic", description="Noise.", classes=classes, modalities=modalities
    ) as writer:
        for split, examples in splits.items():
            for number in range(examples):
                image = rng.integers(0, 256, IMAGE_SHAPE, np.uint8)
                audio = rng.integers(-(2**13), 2**13, rng.integers(SAMPLES // 2, SAMPLES, endpoint=True), np.int16)
                writer.write(split, id=str(number), label=number % CLASSES, image=image, audio=audio)


def fusion_step(experiment: Experiment, variables: PyTree) -> Callable[[PyTree], steps.Metrics]:
    """The fusion stage's compiled step as (batch on the devices) -> metrics; it keeps the state between calls."""
    spec, _ = stages.stage_spec(experiment, "fusion")
    # Copies, since the step donates its state and others start from the same variables.
    state = steps.init_state(spec, jax.tree.map(jnp.copy, variables))
    state = jax.device_put(state, sharding.replicated(experiment.mesh))
    step = sharding.compile_step(steps.make_step(spec, experiment.means), experiment.mesh, experiment.config.parallel)

    def run(batch: PyTree) -> steps.Metrics:
        nonlocal state
        state, metrics = step(state, batch)
        return metrics

    return run


def fusion_spec(
    model: LateFusion, stage: ConfigDict, policy: missing.Policy, batch_size: int, layout: str, shards: int = 1
) -> steps.StageSpec:
    """The fusion stage of a model of our own, far from the end of its learning rate's schedule.

    Args:
      model: its encoders and head are trained.
      stage: as `config.fusion`.
      policy: of missing modalities.
      batch_size: B.
      layout: `stratified`; `compacted`, in which encoders run on as many rows as random draws usually keep; else they
        run on all.
      shards: slices of the batch that stay on one device each.
    """
    rows, modalities = batch_size // stage.accumulate, len(model.towers)
    masks = missing.sample_masks(np.ones((1, modalities), bool), policy, None, rows, seed=0)
    masks = masks.reshape(len(masks), shards, -1, modalities)
    return dataclasses.replace(
        _spec("fusion", model, stage),
        policy=policy,
        layout=missing.stratified_layout(policy, rows, shards) if layout == "stratified" else None,
        capacities=missing.choose_capacities(masks, 1) if layout == "compacted" else (),
    )


def unimodal_spec(model: LateFusion, stage: ConfigDict) -> steps.StageSpec:
    """The uni-modal stage of a model of our own, likewise; `stage` as `config.unimodal`."""
    return _spec("unimodal", model, stage)


def _spec(name: str, model: LateFusion, stage: ConfigDict) -> steps.StageSpec:
    trained = steps.trained_groups(name, model)
    optimizer = steps.make_optimizer(stage, total_steps=10**6, scales=dict.fromkeys(trained, 1.0))
    return steps.StageSpec(name, model, optimizer, trained, seed=0, accumulate=stage.accumulate)
