"""What the process does with memory that it has freed."""

import ctypes
import sys

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
