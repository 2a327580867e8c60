"""What is set before JAX is loaded, in a command and in Python alike."""

import hashlib
import os
import platform
import sys
from pathlib import Path

from umemma_jax import command
from umemma_jax.data.remote import is_url
from umemma_jax.devices.memory import keep_freed_memory


def as_library() -> None:
    """For whoever imports this package: all of it, unless JAX is loaded already and has its own settings."""
    if "jax" not in sys.modules:
        keep_freed_memory()
        keep_compiled()


def keep_compiled() -> None:
    """Has JAX keep what it compiles for the next start; its own variables choose another folder, or none.

    A folder for each kind of processor: machines that share a home need not run each other's instructions.
    """
    if given := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        if not is_url(given) and not command.can_be_written(Path(given)):
            print(f"JAX_COMPILATION_CACHE_DIR={given} cannot be written: what is compiled is not kept")
            os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # which would complain of every program
        return
    folder = command.cache_folder()
    if folder is not None:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder / "compiled" / _kind_of_processor())
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")


def _kind_of_processor() -> str:
    try:
        features = next(
            line
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.lower().startswith(("flags", "features"))
        )
    except (OSError, StopIteration):
        features = platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:8]}"
