"""Where arrays live: a mesh of all devices, and the two ways to run a step on it.

The mesh has two axes. Batches are split over both. Parameters, and all of the state that is shaped like them, are
replicated over `data` and split over `fsdp`, for encoders that do not fit replicated; by default `fsdp` is 1.

A step is a pure function `step(state, batch, devices) -> (state, metrics)` where `devices` says how the batch it sees
relates to the global one. Under `jit` it sees the global batch and XLA splits the work; under `pmap` each device
sees its own rows and sums go through `psum`. Both compute the same numbers.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from umemma_jax.devices import memory
from umemma_jax.errors import UserError

AXIS = "data"
FSDP = "fsdp"
MIN_SPLIT = 2**14  # elements: splitting smaller arrays costs more in messages than it saves in memory
PyTree = Any


@dataclasses.dataclass(frozen=True)
class Devices:
    """How the rows a step sees relate to the global batch.

    Attributes:
      shards: equal slices of the rows it sees that lie on one device each.
      axis_name: the pmap axis that the sums cross, None under jit.
    """

    shards: int = 1
    axis_name: str | None = None

    def total(self, x: PyTree) -> PyTree:
        """Sum over all devices of what this step holds of it."""
        return x if self.axis_name is None else jax.lax.psum(x, self.axis_name)

    def row_numbers(self, rows: int) -> jax.Array:
        """Position of each row in the global batch, int32 [B]."""
        first = 0 if self.axis_name is None else jax.lax.axis_index(self.axis_name) * rows
        return first + jax.numpy.arange(rows)


def make_mesh(fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """All devices of all processes, or those given, in groups of `fsdp` that hold one copy of the parameters together.

    `Mesh` and not `jax.make_mesh`: Linen needs Auto axes, and rows must follow the order of the processes.

    Raises:
      UserError: the devices do not divide into such groups.
    """
    devices = np.array(devices or jax.devices())
    if devices.size % fsdp:
        raise UserError(f"config.fsdp = {fsdp} does not divide {devices.size} devices: use a divisor of it")
    return Mesh(devices.reshape(-1, fsdp), (AXIS, FSDP))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def by_rows(mesh: Mesh) -> NamedSharding:
    """Split along the first axis, over all devices."""
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def like_parameters(tree: PyTree, mesh: Mesh) -> PyTree:
    """The sharding of each array: split over `fsdp` along its longest axis that divides, else replicated.

    Whatever is shaped like a parameter (optimiser slots, averages, best epochs) is split like it.
    """
    groups = dict(mesh.shape).get(FSDP, 1)

    def sharding(x: jax.Array | jax.ShapeDtypeStruct) -> NamedSharding:
        axes = [axis for axis, size in enumerate(x.shape) if size % groups == 0]
        if groups == 1 or not axes or np.prod(x.shape) < MIN_SPLIT:
            return replicated(mesh)
        longest = max(axes, key=lambda axis: x.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, FSDP))

    return jax.tree.map(sharding, tree)


def place(tree: PyTree, mesh: Mesh) -> PyTree:
    """Values that every process holds alike, as global arrays with the shardings of `like_parameters`."""

    def put(x: Any, sharding: NamedSharding) -> jax.Array:
        if jax.process_count() == 1 or (isinstance(x, jax.Array) and not x.is_fully_addressable):
            return jax.device_put(x, sharding)
        x = np.asarray(x)
        return jax.make_array_from_process_local_data(sharding, x, x.shape)

    return jax.tree.map(put, tree, like_parameters(tree, mesh))


def constrain(tree: PyTree, mesh: Mesh) -> PyTree:
    """Arrays inside a jitted function, to come out with the shardings of `like_parameters`."""
    return jax.lax.with_sharding_constraint(tree, like_parameters(tree, mesh))


def fetch(tree: PyTree) -> PyTree:
    """The whole values of global arrays as NumPy arrays, on every process; each must call it."""

    def whole(x: jax.Array) -> np.ndarray:
        if x.is_fully_addressable or x.is_fully_replicated:
            return jax.device_get(x)
        return multihost_utils.process_allgather(x, tiled=True)

    return jax.tree.map(whole, tree)


def check_batch_size(batch_size: int, mesh: Mesh, field: str) -> None:
    """Raises UserError where the batch cannot be split evenly over the devices."""
    if batch_size % mesh.size:
        raise UserError(
            f"config.{field} = {batch_size} does not divide evenly over {mesh.size} devices: "
            f"use a multiple of {mesh.size}"
        )


def put_batch(batch: PyTree, mesh: Mesh) -> PyTree:
    """This process's rows of a batch, NumPy, as global arrays split by rows."""
    sharding = by_rows(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


class Counted:
    """A function that counts its traces: each one is a compilation."""

    def __init__(self, function: Callable) -> None:
        self.function = function
        self.traces = 0

    def __call__(self, *args: PyTree) -> PyTree:
        """Calls the function."""
        self.traces += 1
        return self.function(*args)


class CompiledStep:
    """`(state, batch) -> (state, metrics)` on all devices, compiled ahead of time for each shape of batches.

    The state is donated: the new one takes its memory.

    Attributes:
      compilations: how many there have been.
      compile_seconds: what they have taken, with tracing.
    """

    def __init__(self, jitted: Any, shards: int = 0) -> None:
        """Takes what `jax.jit` returned, or, with the number of devices, `jax.pmap`."""
        self._jitted = jitted
        self._shards = shards
        self._executables = {}
        self.compilations = 0
        self.compile_seconds = 0.0

    def __call__(self, state: PyTree, batch: PyTree) -> tuple[PyTree, PyTree]:
        """Takes one step."""
        if self._shards:
            batch = jax.tree.map(lambda x: x.reshape(self._shards, -1, *x.shape[1:]), batch)
        shapes = tuple(x.shape for x in jax.tree.leaves(batch))
        if shapes not in self._executables:
            start = time.perf_counter()
            self._executables[shapes] = _fitting(self.lower(state, batch).compile())
            self.compile_seconds += time.perf_counter() - start
            self.compilations += 1
        return self._executables[shapes](state, batch)

    def lower(self, state: PyTree, batch: PyTree) -> jax.stages.Lowered:
        """What is to be compiled for arrays, or shapes, like these."""
        return self._jitted.lower(state, batch)


def _fitting(step: jax.stages.Compiled) -> jax.stages.Compiled:
    """The step, if it fits into the host's memory; on an accelerator, XLA itself refuses what does not fit there."""
    needed = step.memory_analysis() if jax.default_backend() == "cpu" else None
    if needed is not None:
        size = needed.argument_size_in_bytes + needed.output_size_in_bytes + needed.temp_size_in_bytes
        if reason := memory.excess(size - needed.alias_size_in_bytes):
            raise UserError(
                f"config.data.batch_size: a training step: {reason}, compute it in parts (config.<stage>.accumulate), "
                "or set `remat` of a transformer or a ResNet"
            )
    return step


def compile_step(step: Callable, mesh: Mesh, parallel: str) -> CompiledStep:
    """The step on all devices.

    Args:
      step: (state, batch, devices) -> (state, metrics).
      mesh: from `make_mesh`.
      parallel: `jit` or `pmap`.
    """
    if parallel == "pmap":
        devices = Devices(axis_name=AXIS)
        mapped = jax.pmap(
            lambda state, batch: step(state, batch, devices),
            AXIS,
            in_axes=(None, 0),
            out_axes=(None, None),
            donate_argnums=(0,),
        )
        return CompiledStep(mapped, mesh.size)
    devices = Devices(shards=mesh.size)

    def on_mesh(state: PyTree, batch: PyTree) -> tuple[PyTree, PyTree]:
        state, metrics = step(state, batch, devices)
        return constrain(state, mesh), jax.lax.with_sharding_constraint(metrics, replicated(mesh))

    return CompiledStep(jax.jit(on_mesh, donate_argnums=0))
