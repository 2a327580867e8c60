"""A trace of some training steps, for TensorBoard's profile plugin, XProf or Perfetto."""

import contextlib
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax

UNSTEADY = 5  # first steps: the very first compiles, and the next ones fill queues and caches


class Profile:
    """Traces `steps` steps of a stage into a folder, with the names of steps and of the model's parts."""

    def __init__(self, folder: Path, steps: int, stage_steps: int) -> None:
        """Traces nothing where `steps` is 0, and less than all `stage_steps` where there are enough."""
        self._folder = folder
        self._first = min(UNSTEADY, max(stage_steps - steps, 0)) + 1
        self._last = self._first + steps - 1
        self._running = False

    def step(self, number: int) -> contextlib.AbstractContextManager:
        """What step `number`, counted from 1, is to be taken in."""
        if self._first <= number <= self._last:
            if not self._running:
                jax.profiler.start_trace(self._folder)
                self._running = True
            return jax.profiler.StepTraceAnnotation("train", step_num=number)
        return contextlib.nullcontext()

    def taken(self, number: int, values: Any) -> None:
        """Ends the trace after its last step, once the device has computed the step's values."""
        if self._running and number == self._last:
            jax.block_until_ready(values)
            self._stop()

    def _stop(self) -> None:
        jax.profiler.stop_trace()
        self._running = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends a trace that is still running: of a stage that was interrupted."""
        if self._running:
            self._stop()
