"""Damages what is written and what is given, and counts what comes of it.

python -m benchmarks.faults [TRIAL ...] [--share=0.1] [--seed=0] [--kinds]

Each trial is a file of this folder with `COUNT`, how many inputs it damages, and `run(rng, count, folder)`, which
yields an outcome for each: (kind, outcome, what was said). Nothing may be silent, and nothing may end in a traceback;
the first examples of either are printed.
"""

import collections
import contextlib
import importlib
import pkgutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import benchmarks.faults
from benchmarks import timing
from benchmarks.faults.trial import REFUSED, SAME, SILENT, TRACEBACK
from umemma_jax import command

COLUMNS = (SAME, REFUSED, SILENT, TRACEBACK)
EXAMPLES = 5  # of each wrong outcome, printed


def main() -> int:
    """Runs the named trials, all by default; 1 where an outcome is wrong."""
    parser = command.Parser(prog="python -m benchmarks.faults", description=__doc__.splitlines()[0])
    names = sorted(
        m.name for m in pkgutil.iter_modules(benchmarks.faults.__path__) if m.name not in ("trial", "__main__")
    )
    parser.add_argument("trials", nargs="*", metavar="TRIAL", help=", ".join(names))
    parser.add_argument("--share", type=float, default=1.0, help="of each trial's inputs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", action="store_true", help="a row for every kind of damage")
    arguments = parser.parse_args()
    for name in arguments.trials:
        if name not in names:
            parser.error(f"trial '{name}': unknown, there are {', '.join(names)}")
    table, wrong = [], []
    for name in arguments.trials or names:
        start, outcomes = time.perf_counter(), _outcomes(name, arguments.share, arguments.seed)
        seconds = time.perf_counter() - start
        groups = collections.defaultdict(collections.Counter)
        for kind, outcome, _ in outcomes:
            groups[f"{name}, {kind}" if arguments.kinds else name][outcome] += 1
        table += [_row(group, counts, seconds) for group, counts in groups.items()]
        wrong += [(f"{name}, {kind}", *rest) for kind, *rest in outcomes if rest[0] in (SILENT, TRACEBACK)]
    timing.print_table("What comes of damage", ("", "inputs", *COLUMNS, "s"), table)
    for outcome in (SILENT, TRACEBACK):
        for where, _, said in [item for item in wrong if item[1] == outcome][:EXAMPLES]:
            print(f"\n{outcome}: {where}\n{said}")
    return 1 if wrong else 0


def _outcomes(name: str, share: float, seed: int) -> list[tuple[str, str, str]]:
    """(kind, outcome, what was said) of each input of a trial."""
    trial = importlib.import_module(f"benchmarks.faults.{name}")
    count = max(1, round(trial.COUNT * share))
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):  # where runs show progress
        return list(trial.run(np.random.default_rng(seed), count, Path(folder)))


def _row(name: str, counts: collections.Counter, seconds: float) -> tuple[str, ...]:
    return name, *(f"{n:,}" for n in (counts.total(), *(counts[column] for column in COLUMNS))), f"{seconds:.0f}"


if __name__ == "__main__":
    command.run(main)
