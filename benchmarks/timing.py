"""Timings that stand a noisy machine: taken in turns, after warm-up, waited for, compared as ratios of medians."""

import os
import platform
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

MIN_ROUNDS = 3


def seconds_of(run: Callable[[], Any]) -> float:
    """Seconds until what `run` returns is computed."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def interleaved(
    runs: Mapping[str, Callable[[], Any]], seconds: float, clock: Callable[[Callable[[], Any]], float] = seconds_of
) -> dict[str, np.ndarray]:
    """Seconds that each run takes in each round, float64 [rounds].

    Every run is called once beforehand, to compile and to fill caches. Then they take turns, in each round in another
    order, so that load from elsewhere, and what one run leaves behind for the next, meets all of them alike.

    Args:
      runs: name -> what to time; what it returns is waited for.
      seconds: no round begins after that long, once there are MIN_ROUNDS.
      clock: what runs it and says how long it took.
    """
    for run in runs.values():
        jax.block_until_ready(run())
    times = {name: [] for name in runs}
    shuffle = random.Random(0)
    rounds, end = 0, time.perf_counter() + seconds
    while rounds < MIN_ROUNDS or time.perf_counter() < end:
        for name in shuffle.sample(list(runs), len(runs)):
            times[name].append(clock(runs[name]))
        rounds += 1
    return {name: np.array(values) for name, values in times.items()}


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints the one table of a benchmark, its first column left-aligned, and the machine that it is of."""
    print(f"\n{title}\n")
    print_rows(header, rows)
    print(f"\n{machine()}")


def print_rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints columns, the first one left-aligned."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for first, *others in (header, ["-" * width for width in widths], *rows):
        numbers = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *numbers]).rstrip())


def machine() -> str:
    """What the figures depend on, in one line."""
    devices = jax.devices()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{cores} cores ({platform.machine()}), Python {platform.python_version()}, jax {jax.__version__}, "
        f"backend {jax.default_backend()}, {len(devices)} x {devices[0].device_kind}"
    )
