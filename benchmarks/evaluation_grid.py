"""The whole evaluation against one pass of the encoders over the test split.

python -m benchmarks.evaluation_grid [--config=configs/av_mnist.py] [--data=DIR]

The whole evaluation is one pass with every modality, from reading the records to features on the device, and then, on
those features, every subset of the modalities and every cell of the missing-rate grid with all its seeds. The table
gives the median time of both parts and the sum of the two, and the ratio of each to the pass. The default recipe has
small encoders, which is the harder case: the pass costs little there.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from benchmarks import timing, workload
from umemma_jax import experiment as experiment_lib
from umemma_jax import train
from umemma_jax.evaluate import Encoded, Evaluator
from umemma_jax.experiment import Experiment

SIZES = (450, 10_000)  # examples of the synthetic test split
QUICK_SIZES = (64,)
SECONDS = 20.0  # per size


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = workload.parse(__doc__, "configs/quickstart.py", argv)
    config = arguments.config
    evaluation = config.evaluation
    sizes = QUICK_SIZES if arguments.quick else SIZES
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
            runs = {
                "pass": one_pass,
                "cells": functools.partial(every_cell, evaluator, variables, one_pass(), evaluation),
            }
            seconds = timing.interleaved(runs, 0 if arguments.quick else SECONDS)
            encoding, cells = (np.median(values) for values in seconds.values())
            parts = {"one pass": encoding, "all subsets and cells": cells, "whole evaluation": encoding + cells}
            rows += [
                (part, f"{examples:,}", str(len(seconds["pass"])), f"{1e3 * t:,.1f}", f"{t / encoding:.3f}")
                for part, t in parts.items()
            ]
    subsets, cells = 2 ** len(config.modalities) - 1, (len(config.modalities) + 1) * len(evaluation.rates)
    timing.print_table(
        f"Evaluation of {subsets} subsets and {cells} cells x {evaluation.seeds} seeds: medians",
        ("", "examples", "rounds", "ms", "time / pass"),
        rows,
    )


def encode(evaluator: Evaluator, variables: Any, experiment: Experiment, examples: int) -> Encoded:
    """One pass over the first examples of the test split."""
    return evaluator.encode(variables, experiment.batches(experiment.config.data.test_split, np.arange(examples)))


def every_cell(evaluator: Evaluator, variables: Any, encoded: Encoded, evaluation: ConfigDict) -> tuple:
    """What an evaluation does after the pass."""
    predictions = evaluator.predict_patterns(variables, encoded)
    patterns = evaluator.every_pattern(predictions, encoded)
    cells, _ = evaluator.grid(predictions, encoded, evaluation.rates, evaluation.seeds)
    return patterns, cells


if __name__ == "__main__":
    workload.run(main)
