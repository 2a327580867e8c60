"""Orbax behind one small module: state and the pipeline's position are saved and restored as one thing.

Each checkpoint holds the checksums of its files, and what it is of: they are written before it appears, and compared
before anything of it is used. That begins when the checkpoints are opened, so that it costs no time where there is
something else to do before the newest one is restored.
"""

import os
import re
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import orbax.checkpoint as ocp

from umemma_jax import checksums
from umemma_jax.devices import distributed
from umemma_jax.errors import UserError
from umemma_jax.training.quiet import quiet_orbax

PyTree = Any

METADATA = "_CHECKPOINT_METADATA"  # Orbax's own, of every checkpoint; the time of the commit is added as it appears
UNFINISHED = ".orbax-checkpoint-tmp"  # how Orbax names the folder of a checkpoint until then


class Checkpoints:
    """The checkpoints of one stage, in `<workdir>/checkpoints/<stage>/<step>`.

    Saving is asynchronous; a checkpoint appears by rename, with its checksums in it, so one that a killed process left
    half-written is never seen. The step is the number of finished steps.
    """

    def __init__(self, workdir: Path, stage: str, keep: int | None = None, run: str = "") -> None:
        """Opens them, to save and keep the newest `keep`, or else only to restore, without touching anything.

        Args:
          workdir: of the run.
          stage: of it.
          keep: how many.
          run: what tells this run from others, whose checkpoints are refused.

        Raises:
          UserError: the folder cannot be made.
        """
        quiet_orbax()
        self._folder = (Path(workdir) / "checkpoints" / stage).absolute()
        self._about = {"run": run, "stage": stage}
        self._saving = 0  # the step of the checkpoint in the making
        reading = keep is None
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            read_only=reading,
            create=not reading,
            save_interval_steps=0 if reading else 1,
            # Called by process 0 in Orbax's thread when all files are complete, before the checkpoint appears.
            async_options=ocp.AsyncOptions(post_finalization_callback=self._state_checksums),
        )
        try:
            if not reading:
                self._remove_unfinished()
            self._manager = ocp.CheckpointManager(self._folder, options=options)
        except OSError as error:
            raise self._not_written(error) from error
        self._verified = self._begin_to_verify(self.latest()) if distributed.is_first() else {}

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
            self._saving = step
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
          UserError: the checkpoint is damaged or of something else, or holds a state of another structure.
        """
        distributed.by_first(lambda: self._check(step))
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
            raise self._not_restored(step, _reason(error)) from error

    def _state_checksums(self) -> None:
        checksums.write_folder(
            self._folder / f"{self._saving}{UNFINISHED}", {**self._about, "step": self._saving}, without=[METADATA]
        )

    def _begin_to_verify(self, step: int | None) -> dict[int, Future[str | None]]:
        """By step, what `_fault` will say; nothing of None."""
        if step is None:
            return {}
        thread = ThreadPoolExecutor(1)
        found = thread.submit(self._fault, step)
        thread.shutdown(wait=False)
        return {step: found}

    def _check(self, step: int) -> None:
        verified = self._verified.pop(step, None)
        fault = verified.result() if verified else self._fault(step)
        if fault:
            raise self._not_restored(step, fault)

    def _fault(self, step: int) -> str | None:
        """What is wrong with a checkpoint, by its checksums; those from before there were any are believed."""
        folder = self._folder / str(step)
        if found := checksums.damaged(folder):
            return found
        about = checksums.about(folder)
        if about is None:
            return None if (folder / METADATA).is_file() else f"{checksums.FILE_NAME}: missing"
        if about == {**self._about, "step": step}:
            return None
        other = "" if about.get("run") == self._about["run"] else " of another run"
        return f"it is that of stage {about.get('stage')}, step {about.get('step')},{other}".removesuffix(",")

    def _not_restored(self, step: int, reason: str) -> UserError:
        """What to say of a checkpoint that is of no use, and which one is."""
        older = sorted((found for found in self._steps() if found < step), reverse=True)
        whole = next((found for found in older if not self._fault(found)), None)
        useless = ", ".join(str(found) for found in older if whole is None or found > whole)
        return UserError(
            f"{self._folder / str(step)}: this checkpoint cannot be restored ({reason}): remove its folder"
            f"{f' (and {useless} beside it, no better)' if useless else ''}, and the command with --mode=train "
            f"continues from {_place(whole)}"
        )

    def _not_written(self, error: Exception) -> UserError:
        """What to say of a failed save, of which nothing is left."""
        self._remove_unfinished()
        return UserError(
            f"{self._folder}: a checkpoint cannot be written ({_reason(error)}): make room, or make the folder "
            f"writable, and the same command continues from {_place(max(self._steps(), default=None))}"
        )

    def _remove_unfinished(self) -> None:
        """Removes what a failed save or a killed process left; nothing else is being written."""
        if jax.process_index() == 0:
            for unfinished in self._folder.glob(f"*{UNFINISHED}"):
                shutil.rmtree(unfinished, ignore_errors=True)

    def _steps(self) -> list[int]:
        return [int(path.name) for path in self._folder.glob("[0-9]*") if path.name.isdecimal()]

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


def _place(step: int | None) -> str:
    return "the start of the stage" if step is None else f"step {step}"


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
