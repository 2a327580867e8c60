"""The same recipe on every fold of a cross-validation, and one report of all of them.

`python -m data_prep.table --folds=K` makes the folds: K datasets, each of which is tested on other rows of one table.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from umemma_jax import experiment, runs
from umemma_jax.data.dataset import open_dataset
from umemma_jax.devices import distributed
from umemma_jax.errors import UserError
from umemma_jax.reporting.cross_validation import over_folds
from umemma_jax.reporting.reading import read_report
from umemma_jax.training import train
from umemma_jax.training.workdir import claim_workdir, write_into


def cross_validate(config: ConfigDict, workdir: Path, command: str, required: Sequence[str] = ()) -> dict[str, Any]:
    """Trains and evaluates on every fold.

    Each has its run in `<workdir>/fold<n>`, with a report and a model of its own; one that is finished there is not
    repeated. What all of them come to is written to `<workdir>/report`.

    Args:
      config: the recipe; `data.dir` names one of the folds, beside which the others are.
      workdir: of the cross-validation.
      command: that made it, as the reports shall show it.
      required: modalities without which the folds' saved models answer nothing.

    Returns:
      What cross_validation.json holds, see `reporting.cross_validation.over_folds`.

    Raises:
      UserError: `data.dir` is no fold, or a run failed.
    """
    rows = []
    for folder in fold_folders(config.data.dir):
        own = config.copy_and_resolve_references()
        own.data.dir = str(folder)
        if distributed.is_first():
            print(folder.name)
        rows.append(_results(own, workdir / folder.name, command, required))
    found = over_folds(rows)
    from umemma_jax.reporting import report  # here, since what draws takes long to load

    write_into(workdir, lambda: report.write_cross_validation(found, workdir / "report"))
    return found


def fold_folders(data_dir: str) -> list[Path]:
    """All folds of the cross-validation that a dataset is one of. Raises UserError if it is none."""
    folder = Path(data_dir)
    count = open_dataset(folder).info.source.get("folds")
    if not re.fullmatch(r"fold\d+", folder.name) or not isinstance(count, int) or count < 2:
        raise UserError(
            f"config.data.dir: {data_dir} is no fold of a cross-validation: make folds with "
            "`python -m data_prep.table --folds=K --out=DIR` and name one, as in DIR/fold0"
        )
    return [folder.with_name(f"fold{number}") for number in range(count)]


def _results(config: ConfigDict, workdir: Path, command: str, required: Sequence[str]) -> dict[str, Any]:
    """What report.json of a fold holds; of a fold that is not finished, once it is."""
    built, report = experiment.build(config), workdir / "report" / "report.json"
    claim_workdir(config, built.fingerprints, workdir)
    if report.exists():
        return read_report(report)
    results = runs.conclude(built, train.train(built, workdir), workdir, command, required)
    jax.clear_caches()  # the next fold compiles its own functions
    return results
