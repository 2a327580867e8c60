"""Makes the tables and environments, runs every piece of software on every table, and prints what came out."""

import argparse
import json
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from sklearn.metrics import accuracy_score, f1_score

from benchmarks.peers.protocol import write_table
from benchmarks.peers.tables import TABLES
from umemma_jax import command

ROOT = Path(__file__).parents[2]


class Software(NamedTuple):
    """A piece of software.

    Attributes:
      label: what people call it.
      install: what pip is told.
      module: that takes part, see `protocol.take_part`.
      environment: name of the one it runs in.
      takes_text: whether it is given the pre-trained BERT.
    """

    label: str
    install: tuple[str, ...]
    module: str
    environment: str
    takes_text: bool


OURS = ("-e", str(ROOT), "pandas")
SOFTWARE = {
    "ours": Software("umemma_jax, pre-trained text", OURS, "benchmarks.peers.ours", "ours", True),
    "scratch": Software("umemma_jax, from scratch", OURS, "benchmarks.peers.ours", "ours", False),
    "automm": Software("AutoMM 1.6.3", ("autogluon.multimodal==1.6.3",), "benchmarks.peers.automm", "automm", True),
    "ludwig": Software("Ludwig 0.11.0", ("ludwig==0.11.0",), "benchmarks.peers.ludwig_peer", "ludwig", False),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line. What is finished under --work is not run again."""
    parser = command.Parser("python -m benchmarks.peers")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR")
    parser.add_argument("--tables", default=",".join(TABLES), metavar="NAME,...")
    parser.add_argument("--software", default=",".join(SOFTWARE), metavar="NAME,...")
    parser.add_argument("--seconds", type=float, default=300.0, help="that training may take (default: 300)")
    parser.add_argument("--text", type=Path, metavar="FOLDER", help="of a pre-trained BERT")
    arguments = parser.parse_args(argv)
    work = arguments.work.resolve()
    for table in arguments.tables.split(","):
        write_table(TABLES[table](arguments.data), work / "tables" / table)
        found = {}
        for name in arguments.software.split(","):
            out = work / "runs" / table / name
            if not (out / "times.json").exists():
                _run(SOFTWARE[name], _environment(SOFTWARE[name], work), work / "tables" / table, out, arguments)
            found[name] = (*_read(out), _size(work / "environments" / SOFTWARE[name].environment))
        print(_page(table, found), flush=True)


def _environment(software: Software, work: Path) -> Path:
    """The Python of the software's own environment."""
    folder = work / "environments" / software.environment
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *software.install], check=True)
    return python


def _run(software: Software, python: Path, table: Path, out: Path, arguments: argparse.Namespace) -> None:
    given = [f"--table={table}", f"--out={out}", f"--seconds={arguments.seconds}"]
    given += [f"--text={arguments.text.resolve()}"] if arguments.text and software.takes_text else []
    out.mkdir(parents=True, exist_ok=True)
    print(f"{software.label}: {table.name}, see {out / 'log.txt'}", file=sys.stderr, flush=True)
    with open(out / "log.txt", "w", encoding="utf-8") as log:
        run = subprocess.run(
            [python, "-m", software.module, *given], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, check=False
        )
    if run.returncode:
        print(f"{software.label}: {table.name} ended with {run.returncode}", file=sys.stderr, flush=True)


def _read(out: Path) -> tuple[pd.DataFrame | None, dict[str, float]]:
    """Predictions and times; None where the software has failed."""
    if not (out / "times.json").exists():
        return None, {}
    return pd.read_csv(out / "predictions.csv", dtype=str), json.loads((out / "times.json").read_text(encoding="utf-8"))


def _size(environment: Path) -> float:
    """Of all that is installed, in megabytes."""
    return sum(path.stat().st_size for path in environment.rglob("*") if path.is_file() and not path.is_symlink()) / 1e6


def _page(table: str, found: dict[str, tuple[pd.DataFrame | None, dict[str, float], float]]) -> str:
    patterns = next((list(p.columns.drop("label")) for p, _, _ in found.values() if p is not None), [])
    heads = [table, *patterns, "fit, s", "one row, ms", "installed, MB"]
    rows = [heads, ["---"] * len(heads)]
    for name, (predictions, times, size) in found.items():
        if predictions is None:
            scores = ["failed"] * (len(patterns) + 2)
        else:
            scores = [_score(predictions["label"], predictions[pattern]) for pattern in patterns]
            scores += [f"{times['fit_seconds']:.0f}", f"{times['row_milliseconds']:.1f}"]
        rows.append([SOFTWARE[name].label, *scores, f"{size:.0f}"])
    title = "Accuracy / macro-F1 on the test rows, %."
    return "\n".join([title, "", *("| " + " | ".join(row) + " |" for row in rows), ""])


def _score(label: pd.Series, predicted: pd.Series) -> str:
    predicted = predicted.fillna("")
    accuracy, f1 = accuracy_score(label, predicted), f1_score(label, predicted, average="macro")
    return f"{100 * accuracy:.1f} / {100 * f1:.1f}"


if __name__ == "__main__":
    command.run(main)
