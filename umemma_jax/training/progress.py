"""What training shows and leaves behind: a bar or plain lines, metrics.jsonl, and what the trackers make of it.

metrics.jsonl is the record: a killed and resumed run has every step once in it. See `trackers` for the views of it.
"""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from umemma_jax.errors import UserError
from umemma_jax.training.trackers import RECORD_KEYS, open_trackers, tell


class Progress:
    """Shows and records one stage of training.

    On a terminal (stderr) a bar stands at the bottom; otherwise each logging step prints one line
    to stdout. Each call of `log` and `event` appends one line to <workdir>/metrics.jsonl and tells the
    trackers of it.

    Args:
        workdir: folder of the run; made if absent.
        stage: name of the stage.
        total_steps: last step of the stage.
        first_step: steps already done. The record's lines of this stage after it are dropped (all
            of them where first_step=0, a stage begun afresh): the run writes them again.
        examples_per_step: global batch size, for examples/s.
        active: False shows and writes nothing, for all but one process of a multi-host run.
        trackers: names of `trackers.TRACKERS`.

    Raises:
        UserError: the workdir cannot be written or the disk is full, at entry or at a later write;
            a tracker cannot be started.
    """

    def __init__(
        self,
        workdir: Path,
        stage: str,
        total_steps: int,
        first_step: int = 0,
        examples_per_step: int = 1,
        active: bool = True,
        trackers: Sequence[str] = ("tensorboard",),
    ) -> None:
        self._workdir = Path(workdir)
        self._stage = stage
        self._total_steps = total_steps
        self._first_step = first_step
        self._examples_per_step = examples_per_step
        self._active = active
        self._names = trackers
        self._bar = None
        # (step, seconds) marks. Both start at the end of the first step, which compiles.
        self._start = self._previous = None

    def __enter__(self) -> Self:
        if not self._active:
            return self
        with _as_user_error(self._workdir):
            self._workdir.mkdir(parents=True, exist_ok=True)
            path = self._workdir / "metrics.jsonl"
            kept = drop_unfinished(path, self._stage, self._first_step)
            # Buffered by line: kill -9 loses the current one at most.
            self._lines = path.open("a", buffering=1)
            self._trackers = open_trackers(self._names, self._workdir, self._stage, kept)
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=self._total_steps,
                initial=self._first_step,
                file=sys.stderr,
                dynamic_ncols=True,
                bar_format=self._stage + " {n_fmt}/{total_fmt} |{bar}| {desc}",
            )
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._active:
            return
        if self._bar is not None:
            self._bar.close()
        # A full disk fails here a second time; the first error is the one to report.
        with contextlib.suppress(OSError) if exc else _as_user_error(self._workdir):
            self._lines.close()
            for tracker in self._trackers:
                tracker.close()

    def update(self, step: int) -> None:
        """Counts a finished (dispatched) step. Cheap; call it after every step."""
        if not self._active:
            return
        if self._start is None:
            self._start = self._previous = (step, time.perf_counter())
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Shows and records the values of a logging step, with examples/s since the last one."""
        if not self._active:
            return
        values = {name: float(value) for name, value in values.items()}
        speed, remaining = self._pace(step)
        shown, pace = _words(values), []
        if speed is not None:
            values["examples_per_second"] = round(speed, 1)
            pace = [f"{speed:,.0f} examples/s", f"{duration(remaining)} left"]
        self._write({"stage": self._stage, "step": step}, values)
        if self._bar is None:
            self._print(step, shown + pace)
        else:
            self._bar.set_description_str("  ".join(pace + shown))  # a narrow terminal cuts the end

    def event(self, name: str, step: int, values: Mapping[str, float]) -> None:
        """Shows and records what happened beside the steps, a validation for example.

        The time since the last `log` does not count towards examples/s.
        """
        if not self._active:
            return
        values = {key: float(value) for key, value in values.items()}
        self._write({"stage": self._stage, "step": step, "event": name}, values)
        self._print(step, [name, *_words(values)])
        if self._start is not None:
            self._previous = (step, time.perf_counter())

    def note(self, text: str) -> None:
        """Shows and records, before the stage's first step, what is to be known of all of it."""
        if not self._active:
            return
        self._write({"stage": self._stage, "step": 0, "event": "note", "text": text}, {})
        self._print(0, [text])

    def _pace(self, step: int) -> tuple[float | None, float | None]:
        """Examples/s since the previous mark, and seconds left at the mean pace of the whole run.

        None before there is a second mark.
        """
        if self._previous is None or step <= self._previous[0]:
            return None, None
        now = time.perf_counter()
        (start_step, start), (previous_step, previous) = self._start, self._previous
        self._previous = (step, now)
        speed = (step - previous_step) * self._examples_per_step / (now - previous)
        return speed, (self._total_steps - step) * (now - start) / (step - start_step)

    def _write(self, head: dict, values: dict[str, float]) -> None:
        if clash := set(values) & set(RECORD_KEYS):
            raise ValueError(f"names kept for the record itself: {sorted(clash)}")
        numbers = {name: value if math.isfinite(value) else None for name, value in values.items()}
        record = head | {"time": round(time.time(), 3)} | numbers  # JSON has no NaN: null
        with _as_user_error(self._workdir):
            self._lines.write(json.dumps(record, allow_nan=False) + "\n")
            for tracker in self._trackers:
                tell(tracker, record)

    def _print(self, step: int, shown: list[str]) -> None:
        text = "  ".join([f"{self._stage} {step}/{self._total_steps}", *shown])
        if self._bar is None:
            print(text, flush=True)
        else:
            tqdm.write(text)  # above the bar


def drop_unfinished(path: Path, stage: str, first_step: int) -> list[dict]:
    """Drops from metrics.jsonl what a stage resumed after `first_step` will write again.

    A half-written last line, left by a killed process, goes too.

    Returns:
        The stage's records that stay, in order.

    Raises:
        UserError: a line other than the last is not a record.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    lines = content.splitlines()
    kept_lines, kept_records = [], []
    for number, line in enumerate(lines, start=1):
        try:
            record = _record(line)
        except (ValueError, RecursionError):
            if number == len(lines):
                continue  # the process was killed while writing it
            raise UserError(f"{path}, line {number}: not a record; delete the line") from None
        mine = record["stage"] == stage
        if mine and (first_step == 0 or record["step"] > first_step):
            continue
        kept_lines.append(line + b"\n")
        if mine:
            kept_records.append(record)
    kept = b"".join(kept_lines)
    if kept != content:
        temporary = path.with_name(f".{path.name}.partial")
        temporary.write_bytes(kept)
        os.replace(temporary, path)
    return kept_records


def _record(line: bytes) -> dict[str, Any]:
    """What a line of the record says; raises ValueError where it is none."""
    record = json.loads(line)
    if not isinstance(record, dict) or not record.keys() >= {"stage", "step", "time"}:
        raise ValueError("keys are missing")
    kinds = {"stage": str, "step": int, "time": int | float, "event": str, "text": str}
    for name, value in record.items():
        if not isinstance(value, kinds.get(name, int | float | None)):
            raise ValueError(f"{name} is {value!r}")
    return record


@contextlib.contextmanager
def _as_user_error(workdir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write to {error.filename or workdir}: {error.strerror}; free space or choose another --workdir"
        ) from error


def _words(values: Mapping[str, float]) -> list[str]:
    """Name and value of each, the loss first (jit hands dicts back in alphabetical order)."""
    names = sorted(values, key=lambda name: name != "loss")
    return [f"{name} {_number(values[name])}" for name in names]


def _number(value: float) -> str:
    if math.isnan(value):
        return "\u2013"  # a score that no example defines
    plain = value == 0 or math.isinf(value) or 1e-3 <= abs(value) < 1e5
    return f"{value:.4f}" if plain else f"{value:.2e}"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, for people."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
