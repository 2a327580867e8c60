"""Where the numbers of training can be watched, beside metrics.jsonl, their record; `config.trackers` names which.

A tracker shows one stage of a run. It is made with the records of the stage that are there already, where a run goes
on. TensorBoard's files are written anew from them, so that every step is in them once; Weights & Biases and MLflow keep
what they were told, and are told again of the steps since the last checkpoint.
"""

import importlib
import math
import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from umemma_jax import extras
from umemma_jax.errors import UserError

RECORD_KEYS = ("stage", "step", "time", "event", "text")
TENSORBOARD_FLUSH_SECONDS = 5.0  # between which TensorBoard sees nothing new


class Tracker(Protocol):
    """Shows one stage."""

    def scalars(self, step: int, seconds: float, values: Mapping[str, float | None]) -> None:
        """Takes the numbers of a step, `<name>` or `<event>/<name>`; None where one is not finite.

        `seconds` are since the epoch, as of `time.time`.
        """

    def text(self, step: int, text: str) -> None:
        """Takes a note."""

    def close(self) -> None:
        """Writes or sends what is left."""


def open_trackers(names: Sequence[str], workdir: Path, stage: str, records: Sequence[dict]) -> list[Tracker]:
    """The trackers of a stage.

    Args:
      names: of `TRACKERS`.
      workdir: of the run.
      stage: of it.
      records: lines of metrics.jsonl of this stage that the run has written before.

    Raises:
      UserError: a tracker's package is not installed, or it cannot be started.
      OSError: its files cannot be written.
    """
    return [TRACKERS[name](workdir, stage, records) for name in names]


def tell(tracker: Tracker, record: Mapping[str, Any]) -> None:
    """Gives a tracker what a line of metrics.jsonl says."""
    prefix = f"{record['event']}/" if "event" in record else ""
    if "text" in record:
        tracker.text(record["step"], record["text"])
        return
    values = {prefix + name: value for name, value in record.items() if name not in RECORD_KEYS}
    tracker.scalars(record["step"], record["time"], values)


class TensorBoard:
    """Files in `<workdir>/tensorboard/<stage>`.

    TensorBoard's RecordWriter rather than its EventFileWriter: the latter's thread finds a full disk first, and the
    training loop does not hear of it. (tensorboardX loads PyTorch where there is one.)
    """

    def __init__(self, workdir: Path, stage: str, records: Sequence[dict]) -> None:
        """Begins a new file with the records."""
        with extras.needed("tensorboard", "config.trackers"):
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.summary.writer import record_writer

        self._event, self._summary = event_pb2, summary_pb2
        folder = workdir / "tensorboard" / stage
        folder.mkdir(parents=True, exist_ok=True)
        # Names count seconds: the suffix keeps a run resumed within one from erasing the old file.
        suffix = len(list(folder.iterdir()))
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{suffix}"
        self._writer = record_writer.RecordWriter((folder / name).open("wb"))
        self._flushed = math.inf  # not before the old records are in it
        self._write(wall_time=time.time(), file_version="brain.Event:2")
        # Makes TensorBoard forget the older files. (Deleting them would stop one that is looking.)
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(wall_time=time.time(), step=0, session_log=start)
        for record in records:
            tell(self, record)
        self._writer.flush()
        self._flushed = -math.inf

    def scalars(self, step: int, seconds: float, values: Mapping[str, float | None]) -> None:
        """As `Tracker.scalars`."""
        found = [
            self._summary.Summary.Value(tag=name, simple_value=math.nan if value is None else value)
            for name, value in values.items()
        ]
        self._write(wall_time=seconds, step=step, summary=self._summary.Summary(value=found))
        now = time.perf_counter()
        if now - self._flushed > TENSORBOARD_FLUSH_SECONDS:
            self._writer.flush()
            self._flushed = now

    def text(self, step: int, text: str) -> None:
        """As `Tracker.text`; notes are in metrics.jsonl alone."""

    def close(self) -> None:
        """As `Tracker.close`."""
        self._writer.close()

    def _write(self, **fields: Any) -> None:
        self._writer.write(self._event.Event(**fields).SerializeToString())


class Wandb:
    """A run of Weights & Biases, of all stages; project, mode and key are as its WANDB_ variables say."""

    def __init__(self, workdir: Path, stage: str, records: Sequence[dict]) -> None:
        """Goes on with the workdir's run, or begins it."""
        self._wandb, self._stage = _package("wandb"), stage
        known = _remembered(workdir, "wandb")
        options = {"dir": str(workdir), "name": workdir.name, "id": known, "resume": "allow"}
        self._run = _started("wandb", lambda: self._wandb.init(**options))
        _remember(workdir, "wandb", self._run.id)
        # Its own steps count all that is logged, and never go back.
        self._run.define_metric(f"{stage}/step", hidden=True)
        self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")

    def scalars(self, step: int, seconds: float, values: Mapping[str, float | None]) -> None:
        """As `Tracker.scalars`."""
        known = {f"{self._stage}/{name}": value for name, value in values.items() if value is not None}
        self._run.log({**known, f"{self._stage}/step": step, "time": seconds})

    def text(self, step: int, text: str) -> None:
        """As `Tracker.text`."""
        self._run.summary[f"{self._stage}/note"] = text

    def close(self) -> None:
        """As `Tracker.close`."""
        self._run.finish()


class MLflow:
    """A run of MLflow, of all stages; server and experiment are as its MLFLOW_ variables say."""

    def __init__(self, workdir: Path, stage: str, records: Sequence[dict]) -> None:
        """Goes on with the workdir's run, or begins it, inside one that is active."""
        self._mlflow, self._stage = _package("mlflow"), stage
        known = _remembered(workdir, "mlflow")
        options = {"run_id": known, "run_name": workdir.name, "nested": self._mlflow.active_run() is not None}
        run = _started("mlflow", lambda: self._mlflow.start_run(**options))
        _remember(workdir, "mlflow", run.info.run_id)

    def scalars(self, step: int, seconds: float, values: Mapping[str, float | None]) -> None:
        """As `Tracker.scalars`; signs that MLflow's names cannot have become spaces."""
        known = {self._name(name): value for name, value in values.items() if value is not None}
        self._mlflow.log_metrics(known, step=step, timestamp=round(1000 * seconds))

    def text(self, step: int, text: str) -> None:
        """As `Tracker.text`."""
        self._mlflow.set_tag(f"{self._stage}/note", text)

    def close(self) -> None:
        """As `Tracker.close`."""
        self._mlflow.end_run()

    def _name(self, name: str) -> str:
        return re.sub(r"[^\w\-. :/]", " ", f"{self._stage}/{name}")


TRACKERS: dict[str, Callable[[Path, str, Sequence[dict]], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "mlflow": MLflow,
}


def _package(name: str) -> ModuleType:
    with extras.needed(name, "config.trackers"):
        return importlib.import_module(name)


def _started(name: str, start: Callable[[], Any]) -> Any:
    """What it returns; a package of the world outside may raise anything."""
    try:
        return start()
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"config.trackers: {name} cannot be started ({reason}): set it up, or leave it out") from error


def _remembered(workdir: Path, name: str) -> str | None:
    """The id of the workdir's run, where it has one."""
    path = workdir / f"{name}_run.txt"
    return path.read_text().strip() if path.exists() else None


def _remember(workdir: Path, name: str, run: str) -> None:
    (workdir / f"{name}_run.txt").write_text(f"{run}\n")
