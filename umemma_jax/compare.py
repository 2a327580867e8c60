"""Every method on the same data, over several seeds: what the tables and figures of docs/recipes.md are made by.

The methods are one code with other switches (`umemma_jax.methods`). What the uni-modal stage does hangs on none of
them: each seed has one, which is the ensemble `ume`, and all methods with such a stage begin with it.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from umemma_jax import config as config_lib
from umemma_jax import experiment, methods
from umemma_jax.comparison import plan, trials
from umemma_jax.comparison.plan import Settings
from umemma_jax.config import method_name
from umemma_jax.devices import distributed
from umemma_jax.errors import UserError
from umemma_jax.evaluation import decisions, evaluate, paired, regression, robustness, verdict
from umemma_jax.evaluation.bootstrap import Resamples
from umemma_jax.evaluation.uncertainty import LEVEL
from umemma_jax.experiment import Experiment
from umemma_jax.reporting import results as reporting_results
from umemma_jax.reporting.reading import read_report
from umemma_jax.training import shared_stage, stages, train, validation
from umemma_jax.training.progress import duration
from umemma_jax.training.workdir import claim_workdir, write_into

SEED = 0  # of the bootstrap
BACKWARD = 3  # FLOPs of a training step over those of its forward pass, at most


def compare(config: ConfigDict, workdir: Path, seeds: int, names: Sequence[str] = (), count: int = 1) -> dict[str, Any]:
    """Trains and evaluates methods with seeds 0, 1, ..., seeds - 1.

    Each run has its folder `<workdir>/<method>/seed<n>` with its own report; a run that is finished there is not
    repeated, and more methods or seeds can join later. The comparison is written to `<workdir>/report`.

    Args:
      config: a recipe with both stages and augmentation, from which all methods follow.
      workdir: of the comparison.
      seeds: number of runs of each method.
      names: of methods, see `methods.method`; `all` is all that the config meets the needs of; none: those that are
        switches of the recipe alone. Those that every comparison has as its reference are added.
      count: trials of the hyper-parameters of each method that has such, with seed 0, of which the best by the mean
        over all missing patterns of the headline metric on the validation examples is run with all seeds; 1: none, all
        methods are run with their defaults.

    Returns:
      What comparison.json holds, see `reporting.results.compare`, and `budget`: what each method was given.

    Raises:
      UserError: the config is not such a recipe, a method is unknown or needs what the config or the data lack, the
        workdir is of another comparison, there are trials but no validation examples, or a run failed.
    """
    if config.method.name or not (config.unimodal.epochs and config.fusion.epochs and config.missing.augment):
        raise UserError(
            "--mode=compare starts from a recipe with both stages and augmentation, from which all methods follow: "
            f"this is that of {method_name(config)}"
        )
    chosen = plan.chosen_methods(config, names)
    drawn = {method: plan.drawn(method, count) for method in chosen}
    for method in chosen:  # before hours of training
        config_lib.check(plan.recipe(config, method, 0))
    if count > 1 and not len(experiment.build(config).validation[1]):
        raise UserError(
            f"--trials={count}: validation examples choose among them, and there are none: set "
            "config.data.validation_split or config.data.validation_share"
        )
    plan.claim(config, count, chosen, workdir)
    runs = _Runs(config, workdir, _all_runs(chosen, drawn, seeds))
    rows = {method: [] for method in chosen}
    runs.trained(plan.ensemble(), 0)
    settings = {method: runs.chosen_settings(method, drawn[method]) for method in chosen}
    for seed in range(seeds):
        for method in sorted(chosen, key=lambda method: method != plan.ensemble()):
            rows[method].append(runs.trained(method, seed, settings[method]))
    results = [result for method in chosen for result in rows[method]]
    comparison = reporting_results.compare(results, _paired(results, config.evaluation.resamples, workdir))
    comparison["budget"] = {method: _budget(rows[method], len(drawn[method]), settings[method]) for method in chosen}
    from umemma_jax.reporting import report  # here, since what draws takes long to load

    write_into(workdir, lambda: report.write_comparison(comparison, workdir / "report"))
    return comparison


def _all_runs(chosen: Sequence[str], drawn: dict[str, list[Settings]], seeds: int) -> int:
    """How many runs there are, finished or not; the best trial is evaluated as the run of its seed."""
    trials_of = [len(drawn[method]) for method in chosen]
    return seeds * len(chosen) + sum(count for count in trials_of if count > 1)


class _Runs:
    """The runs of one comparison, of which those that are finished are read."""

    def __init__(self, config: ConfigDict, workdir: Path, total: int) -> None:
        self._config, self._workdir, self._total = config, workdir, total
        self._seen, self._seconds = set(), []

    def trained(self, method: str, seed: int, settings: Settings | None = None) -> dict[str, Any]:
        """The results of one method and seed."""
        folder = _folder(self._workdir, method, seed)
        own = plan.recipe(self._config, method, seed, settings)
        built = experiment.build(own)
        self._seen.add(folder)
        if _is_finished(folder):
            claim_workdir(own, built.fingerprints, folder)
            return _finished(folder, method, seed)
        self._say(f"{method}, seed {seed}")
        start = time.monotonic()
        trained = self._train(built, folder)
        evaluated = evaluate.evaluate(built, trained.unimodal, trained.fusion)
        given = _given(built, time.monotonic() - start, evaluated.results)
        results = {**evaluated.results, "method": method, "budget": given}
        _write(evaluated._replace(results=results), folder)
        self._ended(start)
        return results

    def chosen_settings(self, method: str, drawn: Sequence[Settings]) -> Settings:
        """Those of the best of a method's trials, where there are several."""
        if len(drawn) == 1:
            return drawn[0]
        folder = self._workdir / method
        self._seen |= {folder / f"trial{number}" for number in range(len(trials.done(folder, drawn)))}

        def judge(settings: Settings, workdir: Path) -> float:
            self._seen.add(workdir)
            self._say(f"{method}, trial {workdir.name.removeprefix('trial')}: {_told(settings)}")
            start = time.monotonic()
            built = experiment.build(plan.recipe(self._config, method, 0, settings))
            score = validation.over_all_patterns(built, self._train(built, workdir).fusion)
            self._ended(start)
            return score

        trials.run(folder, drawn, judge)
        best = trials.best(folder, drawn)
        trials.adopt(folder, best, _folder(self._workdir, method, 0))
        return drawn[best]

    def _train(self, built: Experiment, folder: Path) -> train.Trained:
        """Trains in a folder, from the ensemble of the same seed where the method begins with such."""
        owner = _folder(self._workdir, plan.ensemble(), built.config.seed)
        if built.config.unimodal.epochs and owner != folder and (owner / "checkpoints").exists():
            shared_stage.share(built.config, folder, owner)
        return train.train(built, folder)

    def _say(self, what: str) -> None:
        if distributed.is_first():
            left = ""
            if self._seconds:
                left = f", {duration(float(np.mean(self._seconds)) * (self._total - len(self._seen) + 1))} left"
            print(f"run {len(self._seen)} of {self._total}: {what}{left}")

    def _ended(self, start: float) -> None:
        self._seconds.append(time.monotonic() - start)
        jax.clear_caches()  # the next run compiles its own functions


def _told(settings: Settings) -> str:
    return ", ".join(f"{key} {value:g}" for key, value in settings.items())


def _given(built: Experiment, seconds: float, results: dict[str, Any]) -> dict[str, Any]:
    """The key `budget` of a run's report."""
    epochs = {stage: built.config[stage].epochs for stage in stages.STAGES}
    forward = results["cost"][next(iter(results["patterns"]))]["flops"]
    flops = None if forward is None else BACKWARD * forward * len(built.train_rows) * sum(epochs.values())
    return {"epochs": epochs, "seconds": seconds, "flops": flops}


def _budget(rows: Sequence[dict[str, Any]], count: int, settings: Settings) -> dict[str, Any]:
    """What a method was given, the mean over its seeds; None where runs of older versions do not say."""
    given = [row["budget"] for row in rows if "budget" in row]

    def mean(key: str) -> float | None:
        values = [one[key] for one in given if one[key] is not None]
        return float(np.mean(values)) if values else None

    return {
        "trials": count if count > 1 else 0,
        "settings": settings,
        "epochs": given[0]["epochs"] if given else None,
        "seconds": mean("seconds"),
        "flops": mean("flops"),
    }


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
