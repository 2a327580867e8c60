"""Every method on the same data, over several seeds: what the tables and figures of docs/recipes.md are made by.

The methods are one code with other switches (`umemma_jax.methods`). The ensemble `ume` is what `ume_mma` starts its
fusion stage from, so it needs no training of its own.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from umemma_jax import experiment
from umemma_jax.config import apply_method, method_name
from umemma_jax.devices import distributed
from umemma_jax.errors import UserError
from umemma_jax.evaluation import decisions, evaluate, paired, regression, robustness
from umemma_jax.evaluation.bootstrap import Resamples
from umemma_jax.evaluation.uncertainty import LEVEL
from umemma_jax.methods import METHODS
from umemma_jax.reporting import results as reporting_results
from umemma_jax.reporting.reading import read_report
from umemma_jax.training import train
from umemma_jax.training.workdir import claim_workdir, write_into

SEED = 0  # of the bootstrap


def compare(config: ConfigDict, workdir: Path, seeds: int) -> dict[str, Any]:
    """Trains and evaluates every method with seeds 0, 1, ..., seeds - 1.

    Each run has its folder `<workdir>/<method>/seed<n>` with its own report; a run that is finished there is not
    repeated. The comparison is written to `<workdir>/report`.

    Args:
      config: the recipe of `ume_mma`, from which the other methods follow.
      workdir: of the comparison.
      seeds: number of runs of each method.

    Returns:
      What comparison.json holds, see `reporting.results.compare`.

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
    comparison = reporting_results.compare(results, _paired(results, config.evaluation.resamples, workdir))
    from umemma_jax.reporting import report  # here, since what draws takes long to load

    write_into(workdir, lambda: report.write_comparison(comparison, workdir / "report"))
    return comparison


def _run(config: ConfigDict, workdir: Path, method: str, seed: int) -> dict[str, dict[str, Any]]:
    """Results by method of one training run; that of `ume_mma` yields those of `ume` too."""
    own = config.copy_and_resolve_references()
    own.seed = seed
    apply_method(own, method)
    names = ("ume", "ume_mma") if method == "ume_mma" else (method,)
    folders = {name: _folder(workdir, name, seed) for name in names}
    built = experiment.build(own)
    claim_workdir(own, built.fingerprints, folders[method])
    if all(_is_finished(folder) for folder in folders.values()):
        return {name: _finished(folder, name, seed) for name, folder in folders.items()}
    trained = train.train(built, folders[method])
    found = {}
    for name, folder in folders.items():
        variables = trained.ensemble if name == "ume" else trained.fusion
        evaluated = evaluate.evaluate(built, trained.unimodal, variables)
        found[name] = {**evaluated.results, "method": name}
        _write(evaluated._replace(results=found[name]), folder)
    jax.clear_caches()  # the next run compiles its own functions
    return found


def _write(evaluated: robustness.Report, folder: Path) -> None:
    from umemma_jax.reporting import report  # here, since what draws takes long to load

    write_into(folder, lambda: report.write_evaluation(evaluated, folder))


def _folder(workdir: Path, method: str, seed: int) -> Path:
    return workdir / method / f"seed{seed}"


def _is_finished(folder: Path) -> bool:
    """Whether a run has all that a comparison takes of it; a run of an older version is evaluated again."""
    return all((folder / "report" / name).exists() for name in ("report.json", decisions.FILE_NAME))


def _finished(folder: Path, method: str, seed: int) -> dict[str, Any]:
    """The results of a run that is finished. Raises UserError as `read_report`, and where they are of another run."""
    path = folder / "report" / "report.json"
    results = read_report(path)
    if (results["method"], results["seed"]) != (method, seed):
        raise UserError(
            f"{path} is of method {results['method']}, seed {results['seed']}: remove it, and the same command "
            "evaluates the run again"
        )
    return results


def _paired(results: Sequence[dict[str, Any]], resamples: int, workdir: Path) -> dict[str, Any]:
    """The key `paired` of comparison.json, with the decisions of one run at a time in memory."""
    shared = Resamples(results[0]["examples"], resamples, SEED)
    runs, label = {}, None
    for result in results:
        folder = _folder(workdir, result["method"], result["seed"]) / "report"
        found = decisions.read(folder, list(result["patterns"]), result["examples"])
        label = found.label if label is None else label
        if not np.array_equal(found.label, label):
            raise _foreign(folder, "of other examples than the first run")
        measured = paired.measured(found, shared)
        if not _agree(measured, result):
            raise _foreign(folder, "not of the report beside it")
        runs.setdefault(result["method"], []).append(measured)
    return {
        "metric": reporting_results.headline(results[0]),
        "level": LEVEL,
        "resamples": resamples,
        "seed": SEED,
        "false_discovery_rate": paired.FALSE_DISCOVERY_RATE,
        "differences": paired.differences(runs, list(results[0]["patterns"]), _largest(results[0])),
    }


def _largest(result: dict[str, Any]) -> float:
    """What two values of the headline can differ by: fractions by 1, R2 by anything."""
    return np.inf if result["metric"] == regression.PRIMARY else 1.0


def _agree(measured: paired.Measured, result: dict[str, Any]) -> bool:
    """Whether the decisions come to what the report says."""
    said = [reporting_results.headline_value(result, pattern) for pattern in result["patterns"]]
    return np.allclose(measured.values, np.array(said, float), rtol=0, atol=1e-9, equal_nan=True)


def _foreign(folder: Path, how: str) -> UserError:
    path = folder / decisions.FILE_NAME
    return UserError(f"{path} is {how}: remove it, and the same command evaluates the run again")
