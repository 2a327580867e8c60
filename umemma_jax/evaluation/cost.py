"""What a prediction under each missing pattern costs: the encoders of what is absent do not run."""

import functools
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from umemma_jax.devices.sharding import by_rows, put_batch
from umemma_jax.model import LateFusion, Tower
from umemma_jax.patterns import pattern_names

PyTree = Any

ROUNDS = 3  # of which the median is taken


def pattern_costs(
    model: LateFusion, mesh: Mesh, variables: PyTree, means: PyTree, batch: Mapping[str, Any]
) -> dict[str, dict[str, float]]:
    """FLOPs of an example, and milliseconds of a batch, under each pattern: its encoders one by one, and the head.

    FLOPs are XLA's count before optimisation; it takes layers that a loop repeats (`scan`) for one. Of several
    processes, all call it, and each measures its own time.

    Args:
      model: the module.
      mesh: of the devices.
      variables: of the model, on the mesh.
      means: as in `LateFusion.__call__`.
      batch: of the pipeline, this process's rows.

    Returns:
      `flops`, `milliseconds` and `batch_size` by pattern name.
    """
    rows, on_devices = by_rows(mesh), put_batch(batch, mesh)
    batch_size, flops, seconds, features = len(on_devices["weight"]), {}, {}, {}
    for index, tower in enumerate(model.towers):
        encode = jax.jit(_encoder(model, tower), out_shardings=rows)
        inputs = variables, on_devices["inputs"][tower.name], on_devices["present"][:, index : index + 1]
        flops[tower.name], seconds[tower.name], features[tower.name] = _measured(encode, *inputs)
    stand_ins = jax.jit(functools.partial(model.apply, method="stand_ins"))(variables, features, means)
    fuse = jax.jit(functools.partial(model.apply, method="fuse"))
    head_flops, head_seconds, _ = _measured(fuse, variables, features, stand_ins, on_devices["present"])
    costs = {}
    for name in pattern_names(list(flops)):
        kept = name.split("+")
        costs[name] = {
            "flops": (sum(flops[m] for m in kept) + head_flops) / batch_size,
            "milliseconds": 1e3 * (sum(seconds[m] for m in kept) + head_seconds),
            "batch_size": batch_size,
        }
    return costs


def _encoder(model: LateFusion, tower: Tower) -> Callable[..., jax.Array]:
    """The features of one modality alone, [B, D]."""
    alone = model.clone(towers=(tower,))

    def encode(variables: PyTree, inputs: PyTree, present: jax.Array) -> jax.Array:
        features, _ = alone.apply(variables, {tower.name: inputs}, present, method="encode")
        return features[tower.name]

    return encode


def _measured(function: Any, *args: PyTree) -> tuple[float, float, jax.Array]:
    """FLOPs of a jitted function, the seconds that it takes once it is compiled, and what it returns."""
    lowered = function.lower(*args)
    compiled, times = lowered.compile(), []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        result = jax.block_until_ready(compiled(*args))
        times.append(time.perf_counter() - start)
    return (lowered.cost_analysis() or {}).get("flops", float("nan")), statistics.median(times), result
