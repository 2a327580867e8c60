"""What follows training in every run: the evaluation, its report, and the model in a folder of its own."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from umemma_jax import saved_model
from umemma_jax.evaluation import decisions, evaluate, pattern_calibration, robustness
from umemma_jax.experiment import Experiment
from umemma_jax.training.train import Trained
from umemma_jax.training.workdir import write_into


def conclude(
    experiment: Experiment, trained: Trained, workdir: Path, command: str, required: Sequence[str] = ()
) -> dict[str, Any]:
    """Evaluates a trained model and writes `WORKDIR/report` and `WORKDIR/model`; returns what report.json holds.

    Of several processes all call it, and the first writes.

    Args:
      experiment: that was trained.
      trained: what it came to.
      workdir: of the run.
      command: that made it, as the report shall show it.
      required: modalities without which the saved model answers nothing.

    Raises:
      UserError: the workdir cannot be written.
    """
    evaluated, validation = evaluate.evaluate_run(experiment, trained.unimodal, trained.fusion)
    results = evaluated.results
    results["timing"]["compilations"] |= trained.compilations
    results["timing"]["compile_seconds"] = trained.compile_seconds
    results["command"] = command
    if trained.ends:
        results["ended_early"] = {stage: dataclasses.asdict(end) for stage, end in trained.ends.items()}
    write_into(workdir, lambda: write_evaluation(evaluated, workdir))
    report, folder = workdir / "report" / "report.json", workdir / saved_model.FOLDER
    saved_model.write(experiment, trained, results, validation, report, folder, tuple(required))
    return results


def write_evaluation(evaluated: robustness.Report, workdir: Path) -> None:
    """Writes what an evaluation has found into the folder of the run: the report, and what is computed from it later.

    That is what `predict` takes of it, and what a comparison does.
    """
    from umemma_jax.reporting import report  # here, since what draws takes long to load

    kept = {decisions.FILE_NAME: decisions.encode(evaluated.decisions)}
    report.write_report(evaluated.results, workdir / "report", evaluated.tables, kept)
    pattern_calibration.write(evaluated.results, workdir)
