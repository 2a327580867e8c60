"""Trials of a method's hyper-parameters: each a run of its own, of which validation chooses one."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from umemma_jax import checksums
from umemma_jax.comparison.plan import Settings
from umemma_jax.devices import distributed
from umemma_jax.errors import UserError
from umemma_jax.training.lock import not_written
from umemma_jax.training.workdir import write_record

FILE_NAME = "trials.json"


def run(folder: Path, drawn: Sequence[Settings], judge: Callable[[Settings, Path], float]) -> None:
    """Runs those trials of a method that are not done yet.

    Args:
      folder: of the method; trials lie in `<folder>/trial<n>`, their scores in `<folder>/trials.json`.
      drawn: the settings of all of them.
      judge: (settings, workdir) trains there and returns the score on validation examples, the higher the better, NaN
        where there is none.

    Raises:
      UserError: trials.json is damaged, or not of these settings, or cannot be written.
    """
    for number in range(len(done(folder, drawn)), len(drawn)):
        score = judge(drawn[number], folder / f"trial{number}")
        scores = [*done(folder, drawn), None if math.isnan(score) else score]
        distributed.by_first(lambda scores=scores: _write(folder, drawn, scores))


def done(folder: Path, drawn: Sequence[Settings]) -> list[float | None]:
    """Scores of the trials that are done, in their order; None where no validation example tells. Raises as `run`."""
    path = folder / FILE_NAME
    try:
        trials = checksums.read_sealed(path)["trials"]
        if [trial["settings"] for trial in trials] != list(drawn[: len(trials)]):
            raise ValueError("it is of other settings")
        return [trial["score"] for trial in trials]
    except FileNotFoundError:
        return []
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is damaged ({error}): remove it, and the same command judges the trials again"
        ) from error


def best(folder: Path, drawn: Sequence[Settings]) -> int:
    """The number of the trial with the highest score, of equal ones the first; 0 where none has any."""
    scores = [-math.inf if score is None else score for score in done(folder, drawn)]
    return int(np.argmax(scores))


def adopt(folder: Path, number: int, seed_folder: Path) -> None:
    """Makes a trial, which is a run like any other, the run of its seed, unless that has begun."""

    def rename() -> None:
        trial = folder / f"trial{number}"
        if trial.exists() and not seed_folder.exists():
            try:
                trial.rename(seed_folder)
            except OSError as error:
                raise not_written(folder, error) from error

    distributed.by_first(rename)


def _write(folder: Path, drawn: Sequence[Settings], scores: Sequence[float | None]) -> None:
    trials: list[dict[str, Any]] = [
        {"settings": settings, "score": score} for settings, score in zip(drawn, scores, strict=False)
    ]
    write_record(folder, FILE_NAME, {"trials": trials})
