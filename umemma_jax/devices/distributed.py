"""Several processes, on one machine or many, as one run: joining, agreeing, and ending together.

Every process is started with the same command, and computes its share of each batch on its own devices. They share the
workdir, and read the same prepared dataset from wherever each finds it.
"""

import contextlib
import itertools
import socket
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from umemma_jax.errors import UserError

AUTO = "auto"
JOIN_SECONDS = 300  # that a process waits for the others to be started
SILENCE_SECONDS = 30  # after which a process that does not answer counts as gone, and all others end

# In messages of JAX's runtime that tell of other processes.
OF_OTHERS = ("Gloo", "NCCL", "coordination", "Barrier", "UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED")

_calls = itertools.count()


def join(coordinator: str, processes: int | None = None, process: int | None = None) -> None:
    """Makes this process one of several, before JAX is used for anything else.

    Args:
      coordinator: HOST:PORT, where process 0 listens and all others can reach it; or `auto`, which asks SLURM, Open
        MPI, Kubernetes or the TPU pod for this and the rest.
      processes: how many there are.
      process: the number of this one, from 0.

    Raises:
      UserError: one of the three is missing or wrong, or not all of them came together.
    """
    arguments = (None, None, None)
    if coordinator != AUTO:
        arguments = coordinator, processes, process
        _check(*arguments)
        print(f"process {process} of {processes}: joining the others at {coordinator}", flush=True)
        if process > 0:
            _wait_for(coordinator)
    jax.config.update("jax_enable_preemption_service", True)  # `asked_to_end` needs it, whatever the environment says
    try:
        jax.distributed.initialize(
            *arguments,
            cluster_detection_method=None if coordinator == AUTO else "deactivate",
            initialization_timeout=JOIN_SECONDS,
            heartbeat_timeout_seconds=SILENCE_SECONDS,
        )
    except (RuntimeError, ValueError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"--coordinator={coordinator}: the processes do not come together: {reason}") from error


def _check(coordinator: str, processes: int | None, process: int | None) -> None:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f"--coordinator={coordinator}: is not HOST:PORT, nor {AUTO}")
    if processes is None or process is None:
        raise UserError(f"--coordinator={coordinator}: say how many --processes there are, and which --process this is")
    if not 0 <= process < processes:
        raise UserError(f"--process={process}: with --processes={processes}, it is one of 0 to {processes - 1}")


def _wait_for(coordinator: str) -> None:
    """Returns once process 0 listens. JAX itself, after JOIN_SECONDS, would end the process and dump its stack."""
    host, _, port = coordinator.rpartition(":")
    end = time.monotonic() + JOIN_SECONDS
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=JOIN_SECONDS).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise UserError(
                    f"--coordinator={coordinator}: nobody answers there ({error.strerror or error}): start --process=0 "
                    "too, with the same --coordinator, on the host that it names"
                ) from error
        time.sleep(0.2)


def several() -> bool:
    """Whether this process has joined others."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this is the process that writes and prints for all."""
    return not several() or jax.process_index() == 0


def by_first(action: Callable[[], None]) -> None:
    """Process 0 does it, and the others wait until it is done.

    Raises:
      UserError: what `action` raised; on the others, that process 0 has failed.
    """
    if not several():
        action()
        return
    error = None
    if is_first():
        try:
            action()
        except UserError as found:
            error = found
    failed = bool(multihost_utils.broadcast_one_to_all(np.array(error is not None)))
    if error:
        raise error
    if failed:
        raise UserError("process 0 has ended with an error: see what it says")


def first_then_others(action: Callable[[], None]) -> None:
    """Process 0 does it, and then the others do: it makes, and they find, files that all share.

    Raises:
      UserError: as `by_first`.
    """
    by_first(action)
    if not is_first():
        action()


def on_all(found: bool) -> bool:
    """Whether it is so on every process; each must call it."""
    return bool(multihost_utils.process_allgather(np.array(found)).all()) if several() else found


def asked_to_end() -> bool:
    """Whether SIGTERM has come to one of the processes; it turns true on all of them at the same call.

    All call it equally often. JAX takes note of the signal.
    """
    return multihost_utils.reached_preemption_sync_point(next(_calls))


@contextlib.contextmanager
def losses_told() -> Iterator[None]:
    """Raises UserError in place of what JAX's runtime raises when another process is gone.

    That is a matter of seconds where a step meets a broken connection. A process that only falls silent (its machine is
    off, the network cut), or whose part of a checkpoint is waited for, is missed after SILENCE_SECONDS: then JAX ends
    the others, with a message of its own.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        reason = (str(error).splitlines() or [""])[0]
        if not any(word in reason for word in OF_OTHERS):
            raise
        raise UserError(
            f"process {jax.process_index()} of {jax.process_count()}: another one is gone ({reason}): start all of "
            "them again, and the run continues from its newest checkpoint"
        ) from error


def leave() -> None:
    """Waits until all processes are done, so that none is taken for lost."""
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()
