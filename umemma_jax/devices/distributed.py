"""Several processes, on one machine or many, as one run: joining, agreeing, and ending together.

Every process is started with the same command, and computes its share of each batch on its own devices. They share the
workdir, and read the same prepared dataset from wherever each finds it.
"""

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from umemma_jax import command
from umemma_jax.devices import roll_call
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
    arguments = {"cluster_detection_method": None}
    if coordinator != AUTO:
        address = _check(coordinator, processes, process)
        print(f"process {process} of {processes}: joining the others at {coordinator}", flush=True)
        listening = None
        if process > 0:
            roll_call.ask(address, process, processes, JOIN_SECONDS)
        else:
            listening = roll_call.listening_address(address)
            roll_call.answer(listening, processes, JOIN_SECONDS)
        arguments = {
            "coordinator_address": str(address),
            "num_processes": processes,
            "process_id": process,
            "coordinator_bind_address": listening and str(listening),
            "cluster_detection_method": "deactivate",
        }
    jax.config.update("jax_enable_preemption_service", True)  # `asked_to_end` needs it, whatever the environment says
    with _given_up_after(JOIN_SECONDS, f"--coordinator={coordinator}: the others did not come: start all"):
        try:
            jax.distributed.initialize(
                **arguments,
                initialization_timeout=JOIN_SECONDS + SILENCE_SECONDS,
                heartbeat_timeout_seconds=SILENCE_SECONDS,
            )
        except Exception as error:  # whatever the variables of a cluster can make of it
            reason = (str(error).splitlines() or [""])[0]
            raise UserError(
                f"--coordinator={coordinator}: the processes do not come together "
                f"({type(error).__name__}: {reason}): check the flags and the cluster's variables"
            ) from error


def _check(coordinator: str, processes: int | None, process: int | None) -> roll_call.Address:
    address = roll_call.parse(coordinator, "--coordinator", f", nor {AUTO}")
    if processes is None or process is None:
        raise UserError(f"--coordinator={coordinator}: say how many --processes there are, and which --process this is")
    if not 0 <= process < processes:
        raise UserError(f"--process={process}: with --processes={processes}, it is one of 0 to {processes - 1}")
    return address


@contextlib.contextmanager
def _given_up_after(seconds: float, reason: str) -> Iterator[None]:
    """Ends the process with one line if it takes longer: JAX, which cannot be interrupted, would dump its stack."""
    timer = threading.Timer(seconds, lambda: command.end(command.failed(reason)))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


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

    All call it equally often. JAX takes note of the signal, unless its preemption service is switched off.
    """
    if not jax.config.jax_enable_preemption_service:
        return False
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
