"""What follows training in every run: the evaluation, its report, and the model in a folder of its own."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from umemma_jax import saved_model
from umemma_jax.evaluation import evaluate
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
    from umemma_jax.reporting import report  # here, since what draws takes long to load

    write_into(workdir, lambda: report.write_evaluation(evaluated, workdir))
    written, folder = workdir / "report" / "report.json", workdir / saved_model.FOLDER
    saved_model.write(experiment, trained, results, validation, written, folder, tuple(required))
    return results
