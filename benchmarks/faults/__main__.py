"""Damages what is written and what is given, and counts what comes of it.

python -m benchmarks.faults [TRIAL ...] [--share=0.1] [--seed=0]

Each trial is a file of this folder with `COUNT`, how many inputs it damages, and `run(rng, count, folder)`, which
yields an outcome for each: (kind, outcome, what was said). Nothing may be silent, and nothing may end in a traceback;
the first examples of either are printed.
"""

import collections
import importlib
import pkgutil
import tempfile
import time
from pathlib import Path

import numpy as np

import benchmarks.faults
from benchmarks.faults.trial import REFUSED, SAME, SILENT, TRACEBACK
from umemma_jax import command

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
    arguments = parser.parse_args()
    for name in arguments.trials:
        if name not in names:
            parser.error(f"trial '{name}': unknown, there are {', '.join(names)}")
    columns = (SAME, REFUSED, SILENT, TRACEBACK)
    print("| trial | inputs | " + " | ".join(columns) + " | s |\n|:---|---:" + "|---:" * (len(columns) + 1) + "|")
    wrong = []
    for name in arguments.trials or names:
        trial = importlib.import_module(f"benchmarks.faults.{name}")
        start, counts = time.perf_counter(), collections.defaultdict(collections.Counter)
        with tempfile.TemporaryDirectory() as folder:
            count = max(1, round(trial.COUNT * arguments.share))
            for kind, outcome, said in trial.run(np.random.default_rng(arguments.seed), count, Path(folder)):
                counts[kind][outcome] += 1
                if outcome in (SILENT, TRACEBACK):
                    wrong.append((f"{name}, {kind}", outcome, said))
        seconds = time.perf_counter() - start
        for kind, found in counts.items():
            cells = [f"{name}, {kind}", found.total(), *(found[column] for column in columns), f"{seconds:.0f}"]
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    for outcome in (SILENT, TRACEBACK):
        for where, _, said in [item for item in wrong if item[1] == outcome][:EXAMPLES]:
            print(f"\n{outcome}: {where}\n{said}")
    return 1 if wrong else 0


if __name__ == "__main__":
    command.run(main)
