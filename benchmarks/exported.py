"""How long an exported model takes for an answer, beside the model it is of and its bare compiled step.

python -m benchmarks.exported --model=runs/quickstart --data=runs/data/quickstart [--rows=1] [--seconds=3] [--onnx]

Medians under each missing pattern, warm, in turns: `step` has its input on the device and waits for the logits alone;
`exported` goes from arrays to calibrated probabilities; `model` from stored values, which it decodes, to the same.
With --onnx, `onnx` is ONNX Runtime on the same arrays.
"""

import functools
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import timing, workload
from umemma_jax import command, export, onnx_export, predict, predictor, program, saved_model, serving
from umemma_jax.by_pattern import ByPattern
from umemma_jax.data import example
from umemma_jax.data.dataset import open_dataset
from umemma_jax.data.kinds import Stored, stores_list
from umemma_jax.patterns import all_patterns, pattern_name
from umemma_jax.saved_model import SavedModel
from umemma_jax.serving.exported import ExportedModel
from umemma_jax.serving.inputs import VALUES

Rows = Sequence[Mapping[str, Stored]]


def main() -> None:
    """Prints the table, and what the file costs."""
    parser = command.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="workdir of a run, or a saved model")
    parser.add_argument("--data", required=True, help="prepared dataset, whose test split gives the rows")
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each pattern")
    parser.add_argument("--onnx", action="store_true", help="ONNX Runtime too; needs the extra onnx")
    options = parser.parse_args()
    model = saved_model.read(predictor.load(options.model).folder)
    run = ByPattern(model.module, model.variables, model.inputs, model.info, model.means)
    with tempfile.TemporaryDirectory(prefix="umemma_jax_benchmark_") as folder:
        path = Path(folder) / "model.stablehlo"
        writing, _ = _timed(lambda: export.export(model, path))
        loading, loaded = _timed(lambda: serving.load(path))
        size = path.stat().st_size
        onnx = _session(model, Path(folder) / "model.onnx") if options.onnx else None
    rows = _rows(model, options.data, options.rows)
    first, _ = _timed(lambda: loaded.predict(_arrays(run, rows)))
    table = []
    for pattern in all_patterns(len(run.modalities)):
        kept = [m for m, there in zip(run.modalities, pattern, strict=True) if there]
        given = [{m: row[m] for m in kept} for row in rows]
        runs = _runs(model, run, loaded, tuple(pattern.tolist()), given)
        if onnx:
            runs["onnx"] = _onnx_run(onnx, run, pattern, given)
        times = {name: np.median(x) for name, x in timing.interleaved(runs, options.seconds).items()}
        cells = [f"{1e3 * seconds:.3f}" for seconds in times.values()]
        ratios = [f"{times['exported'] / times[name]:.2f}" for name in times if name != "exported"]
        table.append([pattern_name(pattern, run.modalities), *cells, *ratios])
    header = ["pattern", *times, *(f"exported / {name}" for name in times if name != "exported")]
    timing.print_table(f"Milliseconds for {options.rows} rows, medians", header, table)
    print(
        f"file {size / 1e6:.2f} MB, written in {writing:.2f} s, loaded in {loading:.2f} s, first answer {first:.2f} s"
    )


def _timed(action: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that it takes, and what it returns."""
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def _rows(model: SavedModel, data: str, count: int) -> Rows:
    """Stored values of the first rows of the test split that have everything."""
    modalities = model.info.modalities
    read = {m: example.bytes_values if stores_list(modalities[m]) else example.bytes_value for m in model.modalities}
    source = open_dataset(data).source(model.config.data.test_split)
    found = ({m: read[m](row, m) for m in read} for row in source.examples(range(len(source))))
    return [row for row in found if None not in row.values()][:count]


def _arrays(run: ByPattern, rows: Rows) -> dict[str, Any]:
    return {m: run.decode(m, [row[m] for row in rows]) for m in rows[0]}


def _runs(
    model: SavedModel, run: ByPattern, loaded: ExportedModel, pattern: tuple[bool, ...], rows: Rows
) -> dict[str, Callable[[], Any]]:
    arrays = _arrays(run, rows)
    on_device, step = jax.device_put(arrays), jax.jit(run.traces, static_argnums=0)

    def answer() -> Any:
        said = run(rows)
        ids = [""] * len(rows)
        return predict.from_logits(ids, run.modalities, said.present, said.logits, model.info, model.calibration).ids

    return {
        "step": lambda: step(pattern, run.variables, run.stand_ins, on_device).logits,
        "exported": functools.partial(loaded.predict, arrays),
        "model": answer,
    }


def _session(model: SavedModel, path: Path) -> Any:
    onnx_export.export(model, path)
    import onnxruntime  # of the extra

    return onnxruntime.InferenceSession(path)


def _onnx_run(session: Any, run: ByPattern, pattern: np.ndarray, rows: Rows) -> Callable[[], Any]:
    given = {"present": np.tile(pattern, (len(rows), 1))}
    for m in run.modalities:
        arrays = program.named(run.decode(m, [row.get(m) for row in rows]))
        given |= {m if name == VALUES else f"{m}.{name}": x for name, x in arrays.items()}
    return lambda: session.run(None, given)


if __name__ == "__main__":
    workload.run(main)
