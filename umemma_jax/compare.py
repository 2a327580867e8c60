"""Every method on the same data, over several seeds: what the README's table and figure are made by.

The methods are one code with other switches (`umemma_jax.methods`). The ensemble `ume` is what `ume_mma` starts its
fusion stage from, so it needs no training of its own.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from umemma_jax import experiment
from umemma_jax.config import apply_method, method_name
from umemma_jax.devices import distributed
from umemma_jax.errors import UserError
from umemma_jax.evaluation import evaluate, pattern_calibration
from umemma_jax.methods import METHODS
from umemma_jax.reporting import report
from umemma_jax.reporting.reading import read_report
from umemma_jax.training import train
from umemma_jax.training.workdir import claim_workdir, write_into


def compare(config: ConfigDict, workdir: Path, seeds: int) -> list[dict[str, Any]]:
    """Trains and evaluates every method with seeds 0, 1, ..., seeds - 1.

    Each run has its folder `<workdir>/<method>/seed<n>` with its own report; a run that is finished there is not
    repeated. The comparison is written to `<workdir>/report`.

    Args:
      config: the recipe of `ume_mma`, from which the other methods follow.
      workdir: of the comparison.
      seeds: number of runs of each method.

    Returns:
      The results of all runs, method by method.

    Raises:
      UserError: the config is not that of `ume_mma`, or a run failed.
    """
    if method_name(config) != "ume_mma":
        raise UserError(f"--mode=compare starts from the recipe of ume_mma, this is that of {method_name(config)}")
    rows = {method: [] for method in METHODS}
    for seed in range(seeds):
        for method in METHODS:
            if method != "ume":
                if distributed.is_first():
                    print(f"{method}, seed {seed}")
                for name, results in _run(config, workdir, method, seed).items():
                    rows[name].append(results)
    results = [result for method in METHODS for result in rows[method]]
    write_into(workdir, lambda: report.write_comparison(results, workdir / "report"))
    return results


def _run(config: ConfigDict, workdir: Path, method: str, seed: int) -> dict[str, dict[str, Any]]:
    """Results by method of one training run; that of `ume_mma` yields those of `ume` too."""
    own = config.copy_and_resolve_references()
    own.seed = seed
    apply_method(own, method)
    names = ("ume", "ume_mma") if method == "ume_mma" else (method,)
    folders = {name: workdir / name / f"seed{seed}" for name in names}
    built = experiment.build(own)
    claim_workdir(own, built.fingerprints, folders[method])
    reports = {name: folder / "report" / "report.json" for name, folder in folders.items()}
    if all(path.exists() for path in reports.values()):
        return {name: _finished(path, name, seed) for name, path in reports.items()}
    trained = train.train(built, folders[method])
    found = {}
    for name, folder in folders.items():
        variables = trained.ensemble if name == "ume" else trained.fusion
        results, tables = evaluate.evaluate(built, trained.unimodal, variables)
        found[name] = {**results, "method": name}
        write_into(folder, functools.partial(write_results, found[name], tables, folder))
    jax.clear_caches()  # the next run compiles its own functions
    return found


def write_results(results: dict[str, Any], tables: Mapping[str, np.ndarray], workdir: Path) -> None:
    """Writes what an evaluation has found into the folder of the run: the report, and what `predict` takes of it."""
    report.write_report(results, workdir / "report", tables)
    pattern_calibration.write(results, workdir)


def _finished(path: Path, method: str, seed: int) -> dict[str, Any]:
    """The results of a run that is finished. Raises UserError as `read_report`, and where they are of another run."""
    results = read_report(path)
    if (results["method"], results["seed"]) != (method, seed):
        raise UserError(
            f"{path} is of method {results['method']}, seed {results['seed']}: remove it, and the same command "
            "evaluates the run again"
        )
    return results
