"""The whole evaluation against one pass of the encoders over the test split.

python -m benchmarks.evaluation_grid [--config=configs/av_mnist.py] [--data=DIR]

The whole evaluation is one pass with every modality, from reading the records to features on the device, and then, on
those features, every subset of the modalities and every cell of the missing-rate grid with all its seeds. The table
gives the median time of both parts and the sum of the two, and the ratio of each to the pass. The default recipe has
small encoders, which is the harder case: the pass costs little there.

The last row is of a million examples, and of what follows the pass alone: no encoder runs, 64 features a modality are
noise that is made on the device. The title says how many examples x cells a second that is, where every subset is a
cell, and every cell of the grid one per seed.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from benchmarks import timing, workload
from umemma_jax import experiment as experiment_lib
from umemma_jax.devices import sharding
from umemma_jax.evaluation.evaluate import Encoded, Evaluator
from umemma_jax.experiment import Experiment
from umemma_jax.model import LateFusion, Tower
from umemma_jax.training import features, train

SIZES = (450, 10_000)  # examples of the synthetic test split
QUICK_SIZES = (64,)
NOISE_SIZE, QUICK_NOISE_SIZE, WIDTH = 1_000_000, 1_000, 64  # examples whose features are noise, and how many features
SECONDS = 20.0  # per size


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = workload.parse(__doc__, "configs/quickstart.py", argv)
    config = arguments.config
    sizes, noise_size, seconds = (QUICK_SIZES, QUICK_NOISE_SIZE, 0) if arguments.quick else (SIZES, NOISE_SIZE, SECONDS)
    splits = {"train": 4 * config.data.batch_size, "test": max(sizes)}
    with workload.data_folder(arguments.data, splits) as config.data.dir:
        experiment = experiment_lib.build(config)
        if arguments.data:
            sizes = (experiment.dataset.info.splits[config.data.test_split].examples,)
        variables = train.initial_variables(experiment)
        evaluator = Evaluator(experiment.model, experiment.mesh, experiment.means)
        rows = []
        for examples in sizes:
            one_pass = functools.partial(encode, evaluator, variables, experiment, examples)
            encoded = one_pass()
            cells = functools.partial(every_cell, evaluator, variables, encoded, config.evaluation)
            times = timing.interleaved({"pass": one_pass, "cells": cells}, seconds)
            encoding, counting = (np.median(values) for values in times.values())
            parts = {"one pass": encoding, "all subsets and cells": counting, "whole evaluation": encoding + counting}
            rows += [row(part, examples, len(times["pass"]), t, t / encoding) for part, t in parts.items()]
    cells = functools.partial(every_cell, *noise(config, noise_size), config.evaluation)
    times = timing.interleaved({"cells": cells}, seconds)["cells"]
    rows.append(row("noise, all subsets and cells", noise_size, len(times), np.median(times)))
    modalities, evaluation = len(config.modalities), config.evaluation
    subsets, cells = 2**modalities - 1, (modalities + 1) * len(evaluation.rates)
    choices = noise_size * (subsets + cells * evaluation.seeds)
    timing.print_table(
        f"Evaluation of {subsets} subsets and {cells} cells x {evaluation.seeds} seeds: medians. "
        f"Of noise, {choices / np.median(times) / 1e6:.1f} million examples x cells a second",
        ("", "examples", "rounds", "ms", "time / pass"),
        rows,
    )


def row(part: str, examples: int, rounds: int, seconds: float, ratio: float | None = None) -> tuple[str, ...]:
    """A row of the table."""
    return part, f"{examples:,}", str(rounds), f"{1e3 * seconds:,.1f}", "-" if ratio is None else f"{ratio:.3f}"


def encode(evaluator: Evaluator, variables: Any, experiment: Experiment, examples: int) -> Encoded:
    """One pass over the first examples of the test split."""
    return evaluator.encode(variables, experiment.batches(experiment.config.data.test_split, np.arange(examples)))


def every_cell(evaluator: Evaluator, variables: Any, encoded: Encoded, evaluation: ConfigDict) -> tuple:
    """What an evaluation does after the pass."""
    predictions = evaluator.predict_patterns(variables, encoded)
    patterns = evaluator.every_pattern(predictions, encoded)
    cells, _ = evaluator.grid(predictions, encoded, evaluation.rates, evaluation.seeds)
    return patterns, cells


def noise(config: ConfigDict, examples: int) -> tuple[Evaluator, Any, Encoded]:
    """The recipe's head on complete examples of ten random classes, of WIDTH features a modality that are noise."""
    towers = tuple(Tower(m, features.unchanged, features.Unchanged) for m in config.modalities)
    model, mesh = LateFusion(towers, workload.CLASSES, config.fusion.head, "zero"), sharding.make_mesh()
    one = {m: jnp.zeros((1, WIDTH)) for m in config.modalities}
    variables = model.init(jax.random.key(0), one, jnp.ones((1, len(one)), bool))

    @functools.partial(jax.jit, out_shardings=sharding.by_rows(mesh))
    def make() -> Encoded:
        keys = jax.random.split(jax.random.key(0), len(one))
        values = {m: jax.random.normal(key, (examples, WIDTH)) for m, key in zip(one, keys, strict=True)}
        number = jnp.arange(examples)
        available, weight = jnp.ones((examples, len(one)), bool), jnp.ones(examples)
        return Encoded(values, {}, available, number % workload.CLASSES, weight, number)

    return Evaluator(model, mesh, {}), sharding.place(variables, mesh), make()


if __name__ == "__main__":
    workload.run(main)
