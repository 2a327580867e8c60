"""Orbax behind one small module: state and the pipeline's position are saved and restored as one thing."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from grain.checkpoint import CheckpointRestore, CheckpointSave

PyTree = Any


class Checkpoints:
    """The checkpoints of one stage, in `<workdir>/checkpoints/<stage>/<step>`.

    Saving is asynchronous; a checkpoint appears by rename, so one that a killed process left half-written is never
    seen. The step is the number of finished steps.
    """

    def __init__(self, workdir: Path, stage: str, keep: int = 2) -> None:
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        folder = (Path(workdir) / "checkpoints" / stage).resolve()
        self._manager = ocp.CheckpointManager(folder, options=options)

    def latest(self) -> int | None:
        """Step of the newest complete checkpoint."""
        return self._manager.latest_step()

    def save(self, step: int, state: PyTree, batches: Any) -> None:
        """Saves the state and the position of the batch iterator after `step` steps, unless it is there already."""
        if self.latest() == step:
            return
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), batches=CheckpointSave(batches))
        self._manager.save(step, args=items, force=True)

    def restore(self, step: int, like: PyTree, batches: Any = None) -> PyTree:
        """The state saved at `step`, with the shapes and shardings of `like`; moves `batches` to its position."""
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
        items = {"state": ocp.args.StandardRestore(abstract)}
        if batches is not None:
            items["batches"] = CheckpointRestore(batches)
        return self._manager.restore(step, args=ocp.args.Composite(**items))["state"]

    def wait(self) -> None:
        """Returns when every save so far is on disk; raises what went wrong in one."""
        self._manager.wait_until_finished()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self._manager.close()
