"""Orbax behind one small module: state and the pipeline's position are saved and restored as one thing."""

import os
import re
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import orbax.checkpoint as ocp

from umemma_jax.errors import UserError

PyTree = Any


class Checkpoints:
    """The checkpoints of one stage, in `<workdir>/checkpoints/<stage>/<step>`.

    Saving is asynchronous; a checkpoint appears by rename, so one that a killed process left half-written is never
    seen. The step is the number of finished steps.
    """

    def __init__(self, workdir: Path, stage: str, keep: int | None = None) -> None:
        """Opens them, to save and keep the newest `keep`, or else only to restore, without touching anything.

        Raises:
          UserError: the folder cannot be made.
        """
        self._folder = (Path(workdir) / "checkpoints" / stage).resolve()
        reading = keep is None
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            read_only=reading,
            create=not reading,
            save_interval_steps=0 if reading else 1,
        )
        try:
            if not reading:
                self._remove_unfinished()
            self._manager = ocp.CheckpointManager(self._folder, options=options)
        except OSError as error:
            raise self._not_written(error) from error

    def latest(self) -> int | None:
        """Step of the newest complete checkpoint."""
        return self._manager.latest_step()

    def save(self, step: int, state: PyTree, batches: Any) -> None:
        """Saves the state and the position of the batch iterator after `step` steps, unless it is there already.

        Raises:
          UserError: this checkpoint, or the one before it, cannot be written.
        """
        self.wait()
        if self.latest() == step:
            return
        try:
            # The position is a number of steps, the same on every process: any number of them can go on from it.
            items = ocp.args.Composite(
                state=ocp.args.StandardSave(state), batches=ocp.args.JsonSave(batches.get_state())
            )
            self._manager.save(step, args=items, force=True)
        except OSError as error:
            raise self._not_written(error) from error

    def wait(self) -> None:
        """Returns when every save so far is on disk.

        Raises:
          UserError: the last one could not be written; nothing is left of it.
        """
        try:
            self._manager.wait_until_finished()
        except jax.errors.JaxRuntimeError:
            raise
        except Exception as error:  # what Orbax's threads and TensorStore raise: OSError, ValueError and others
            raise self._not_written(error) from error

    def restore(self, step: int, like: PyTree, batches: Any = None) -> PyTree:
        """The state saved at `step`, with the shapes and shardings of `like`; moves `batches` to its position.

        Raises:
          UserError: the checkpoint is damaged, or holds a state of another structure.
        """
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
        items = {"state": ocp.args.StandardRestore(abstract)}
        if batches is not None:
            items["batches"] = ocp.args.JsonRestore()
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(**items))
            if batches is not None:
                batches.set_state(restored["batches"])
            return restored["state"]
        except Exception as error:  # Orbax and TensorStore raise anything, down to Exception itself
            raise UserError(
                f"{self._folder / str(step)}: this checkpoint cannot be restored ({_reason(error)}): remove its "
                f"folder, and the command with --mode=train continues from {self._newest(before=step)}"
            ) from error

    def _not_written(self, error: Exception) -> UserError:
        """What to say of a failed save, of which nothing is left."""
        self._remove_unfinished()
        return UserError(
            f"{self._folder}: a checkpoint cannot be written ({_reason(error)}): make room, or make the folder "
            f"writable, and the same command continues from {self._newest()}"
        )

    def _remove_unfinished(self) -> None:
        """Removes what a failed save or a killed process left; nothing else is being written."""
        if jax.process_index() == 0:
            for unfinished in self._folder.glob("*.orbax-checkpoint-tmp"):
                shutil.rmtree(unfinished, ignore_errors=True)

    def _newest(self, before: float = float("inf")) -> str:
        steps = [int(path.name) for path in self._folder.glob("[0-9]*") if path.name.isdecimal()]
        older = [step for step in steps if step < before]
        return f"step {max(older)}" if older else "the start of the stage"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits for the last save; if that fails, too, the first error is the one to report."""
        if isinstance(error, jax.errors.JaxRuntimeError):
            return  # another process may be gone, and waiting for its part would not end
        try:
            self.wait()
        except UserError:
            if kind is None:
                raise
        else:
            self._manager.close()


def _reason(error: Exception) -> str:
    """Why a checkpoint failed, in a few words; TensorStore puts the system's error code into a long text."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if code := re.search(r"os_error_code='(\d+)'", str(error)):
        return os.strerror(int(code[1]))
    while error.__cause__ is not None:
        error = error.__cause__
    first_line = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first_line[:100]}"
