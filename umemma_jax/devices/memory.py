"""How much of the machine's memory may be taken, and what the process does with memory that it has freed."""

import ctypes
import functools
import math
import os
import resource
import sys
from pathlib import Path

from umemma_jax.errors import UserError

LIMIT = "UMEMMA_MEMORY_GB"  # in the environment: another limit than SHARE of what there is
SHARE = 0.8
GIGABYTE = 10**9
# What a container may take, by version of Linux's control groups.
_OF_CONTAINER = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")

# Parameters of mallopt(3), from glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Lets the process keep freed blocks for its next allocations, instead of giving them back to the kernel.

    XLA on CPU allocates its scratch space anew in each step. The C library takes blocks of more than 32 MiB from the
    kernel every time, which zeroes them page by page: up to a third of a small network's training step. The price is
    that the process stays as large as it has ever been. Call it early, before threads have allocators of their own.

    Returns:
      Whether it had an effect: False where the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: LARGEST_INT, M_ARENA_MAX: 1}
    return all([mallopt(parameter, value) == 1 for parameter, value in settings.items()])


def excess(size: float) -> str:
    """Why so many bytes are too many for this machine, to follow a field's name; empty if they are not.

    To be asked before anything is allocated by a number that a user gives: Linux lets a process allocate more than
    there is, and then kills one.

    Raises:
      UserError: the variable LIMIT is no number.
    """
    limit, origin = _limit()
    if size <= limit:
        return ""
    return (
        f"this takes {size / GIGABYTE:,.1f} GB, which is more than {origin}: lower it "
        f"({LIMIT}=N in the environment allows N GB)"
    )


def _limit() -> tuple[float, str]:
    """Bytes, and where they come from."""
    text = os.environ.get(LIMIT, "")
    if not text:
        return SHARE * total(), f"{SHARE:.0%} of the {total() / GIGABYTE:,.1f} GB that there are"
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = math.nan
    if not gigabytes > 0:
        raise UserError(f"{LIMIT}={text} in the environment: is no number of gigabytes above 0: mend or unset it")
    return gigabytes * GIGABYTE, f"{LIMIT}={text} allows"


@functools.cache
def total() -> int:
    """Bytes of the machine, or what its container or `ulimit -v` leaves of them."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in map(Path, _OF_CONTAINER):
        text = path.read_text().strip() if path.is_file() else ""
        if text.isdecimal():
            found.append(int(text))
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    return min(found if most == resource.RLIM_INFINITY else [*found, most])
