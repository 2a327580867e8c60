"""Who is there, before several processes join: what keeps them apart is said in words.

JAX itself ends all of them with a dump of its stack where a name cannot be resolved, a process does not come, or two
have the same number. So process 0 listens first, at the address where its coordinator will, the others tell it their
numbers, and all get the same answer.
"""

import contextlib
import errno
import ipaddress
import os
import re
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from umemma_jax.errors import UserError

RESOLVE_SECONDS = 60  # that a name may take to appear: cluster managers announce hosts when they are ready
LINE_SECONDS = 5  # for the one line of whoever connects
LONGEST_LINE = 300  # bytes
GREETING, ALL_HERE = "umemma_jax process", "all are here"
BIND = "JAX_COORDINATOR_BIND_ADDRESS"
EVERYWHERE = ("::", "0.0.0.0")


@dataclass(frozen=True)
class Address:
    """HOST:PORT; an IPv6 address as host is in brackets there, and without them here."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(text: str, name: str, also: str = "") -> Address:
    """An address; UserError, with the name of the flag or variable and what else could stand there, if it is none."""
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    plain = host and not any(c in host for c in " /@[]") and host.isprintable() and (bracketed or ":" not in host)
    if not plain or not (port.isascii() and port.isdecimal()):
        raise UserError(f"{name}={text}: is not HOST:PORT{also} (an IPv6 address in brackets)")
    if not 1 <= int(port) < 2**16:
        raise UserError(f"{name}={text}: the port is one of 1 to {2**16 - 1}")
    return Address(host, int(port))


def listening_address(coordinator: Address) -> Address:
    """Where process 0 listens: on the interface of the named host, or on all of them where that is not known.

    It is not known where the name stands for something between the machines (a cluster's service), or where the
    machine's own name is that of its loopback to itself, as on Debian. `JAX_COORDINATOR_BIND_ADDRESS` overrules.

    Raises:
      UserError: the port is in use, or not allowed.
    """
    if given := os.environ.get(BIND):
        return parse(given, BIND)
    named = _resolved(coordinator)
    means_loopback = coordinator.host in ("localhost", *named)
    for host in sorted(named, key=lambda host: (_is_loopback(host), ":" in host)):
        if means_loopback or not _is_loopback(host):
            with contextlib.suppress(OSError), _listening(Address(host, coordinator.port)):
                return Address(host, coordinator.port)
    print(f"process 0: {coordinator.host} is none of this machine's own addresses: listening on all interfaces")
    return Address(EVERYWHERE[0] if socket.has_dualstack_ipv6() else EVERYWHERE[1], coordinator.port)


def answer(listening: Address, processes: int, seconds: float) -> None:
    """What process 0 does: waits for the others, and tells them that all are there, or what is wrong.

    Raises:
      UserError: what is wrong.
    """
    callers: list[tuple[int, socket.socket]] = []
    reason, end = "", time.monotonic() + seconds
    with _listening(listening) as server, contextlib.ExitStack() as connections:
        while not reason and len(callers) < processes - 1:
            server.settimeout(max(end - time.monotonic(), 0.001))
            try:
                caller = connections.enter_context(server.accept()[0])
            except TimeoutError:
                missing = sorted({*range(1, processes)} - {number for number, _ in callers})
                reason = f"process {', '.join(map(str, missing))} of {processes} did not come within {seconds:g} s"
                break
            numbers = _numbers(_line(caller))
            if numbers is None:
                continue  # somebody else, who looks what listens here
            reason = _contradiction(*numbers, processes, [number for number, _ in callers])
            callers.append((numbers[0], caller))
        for _, caller in callers:
            with contextlib.suppress(OSError):
                caller.sendall(f"{reason or ALL_HERE}\n".encode())
    if reason:
        raise UserError(f"--processes={processes}: {reason}")


def ask(coordinator: Address, process: int, processes: int, seconds: float) -> None:
    """What the others do: tell process 0 that they are there, and wait for its answer.

    Raises:
      UserError: nobody answers, or what process 0 says is wrong.
    """
    _resolved(coordinator)
    end = time.monotonic() + seconds
    with _connected(coordinator, end) as connection:
        connection.sendall(f"{GREETING} {process} of {processes}\n".encode())
        said = _line(connection, max(end - time.monotonic(), LINE_SECONDS))
    if said != ALL_HERE:
        reason = said if said.startswith(("process", "two")) else "what answers there is no process 0 that waits"
        raise UserError(f"--coordinator={coordinator}: {reason}")


def _numbers(said: str) -> tuple[int, int] | None:
    """The number of a process that has called, and how many it says there are."""
    found = re.fullmatch(rf"{GREETING} (\d{{1,9}}) of (\d{{1,9}})", said)
    return found and (int(found[1]), int(found[2]))


def _contradiction(number: int, stated: int, processes: int, here: Sequence[int]) -> str:
    """What is wrong with a process that has called; empty if nothing is."""
    if stated != processes:
        return f"process {number} was started with --processes={stated}, process 0 with --processes={processes}"
    if number == 0 or number in here:
        return f"two processes were started with --process={number}: give each its own number"
    return ""


def _resolved(address: Address) -> list[str]:
    """The host's IP addresses. Raises UserError if it has none after RESOLVE_SECONDS."""
    end, told = time.monotonic() + RESOLVE_SECONDS, False
    while True:
        try:
            found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
            return list(dict.fromkeys(entry[4][0] for entry in found))
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            if time.monotonic() > end or isinstance(error, UnicodeError):
                raise UserError(
                    f"--coordinator={address}: the host cannot be resolved ({reason}): check its name, or use its IP "
                    "address"
                ) from error
            if not told:
                print(f"{address.host} cannot be resolved ({reason}): trying for {RESOLVE_SECONDS:g} s", flush=True)
            told = True
            time.sleep(min(1.0, RESOLVE_SECONDS))


def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


@contextlib.contextmanager
def _listening(address: Address) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    everywhere = address.host == EVERYWHERE[0]
    try:
        server = socket.create_server((address.host, address.port), family=family, dualstack_ipv6=everywhere)
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise
        reason = str(error.strerror).partition(" (while")[0]
        raise UserError(f"port {address.port} of {address.host}: {reason}: choose another port") from error
    with server:
        yield server


@contextlib.contextmanager
def _connected(coordinator: Address, end: float) -> Iterator[socket.socket]:
    """A connection to process 0, as soon as it listens."""
    while True:
        try:
            connection = socket.create_connection((coordinator.host, coordinator.port), max(end - time.monotonic(), 1))
            break
        except OSError as error:
            if time.monotonic() > end:
                raise UserError(
                    f"--coordinator={coordinator}: nobody answers there ({error.strerror or error}): start --process=0 "
                    "too, with the same --coordinator, on the host that it names"
                ) from error
        time.sleep(0.2)
    with connection:
        yield connection


def _line(connection: socket.socket, seconds: float = LINE_SECONDS) -> str:
    """The one line that the other side sends; empty if it sends none in time."""
    end, received = time.monotonic() + seconds, b""
    with contextlib.suppress(OSError):
        while not received.endswith(b"\n") and len(received) < LONGEST_LINE:
            connection.settimeout(max(end - time.monotonic(), 0.001))
            part = connection.recv(LONGEST_LINE)
            if not part:
                break
            received += part
    return received.decode(errors="replace").strip()
