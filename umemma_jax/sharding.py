"""Where arrays live: one mesh axis `data` over all devices, and the two ways to run a step on it.

A step is a pure function `step(state, batch, devices) -> (state, metrics)` where `devices` says how the batch it sees
relates to the global one. Under `jit` it sees the global batch and XLA splits the work; under `pmap` each device
sees its own rows and sums go through `psum`. Both compute the same numbers.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from umemma_jax.errors import UserError

AXIS = "data"
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


def make_mesh() -> Mesh:
    """All devices along `data`. `Mesh` and not `make_mesh`: Linen needs Auto axes."""
    return Mesh(np.array(jax.devices()), (AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def by_rows(mesh: Mesh) -> NamedSharding:
    """Split along the first axis."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


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


def compile_step(step: Callable, mesh: Mesh, parallel: str) -> tuple[Callable, Counted]:
    """`(state, batch) -> (state, metrics)` on all devices, state donated, and its trace counter.

    Args:
      step: (state, batch, devices) -> (state, metrics).
      mesh: from `make_mesh`.
      parallel: `jit` or `pmap`.
    """
    if parallel == "pmap":
        return _pmap_step(step, mesh)
    devices = Devices(shards=mesh.size)
    counted = Counted(lambda state, batch: step(state, batch, devices))
    same = replicated(mesh)
    compiled = jax.jit(counted, donate_argnums=0, in_shardings=(same, by_rows(mesh)), out_shardings=(same, same))
    return compiled, counted


def _pmap_step(step: Callable, mesh: Mesh) -> tuple[Callable, Counted]:
    devices = Devices(axis_name=AXIS)
    counted = Counted(lambda state, batch: step(state, batch, devices))
    compiled = jax.pmap(counted, AXIS, in_axes=(None, 0), out_axes=(None, None), donate_argnums=(0,))

    def run(state: PyTree, batch: PyTree) -> tuple[PyTree, PyTree]:
        return compiled(state, jax.tree.map(lambda x: x.reshape(mesh.size, -1, *x.shape[1:]), batch))

    return run, counted
