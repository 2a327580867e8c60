"""The whole evaluation against one pass of the encoders over the test split.

python -m benchmarks.evaluation_grid [--config=configs/av_mnist.py] [--data=DIR]

The whole evaluation is one pass with every modality, from reading the records to features on the device, and then, on
those features, every subset of the modalities and every cell of the missing-rate grid with all its seeds. The table
gives the median times of both parts and of their sum, and the ratio of each to the pass. The default recipe has small
encoders, which is the harder case: the pass costs little there.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from benchmarks import timing, workload
from umemma_jax import experiment as experiment_lib
from umemma_jax import train
from umemma_jax.evaluate import Encoded, Evaluator

SYNTHETIC_SIZES = {450: 15, 10_000: 3}  # examples: rounds
ROUNDS = 10  # on --data
QUICK_SIZES = {64: 2}
PARTS = ("one pass", "all subsets and cells", "whole evaluation")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = workload.parse(__doc__, "configs/quickstart.py", argv)
    config = arguments.config
    sizes = QUICK_SIZES if arguments.quick else SYNTHETIC_SIZES
    with workload.data_folder(arguments.data, 4 * config.data.batch_size, max(sizes)) as config.data.dir:
        experiment = experiment_lib.build(config)
        if arguments.data:
            sizes = {len(experiment.dataset.source(config.data.test_split)): 2 if arguments.quick else ROUNDS}
        variables = train.initial_variables(experiment)
        evaluator = Evaluator(experiment.model, experiment.mesh, experiment.means)
        rows = []
        for examples, rounds in sizes.items():

            def one_pass(examples: int = examples) -> Encoded:
                batches = experiment.batches(config.data.test_split, np.arange(examples))
                return evaluator.encode(variables, batches)

            encoded = one_pass()
            runs = {"pass": one_pass, "cells": lambda e=encoded: every_cell(evaluator, variables, e, config.evaluation)}
            seconds = timing.interleaved(runs, rounds)
            one, cells = (np.median(seconds[name]) for name in runs)
            for part, time in zip(PARTS, (one, cells, one + cells), strict=True):
                rows.append((part, f"{examples:,}", f"{1e3 * time:,.1f}", f"{time / one:.3f}"))
    cells = (len(config.modalities) + 1) * len(config.evaluation.rates)
    timing.print_table(
        f"Evaluation: {2 ** len(config.modalities) - 1} subsets, {cells} cells x {config.evaluation.seeds} seeds",
        ("part", "examples", "ms", "ratio to one pass"),
        rows,
    )


def every_cell(evaluator: Evaluator, variables: Any, encoded: Encoded, evaluation: ConfigDict) -> Any:
    """What an evaluation does after the pass."""
    predictions = evaluator.predict_patterns(variables, encoded)
    patterns = evaluator.every_pattern(predictions, encoded)
    cells, _ = evaluator.grid(predictions, encoded, evaluation.rates, evaluation.seeds)
    return patterns, cells


if __name__ == "__main__":
    main()
