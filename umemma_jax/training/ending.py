"""When a stage ends before its last step: no epoch is better any more, or the time is up.

Such an end is written down before the checkpoint that it is at, so that a run killed between the two ends at the same
step. It stays: the same command trains a stage that has ended no further.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from umemma_jax import checksums
from umemma_jax.devices import distributed
from umemma_jax.errors import UserError
from umemma_jax.training.workdir import write_record

NO_BETTER, TIME_IS_UP = "no better epoch", "time limit"
REPORT_SHARE = 0.2  # of the time limit, left for the last validation, the report and what is saved


@dataclass(frozen=True)
class End:
    """Where a stage has ended.

    Attributes:
      step: its last one.
      steps: how many it was to have.
      reason: `NO_BETTER` or `TIME_IS_UP`.
    """

    step: int
    steps: int
    reason: str


def read_end(workdir: Path, stage: str) -> End | None:
    """The end of a stage that has ended early; None of others. Raises UserError where the record is damaged."""
    path = workdir / _name(stage)
    try:
        record = checksums.read_sealed(path)
        return End(**{name: record[name] for name in ("step", "steps", "reason")})
    except FileNotFoundError:
        return None
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}): remove it, and the same command trains on") from error


def read_ends(workdir: Path, stages: Sequence[str]) -> dict[str, End]:
    """The ends of those stages that have ended early, by name. Raises as `read_end`."""
    ends = {stage: read_end(workdir, stage) for stage in stages}
    return {stage: end for stage, end in ends.items() if end is not None}


def write_end(workdir: Path, stage: str, end: End) -> None:
    """Writes the end of a stage, of several processes by the first. Raises UserError if it cannot be written."""
    distributed.by_first(lambda: write_record(workdir, _name(stage), asdict(end)))


def _name(stage: str) -> str:
    return f"{stage}_end.json"


class TimeLimit:
    """Seconds for training and its report, shared by the stages in proportion to their steps.

    What an earlier stage leaves, because it was finished before, is the later ones'.
    """

    def __init__(self, seconds: float, steps: Mapping[str, int]) -> None:
        """Starts now; 0 seconds are no limit. `steps` are those of each stage, in order."""
        self._seconds, self._steps = seconds, dict(steps)
        self._end = time.monotonic() + (1 - REPORT_SHARE) * seconds
        self._deadline = self._end

    def begin(self, stage: str, left: int) -> None:
        """Sets the deadline of a stage that has `left` steps to do, before which no other one has any."""
        later = list(self._steps)[list(self._steps).index(stage) + 1 :]
        share = left / max(left + sum(self._steps[name] for name in later), 1)
        now = time.monotonic()
        self._deadline = now + share * max(self._end - now, 0)

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return self._seconds > 0

    def is_over(self) -> bool:
        """Whether the deadline has passed on any process; all ask equally often."""
        return self.limited and not distributed.on_all(time.monotonic() < self._deadline)
