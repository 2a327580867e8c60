"""How long one row takes in Python, from the dict to the answer, beside the bare compiled model.

python -m benchmarks.one_row --model=runs/quickstart [--table=DATA.csv] [--rounds=300]

Under each missing pattern, warm, on the first row of the table that has everything, or without a table, for models of
images and sound, on noise; rounds of both alternate.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

import umemma_jax as um
from umemma_jax import saved_model
from umemma_jax.by_pattern import ByPattern
from umemma_jax.data.kinds import Modality
from umemma_jax.data_prep.build.dataframes import table_of
from umemma_jax.data_prep.raw.reading import RowReader
from umemma_jax.patterns import all_patterns, pattern_name
from umemma_jax.saved_model import SavedModel


def main() -> None:
    """Prints a line for each pattern."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="workdir of a run, or a saved model")
    parser.add_argument("--table", help="with the columns that the model was trained on")
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()
    model = um.load(options.model)
    saved = saved_model.read(model.folder)
    run = ByPattern(saved.module, saved.variables, saved.inputs, saved.info, saved.means)
    reader = RowReader(saved.info, saved.modalities)
    row = _complete_row(options.table, reader) if options.table else _noise(saved)
    for pattern in all_patterns(len(saved.modalities)):
        kept = [m for m, there in zip(saved.modalities, pattern, strict=True) if there]
        given = {column: row[column] for m in kept for column in reader.columns[m]}
        bare, answer = _paired(
            _bare(run, tuple(pattern.tolist()), kept), functools.partial(model.predict, given), options
        )
        name = pattern_name(pattern, saved.modalities)
        print(f"{name}: model {1e3 * bare:.3f} ms, answer {1e3 * answer:.3f} ms, {answer / bare:.2f}x", flush=True)


def _complete_row(table: str, reader: RowReader) -> dict[str, Any]:
    wanted = {column for of_modality in reader.columns.values() for column in of_modality}
    return next(row.values for row in table_of(table).rows if wanted <= row.values.keys())


def _noise(saved: SavedModel) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {m: _random(saved.info.modalities[m], rng) for m in saved.modalities}


def _random(modality: Modality, rng: np.random.Generator) -> Any:
    """An image or sound, as a user would give it."""
    if modality.kind == "image":
        return rng.integers(0, 256, modality.shape or (256, 256, 3), np.uint8)
    samples = rng.normal(0, 0.1, modality.max_samples)
    return {"array": samples, "sampling_rate": modality.sample_rate}


def _bare(run: ByPattern, pattern: tuple[bool, ...], kept: Sequence[str]) -> Callable[[], Any]:
    """The compiled model on a row that lies on the device."""
    raw = jax.device_put({m: run.decode(m, [None]) for m in kept})
    compiled = jax.jit(run.traces, static_argnums=0)
    return lambda: jax.block_until_ready(compiled(pattern, run.variables, run.stand_ins, raw))


def _paired(first: Callable[[], Any], second: Callable[[], Any], options: argparse.Namespace) -> tuple[float, float]:
    """Median seconds of both, warm."""
    times = ([], [])
    for call in (first, second, first, second):
        call()
    for _ in range(options.rounds):
        for call, seconds in zip((first, second), times, strict=True):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


if __name__ == "__main__":
    main()
