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

from umemma_jax import config as config_lib
from umemma_jax import experiment, methods
from umemma_jax.config import apply_method, method_name
from umemma_jax.devices import distributed
from umemma_jax.errors import UserError
from umemma_jax.evaluation import decisions, evaluate, paired, regression, robustness, verdict
from umemma_jax.evaluation.bootstrap import Resamples
from umemma_jax.evaluation.uncertainty import LEVEL
from umemma_jax.methods import METHODS
from umemma_jax.reporting import results as reporting_results
from umemma_jax.reporting.reading import read_report
from umemma_jax.training import train
from umemma_jax.training.workdir import claim_workdir, write_into

SEED = 0  # of the bootstrap


ALL = "all"


def compare(config: ConfigDict, workdir: Path, seeds: int, names: Sequence[str] = ()) -> dict[str, Any]:
    """Trains and evaluates methods with seeds 0, 1, ..., seeds - 1.

    Each run has its folder `<workdir>/<method>/seed<n>` with its own report; a run that is finished there is not
    repeated, and more methods or seeds can join later. The comparison is written to `<workdir>/report`.

    Args:
      config: a recipe with both stages and augmentation, from which all methods follow.
      workdir: of the comparison.
      seeds: number of runs of each method.
      names: of methods, see `methods.method`; `all` is all that the config meets the needs of; none: those that are
        switches of the recipe alone. Those that every comparison has as its reference are added.

    Returns:
      What comparison.json holds, see `reporting.results.compare`.

    Raises:
      UserError: the config is not such a recipe, a method is unknown or needs what the config or the data lack, or a
        run failed.
    """
    if config.method.name or not (config.unimodal.epochs and config.fusion.epochs and config.missing.augment):
        raise UserError(
            "--mode=compare starts from a recipe with both stages and augmentation, from which all methods follow: "
            f"this is that of {method_name(config)}"
        )
    chosen = _chosen(config, names)
    for method in chosen:  # before hours of training
        config_lib.check(_recipe(config, method, 0))
    rows = {method: [] for method in chosen}
    for seed in range(seeds):
        for trained, ensembles in _runs(chosen).items():
            if distributed.is_first():
                print(f"{trained}, seed {seed}")
            for name, results in _run(config, workdir, trained, ensembles, seed).items():
                rows[name].append(results)
    results = [result for method in chosen for result in rows[method]]
    comparison = reporting_results.compare(results, _paired(results, config.evaluation.resamples, workdir))
    from umemma_jax.reporting import report  # here, since what draws takes long to load

    write_into(workdir, lambda: report.write_comparison(comparison, workdir / "report"))
    return comparison


def _chosen(config: ConfigDict, names: Sequence[str]) -> list[str]:
    """Methods to compare, each once, in the order of `METHODS`, then the user's own."""
    asked = set(names) - {ALL}
    for name in METHODS:
        module = METHODS[name]
        if getattr(module, "REFERENCE", False) or (not names and not methods.has_loss(module)):
            asked.add(name)
        elif ALL in names and name not in asked:
            if unmet := methods.unmet_need(module, lambda field: config_lib.get(config, field)):
                if distributed.is_first():
                    print(f"{name} is left out: {unmet}")
            else:
                asked.add(name)
    for name in sorted(asked):
        methods.method(name)  # raises where it is unknown
    return [*(name for name in METHODS if name in asked), *sorted(asked - set(METHODS))]


def _runs(chosen: Sequence[str]) -> dict[str, list[str]]:
    """Each method that is trained -> those that are the ensemble which its fusion stage starts from."""
    owner = {name: getattr(methods.method(name), "ENSEMBLE_OF", None) for name in chosen}
    trained = [name for name in chosen if owner[name] not in chosen]
    return {name: [other for other in chosen if owner[other] == name] for name in trained}


def _recipe(config: ConfigDict, method: str, seed: int) -> ConfigDict:
    own = config.copy_and_resolve_references()
    own.seed = seed
    apply_method(own, method)
    return own


def _run(
    config: ConfigDict, workdir: Path, method: str, ensembles: Sequence[str], seed: int
) -> dict[str, dict[str, Any]]:
    """Results by method of one training run; that of a method yields those of its ensemble too."""
    own = _recipe(config, method, seed)
    folders = {name: _folder(workdir, name, seed) for name in (*ensembles, method)}
    built = experiment.build(own)
    claim_workdir(own, built.fingerprints, folders[method])
    if all(_is_finished(folder) for folder in folders.values()):
        return {name: _finished(folder, name, seed) for name, folder in folders.items()}
    trained = train.train(built, folders[method])
    found = {}
    for name, folder in folders.items():
        variables = trained.ensemble if name in ensembles else trained.fusion
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
    runs, summed_up, label = {}, {}, None
    grid = results[0]["missing_rates"]
    rates, seeds = sorted({cell["rate"] for cell in grid}), grid[0]["seeds"]
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
        summed_up.setdefault(result["method"], []).append(verdict.summed_up(found, measured, shared, rates, seeds))
    patterns, largest = list(results[0]["patterns"]), _largest(results[0])
    references = [name for name in runs if getattr(methods.method(name), "REFERENCE", False)]
    return {
        "metric": reporting_results.headline(results[0]),
        "level": LEVEL,
        "resamples": resamples,
        "seed": SEED,
        "false_discovery_rate": paired.FALSE_DISCOVERY_RATE,
        "differences": paired.differences(runs, patterns, largest),
        "verdict": verdict.verdict(runs, summed_up, results, references, largest),
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
