"""Accelerators to compile for, none of which is there."""

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple
from unittest import mock

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from umemma_jax.devices import sharding
from umemma_jax.errors import UserError


class Chip(NamedTuple):
    """What its maker says of a chip.

    Attributes:
      flops: peak in bfloat16, FLOP/s.
      clock: cycles of the matrix units a second: at the peak every one of them multiplies in every cycle.
      memory: bytes.
    """

    flops: float
    clock: float
    memory: float


# Source: cloud.google.com/tpu/docs, of each the page "system architecture". The clock is the peak over the FLOP of a
# cycle: 4 units of 128 x 128 (v5e), 4 of 256 x 256 (v6e), 2 x 4 of 128 x 128 (v5p).
CHIPS = {
    "v5e": Chip(flops=197e12, clock=1.50e9, memory=16 * 2**30),
    "v6e": Chip(flops=918e12, clock=1.75e9, memory=32 * 2**30),
    "v5p": Chip(flops=459e12, clock=1.75e9, memory=95 * 2**30),
}
ENVIRONMENT = {  # that the compiler starts in where no TPU is
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # else the lock of a process that was killed stops the next one
}


class Target(NamedTuple):
    """Chips of one kind, joined."""

    chip: Chip
    mesh: Mesh


def find(name: str, fsdp: int = 1) -> Target:
    """The target of a name like `v5e:2x2` or `v5p:4x4x4`; raises UserError where it cannot be compiled for."""
    kind, _, topology = name.partition(":")
    if kind not in CHIPS:
        raise UserError(f"--target={name}: no chip of that name, use one of {', '.join(CHIPS)}, as in v5e:2x2")
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=f"{kind}:{topology}")
    except (RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"--target={name}: {reason:.200} (pip install -e '.[tpu-compiler]', sizes as 2x2)") from None
    return Target(CHIPS[kind], sharding.make_mesh(fsdp, list(found.devices)))


@contextlib.contextmanager
def tracing_for(platform: str) -> Iterator[None]:
    """What is traced inside takes the platform for JAX's backend, which the model's code asks for in a few places."""
    with mock.patch.object(jax, "default_backend", return_value=platform):
        yield
