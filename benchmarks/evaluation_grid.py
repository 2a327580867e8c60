"""The whole evaluation against one pass of the encoders over the test split.

python -m benchmarks.evaluation_grid [--config=configs/av_mnist.py] [--data=DIR] [--encode=N]

The whole evaluation is one pass with every modality, from reading the records to features on the device, and then, on
those features, the logits of every subset of the modalities and the whole report on them: the missing-rate grid with
all its seeds, calibration on as many validation examples as a fifth of the test split, intervals and all the rest. The
table gives the median time of both parts and the sum of the two, and the ratio of each to the pass. The default recipe
has small encoders, which is the harder case: the pass costs little there.

The last row is of what follows the pass alone, on more examples: no encoder runs, 64 features a modality are noise that
is made on the device.

With --encode=N, for encoders that 10,000 examples keep busy for long, the pass is over N examples and its time is
multiplied by 10,000 / N, since each example costs the same; the report is that on 10,000 examples of noise, measured.
--config=benchmarks/two_transformers.py:vit_small is a pair of ViT-Small's size, of 196 tokens each.
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
from umemma_jax.evaluation import robustness
from umemma_jax.evaluation.evaluate import Encoded, Evaluator
from umemma_jax.evaluation.split_logits import SplitLogits
from umemma_jax.experiment import Experiment
from umemma_jax.model import LateFusion, Tower
from umemma_jax.training import features, train

SIZES = (450, 10_000)  # examples of the synthetic test split
QUICK_SIZES = (64,)
NOISE_SIZE, QUICK_NOISE_SIZE, WIDTH = 100_000, 1_000, 64  # examples whose features are noise, and how many features
SECONDS = 20.0  # per size


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = workload.parser(__doc__, "configs/quickstart.py")
    parser.add_argument("--encode", type=int, metavar="N", help="examples of the pass, whose time is scaled to 10,000")
    arguments = parser.parse_args(argv)
    config = arguments.config
    sizes, noise_size, seconds = (QUICK_SIZES, QUICK_NOISE_SIZE, 0) if arguments.quick else (SIZES, NOISE_SIZE, SECONDS)
    if arguments.encode:
        scaled(config, max(sizes), arguments.encode, seconds)
        return
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
            after = functools.partial(whole_report, evaluator, variables, encoded, config.evaluation)
            times = timing.interleaved({"pass": one_pass, "report": after}, seconds)
            encoding, reporting = (np.median(values) for values in times.values())
            parts = {"one pass": encoding, "the report": reporting, "whole evaluation": encoding + reporting}
            rows += [row(part, examples, len(times["pass"]), t, t / encoding) for part, t in parts.items()]
    after = functools.partial(whole_report, *noise(config, noise_size), config.evaluation)
    times = timing.interleaved({"report": after}, seconds)["report"]
    rows.append(row("noise, the report", noise_size, len(times), np.median(times)))
    show(config, rows)


def show(config: ConfigDict, rows: list[tuple[str, ...]]) -> None:
    """Prints the table."""
    modalities, evaluation = len(config.modalities), config.evaluation
    subsets, cells = 2**modalities - 1, (modalities + 1) * len(evaluation.rates)
    timing.print_table(
        f"Evaluation of {subsets} subsets, {cells} cells x {evaluation.seeds} seeds, {evaluation.resamples} resamples: "
        "medians",
        ("", "examples", "rounds", "ms", "time / pass"),
        rows,
    )


def scaled(config: ConfigDict, examples: int, encoded: int, seconds: float) -> None:
    """One pass over a few encoded examples, scaled to a number of them, and the report on as many of noise."""
    with workload.data_folder(None, {"train": 4 * config.data.batch_size, "test": encoded}) as config.data.dir:
        experiment = experiment_lib.build(config)
        variables = train.initial_variables(experiment)
        evaluator = Evaluator(experiment.model, experiment.mesh, experiment.means)
        one_pass = functools.partial(encode, evaluator, variables, experiment, encoded)
        after = functools.partial(whole_report, *noise(config, examples), config.evaluation)
        times = timing.interleaved({"pass": one_pass, "report": after}, seconds)
    encoding, reporting = np.median(times["pass"]) * examples / encoded, np.median(times["report"])
    parts = {
        f"one pass, {encoded:,} examples scaled": encoding,
        "noise, the report": reporting,
        "whole evaluation": encoding + reporting,
    }
    show(config, [row(part, examples, len(times["pass"]), t, t / encoding) for part, t in parts.items()])


def row(part: str, examples: int, rounds: int, seconds: float, ratio: float | None = None) -> tuple[str, ...]:
    """A row of the table."""
    return part, f"{examples:,}", str(rounds), f"{1e3 * seconds:,.1f}", "-" if ratio is None else f"{ratio:.3f}"


def encode(evaluator: Evaluator, variables: Any, experiment: Experiment, examples: int) -> Encoded:
    """One pass over the first examples of the test split."""
    return evaluator.encode(variables, experiment.batches(experiment.config.data.test_split, np.arange(examples)))


def whole_report(evaluator: Evaluator, variables: Any, encoded: Encoded, evaluation: ConfigDict) -> robustness.Report:
    """What an evaluation does after the pass."""
    predictions, classes = evaluator.predict_patterns(variables, encoded), tuple(map(str, range(workload.CLASSES)))
    test = evaluator.split_logits(encoded, predictions, encoded if encoded.logits else None, classes)
    options = robustness.Options(evaluation.rates, evaluation.seeds, evaluation.resamples)
    return robustness.report(test, first(test, len(test.label) // 5), options)


def first(split: SplitLogits, count: int) -> SplitLogits:
    """So many examples of a split."""
    patterns, unimodal = (
        {name: logits[:count] for name, logits in x.items()} for x in (split.patterns, split.unimodal)
    )
    label, available = split.label[:count], split.available[:count]
    return SplitLogits(split.modalities, split.classes, label, available, patterns, unimodal)


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
