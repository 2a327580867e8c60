"""Time from the start of a process of main.py to its first step, without and with a filled compilation cache.

python -m benchmarks.start_up [--config=benchmarks/two_transformers.py] [--data=DIR] [--rounds=3] [--quick]

Real processes, one after the other: one that only imports what main.py does and finds its devices; one of main.py with
an empty cache; and one more, in a new workdir, with the cache that this has filled. A step is over when its line of the
log comes. Medians over the rounds.

- process and imports: until the first process ends;
- first step: from the start of main.py until the end of step 1 of stage unimodal, and the same less the row above;
- first step of stage fusion: from the last line of stage unimodal, with the checkpoint between them;
- compiling: what main.py says of the steps of either stage, tracing included.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import timing, workload
from umemma_jax import command
from umemma_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("unimodal", "fusion")
IMPORTS = (
    "import jax; from umemma_jax import compare, experiment, inputs; "
    "from umemma_jax.evaluation import evaluate; from umemma_jax.reporting import markdown; "
    "from umemma_jax.training import train; jax.devices()"
)
OVERRIDES = (
    "--config.data.prepare=False",
    "--config.data.validation_share=0.0",
    "--config.log_every=1",
    "--config.unimodal.epochs=1",
    "--config.fusion.epochs=1",
)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = parse(argv)
    rounds = 1 if arguments.quick else arguments.rounds
    if rounds < 1:
        raise UserError(f"--rounds={rounds}: give it 1 or more")
    batch_size = workload.load_config(arguments.config).data.batch_size
    imports, first, second = [], [], []
    with workload.data_folder(arguments.data, {"train": 4 * batch_size, "test": 1}) as data:
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
            imports.append(seconds_to_import())
            with tempfile.TemporaryDirectory(prefix="umemma_jax_benchmark_") as folder:
                cache = Path(folder) / "cache"
                first.append(start(arguments.config, data, Path(folder) / "first", cache))
                second.append(start(arguments.config, data, Path(folder) / "second", cache))
    timing.print_table(
        f"Starts of main.py --config={arguments.config}: medians of {rounds}",
        ("", "empty cache, s", "filled cache, s", "empty / filled"),
        rows(float(np.median(imports)), first, second),
    )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    summary, _, rest = __doc__.partition("\n\n")
    parser = command.Parser(description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--config", default="benchmarks/two_transformers.py", help="recipe[:argument], default %(default)s"
    )
    parser.add_argument("--data", help="prepared dataset; default: synthetic examples of AV-MNIST's shapes")
    parser.add_argument("--rounds", type=int, default=3, help="default %(default)s")
    parser.add_argument("--quick", action="store_true", help="one round")
    return parser.parse_args(argv)


def rows(
    imports: float, first: Sequence[dict[str, float]], second: Sequence[dict[str, float]]
) -> list[tuple[str, ...]]:
    """The table's rows, of the seconds of each process."""
    empty, filled = (
        {key: float(np.median([s[key] for s in starts])) for key in starts[0]} for starts in (first, second)
    )
    pairs = {
        "process and imports": (imports, imports),
        "first step": (empty["unimodal"], filled["unimodal"]),
        "first step, less process and imports": (empty["unimodal"] - imports, filled["unimodal"] - imports),
        "first step of stage fusion": (empty["fusion"], filled["fusion"]),
        **{f"compiling stage {s}": (empty[f"compiling {s}"], filled[f"compiling {s}"]) for s in STAGES},
    }
    return [(name, f"{a:.2f}", f"{b:.2f}", f"{a / b:.1f}") for name, (a, b) in pairs.items()]


def seconds_to_import() -> float:
    """Seconds of a process that imports what main.py does, and no more."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", IMPORTS], cwd=ROOT, check=True)
    return time.perf_counter() - begin


def start(recipe: str, data: str, workdir: Path, cache: Path) -> dict[str, float]:
    """Seconds until the first step of each stage, fusion's from the end of unimodal's, and those of compiling."""
    command = [sys.executable, "main.py", f"--config={recipe}", f"--config.data.dir={data}", f"--workdir={workdir}"]
    environment = {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    found, begin = {}, time.perf_counter()
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [*command, *OVERRIDES], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        for line in process.stdout:
            now = time.perf_counter()
            if line.startswith("unimodal "):
                if "loss" in line:
                    found.setdefault("unimodal", now - begin)
                end_of_unimodal = now
            elif line.startswith("fusion 1/") and "loss" in line:
                found["fusion"] = now - end_of_unimodal
                process.terminate()  # it saves its state and ends
                break
        process.stdout.read()
        process.wait()
        if "fusion" not in found:
            errors.seek(0)
            reason = " ".join(errors.read().split()[-60:])
            raise UserError(f"{' '.join(command)} ended before its first step of stage fusion: {reason}")
    return found | seconds_compiling(workdir)


def seconds_compiling(workdir: Path) -> dict[str, float]:
    """What a run's record says of the step of each stage."""
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    compiled = [record for record in records if record.get("event") == "compiled"]
    return {f"compiling {record['stage']}": record["seconds"] for record in compiled}


if __name__ == "__main__":
    workload.run(main)
