"""The command line of main.py: flags to a run, a user's mistake to one line and exit status 1."""

import importlib
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags, logging
from ml_collections import config_flags

from umemma_jax.errors import UserError

CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe: configs/<name>.py[:argument].", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of checkpoints, metrics and report. Default: runs/<config>.")
MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "eval", "compare"],
    "train: also resumes. eval: report again from checkpoints. compare: every method, several seeds.",
)
SEEDS = flags.DEFINE_integer("seeds", 5, "Runs of each method in --mode=compare.", lower_bound=1)


def run(argv: Sequence[str]) -> int:
    """Runs main.py with its command line; returns the exit status."""
    try:
        _parse(argv)
        return _run(argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parse(argv: Sequence[str]) -> None:
    """Parses flags; what is wrong with them, or in the config file, comes out as one line."""
    try:
        rest = flags.FLAGS(argv)
    except UserError:
        raise
    # ml_collections reports a misspelt field as AttributeError or KeyError, a wrong type as TypeError or ValueError.
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(" ".join(str(error).strip("'\"").split())) from error
    except FileNotFoundError as error:
        raise UserError(f"--config: {error.filename} does not exist, see configs/ for the recipes") from error
    if len(rest) > 1:
        raise UserError(f"unknown argument '{rest[1]}': flags start with --")
    if CONFIG.value is None:
        raise UserError("--config is missing: name a recipe, e.g. --config=configs/quickstart.py")


def _run(argv: Sequence[str]) -> int:
    # After the flags, so that a typo does not wait for JAX.
    from umemma_jax import compare, evaluate, experiment, report, train

    logging.set_verbosity(logging.WARNING)
    config = CONFIG.value
    name = Path(flags.FLAGS["config"].config_filename.split(":")[0]).stem
    workdir = Path(WORKDIR.value or f"runs/{name}")
    if config.data.prepare and not os.path.exists(config.data.dir):
        _prepare(config.data.prep, config.data.dir)
    if MODE.value == "compare":
        compare.compare(config, workdir, SEEDS.value)
        print(f"Comparison: {workdir / 'report'}")
        return 0
    built = experiment.build(config)
    try:
        trained = train.load(built, workdir) if MODE.value == "eval" else train.train(built, workdir)
    except train.Preempted as stop:
        print(f"{stop}; the same command continues")
        return 0
    results, tables = evaluate.evaluate(built, trained.unimodal, trained.fusion)
    results["timing"]["compilations"] |= trained.compilations
    results["command"] = shlex.join(["python", *argv])
    report.write_report(results, workdir / "report", tables)
    print(report.summary(results))
    print(f"Report: {workdir / 'report'}")
    return 0


def _prepare(module: str, folder: str) -> None:
    """Makes the dataset where it is absent, if its prep module needs nothing but the folder."""
    importlib.import_module(module).prepare(folder)
