"""Exact evaluation under every missing pattern and missing rate from ONE pass of the encoders.

Late fusion makes every missing pattern a function of the per-modality features. So each encoder runs once over the
split, the features stay on the device, the head predicts each of the 2^M - 1 patterns once, and every cell of the
missing-rate grid only chooses, per example, among those predictions.
"""

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from umemma_jax import __version__, metrics, missing
from umemma_jax.config import method_name
from umemma_jax.experiment import Experiment
from umemma_jax.model import LateFusion
from umemma_jax.sharding import Counted, by_rows, put_batch, replicated

PyTree = Any
Scores = dict[str, float]


@flax.struct.dataclass
class Encoded:
    """A split after the encoders, N rows of which the padding ones have weight 0.

    Attributes:
      features: {m: [N, D_m]}, zero where m is absent.
      logits: uni-modal logits {m: [N, K]}.
      available: bool [N, M], what the data has.
      label: int32 [N].
      weight: float32 [N].
    """

    features: dict[str, jax.Array]
    logits: dict[str, jax.Array]
    available: jax.Array
    label: jax.Array
    weight: jax.Array


class Evaluator:
    """The compiled functions that evaluate one model; several sets of variables share them."""

    def __init__(self, model: LateFusion, mesh: Mesh, means: PyTree) -> None:
        self.model = model
        self.mesh = mesh
        self.modalities = tuple(tower.name for tower in model.towers)
        self.patterns = missing.all_patterns(len(self.modalities))
        same, rows = replicated(mesh), by_rows(mesh)
        self.encode_traces = Counted(self._encode_batch)
        self._encode = jax.jit(self.encode_traces, in_shardings=(same, rows), out_shardings=rows)
        self._concatenate = jax.jit(lambda parts: jax.tree.map(lambda *x: jnp.concatenate(x), *parts))
        self._predict = jax.jit(lambda variables, encoded: self._predict_patterns(variables, encoded, means))
        self._count_cells = jax.jit(self._count)
        self._count_unimodal = jax.jit(self._unimodal)

    def encode(self, variables: PyTree, batches: Iterable[PyTree]) -> Encoded:
        """One encoder pass over a split, from the pipeline's padded batches."""
        parts = [self._encode(variables, put_batch(batch, self.mesh)) for batch in batches]
        return self._concatenate(parts)

    def unimodal(self, encoded: Encoded) -> dict[str, Scores]:
        """Each modality's own head, over the examples that have the modality."""
        sums = jax.device_get(self._count_unimodal(encoded))
        return {m: _scores(metrics.classification(sums[m])) for m in self.modalities}

    def predict_patterns(self, variables: PyTree, encoded: Encoded) -> jax.Array:
        """Predicted class under each of the P patterns, int32 [P, N]."""
        return self._predict(variables, encoded)

    def cells(self, predictions: jax.Array, encoded: Encoded, kept: np.ndarray) -> dict[str, np.ndarray]:
        """Metrics of C presence tables, each a float array [C].

        Args:
          predictions: from `predict_patterns`.
          encoded: the same split.
          kept: bool [C, N, M]; in table c, an example that keeps nothing does not count.
        """
        sums = self._count_cells(predictions, encoded, self._pattern_numbers(kept), missing.keeps_any(kept))
        return metrics.classification(jax.device_get(sums))

    def every_pattern(self, predictions: jax.Array, encoded: Encoded) -> dict[str, Scores]:
        """Every subset of modalities: `{"image+audio": {"accuracy": ..., "macro_f1": ..., "examples": ...}, ...}`.

        An example counts with what it has of the pattern, and not at all where it has nothing of it.
        """
        available = np.asarray(encoded.available)
        kept = available[None] & self.patterns[:, None, :]
        scores = self.cells(predictions, encoded, kept)
        counted = (missing.keeps_any(kept) * np.asarray(encoded.weight)).sum(axis=-1)
        return {
            missing.pattern_name(pattern, self.modalities): {
                **{name: float(values[p]) for name, values in scores.items()},
                "examples": int(counted[p]),
            }
            for p, pattern in enumerate(self.patterns)
        }

    def grid(
        self, predictions: jax.Array, encoded: Encoded, rates: Sequence[float], seeds: int
    ) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
        """The missing-rate grid: each modality lost alone, and mixed, at every rate.

        Args:
          predictions: from `predict_patterns`.
          encoded: the same split.
          rates: shares of the examples that are incomplete.
          seeds: tables per cell, seeded 0, 1, ...

        Returns:
          The cells of report.json's `missing_rates`, and their tables bool [seeds, examples, M] by `kind@rate`.
        """
        real = np.asarray(encoded.weight) > 0
        available = np.asarray(encoded.available)[real]
        kinds_rates = list(itertools.product((*self.modalities, missing.MIXED), rates))
        tables = np.stack(
            [
                [missing.missing_table(available, kind, rate, seed, self.modalities) for seed in range(seeds)]
                for kind, rate in kinds_rates
            ]
        )
        kept = np.zeros((len(kinds_rates) * seeds, len(real), len(self.modalities)), bool)
        kept[:, real] = tables.reshape(-1, *tables.shape[2:])
        scores = self.cells(predictions, encoded, kept)
        cells = []
        for number, (kind, rate) in enumerate(kinds_rates):
            own = {name: values[number * seeds : (number + 1) * seeds] for name, values in scores.items()}
            lost = [1.0 - tables[number, ..., m].mean() for m in range(len(self.modalities))]
            cells.append(
                {
                    "kind": kind,
                    "rate": rate,
                    "rates": dict(zip(self.modalities, map(float, lost), strict=True)),
                    "seeds": seeds,
                    "mean": {name: float(values.mean()) for name, values in own.items()},
                    "std": {name: float(values.std()) for name, values in own.items()},
                    "table_sha256": missing.table_hash(tables[number]),
                }
            )
        named = {f"{kind}@{rate:g}": table for (kind, rate), table in zip(kinds_rates, tables, strict=True)}
        return cells, named

    # What runs on the device.

    def _encode_batch(self, variables: PyTree, batch: PyTree) -> Encoded:
        features, logits = self.model.apply(variables, batch["inputs"], batch["present"], method="encode")
        return Encoded(features, logits, batch["present"], batch["label"], batch["weight"])

    def _predict_patterns(self, variables: PyTree, encoded: Encoded, means: PyTree) -> jax.Array:
        stand_ins = self.model.apply(variables, encoded.features, means, method="stand_ins")

        def predict(pattern: jax.Array) -> jax.Array:
            present = encoded.available & pattern[None, :]
            _, logits = self.model.apply(variables, encoded.features, stand_ins, present, method="fuse")
            return jnp.argmax(logits, axis=-1)

        return jax.lax.map(predict, jnp.asarray(self.patterns))

    def _count(self, predictions: jax.Array, encoded: Encoded, numbers: jax.Array, counts: jax.Array) -> metrics.Sums:
        def one_table(table: tuple[jax.Array, jax.Array]) -> metrics.Sums:
            number, counted = table
            predicted = jnp.take_along_axis(predictions, number[None, :].astype(jnp.int32), axis=0)[0]
            weight = encoded.weight * counted
            return metrics.class_sums(predicted, encoded.label, weight, self.model.num_classes)

        return jax.lax.map(one_table, (numbers, counts))

    def _unimodal(self, encoded: Encoded) -> dict[str, metrics.Sums]:
        return {
            m: metrics.class_sums(
                jnp.argmax(encoded.logits[m], axis=-1),
                encoded.label,
                encoded.weight * encoded.available[:, index],
                self.model.num_classes,
            )
            for index, m in enumerate(self.modalities)
        }

    def _pattern_numbers(self, kept: np.ndarray) -> np.ndarray:
        """Row of `patterns` that each presence mask [..., M] is, uint16 [...]; 0 where nothing is present."""
        bits = 1 << np.arange(len(self.modalities))
        by_code = np.zeros(2 ** len(self.modalities), np.uint16)
        by_code[self.patterns @ bits] = np.arange(len(self.patterns))
        return by_code[kept @ bits]


def _scores(values: Mapping[str, np.ndarray]) -> Scores:
    return {name: float(value) for name, value in values.items()}


# The report's results.

DEFINITIONS = {
    "pattern": "Modalities given to the model; an example counts with what it has of them, and not at all where it "
    "has none of them.",
    "ceiling": "The uni-modal model of the first stage, evaluated on its modality alone. A pattern's ceiling is the "
    "best of those of the modalities it keeps.",
    "missing rate": "Exactly round(rate x examples) examples, drawn by a seeded table, lose the named modality; "
    "'mixed': they lose one modality each, all modalities in equal shares. No example loses the last modality it has. "
    "Mean and standard deviation are over the seeds of the tables, of one trained model.",
    "macro_f1": "Mean over all classes of the dataset; a class neither predicted nor there counts 0.",
}


def evaluate(
    experiment: Experiment, unimodal: PyTree | None, fusion: PyTree
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Every pattern, ceiling and cell of the missing-rate grid on the test split.

    Args:
      experiment: what was trained.
      unimodal: variables of the uni-modal models, which are the ceilings; None where there are none.
      fusion: variables of the model to evaluate.

    Returns:
      What `report.write_report` takes, and the grid's tables.
    """
    config, info = experiment.config, experiment.dataset.info
    split = config.data.test_split
    evaluator = Evaluator(experiment.model, experiment.mesh, experiment.means)
    ceilings = {}
    if unimodal is not None:
        ceilings = evaluator.unimodal(evaluator.encode(unimodal, experiment.batches(split)))

    def encoder_pass() -> Encoded:
        return jax.block_until_ready(evaluator.encode(fusion, experiment.batches(split)))

    def every_cell() -> tuple:
        predictions = evaluator.predict_patterns(fusion, encoded)
        patterns = evaluator.every_pattern(predictions, encoded)
        return patterns, *evaluator.grid(predictions, encoded, config.evaluation.rates, config.evaluation.seeds)

    compile_start = time.perf_counter()
    encoded = encoder_pass()
    every_cell()
    start = time.perf_counter()
    encoded = encoder_pass()
    encoded_at = time.perf_counter()
    patterns, cells, tables = every_cell()
    end = time.perf_counter()

    examples = info.splits[split].examples
    present = info.splits[split].present
    return {
        "dataset": info.name,
        "split": split,
        "examples": examples,
        "metric": "accuracy",
        "method": method_name(config),
        "seed": config.seed,
        "stand_in": config.missing.stand_in,
        "modalities": list(experiment.modalities),
        "patterns": patterns,
        "ceilings": ceilings,
        "missing_rates": cells,
        "naturally_missing": {m: examples - present[m] for m in experiment.modalities},
        "definitions": DEFINITIONS,
        "versions": {"umemma_jax": __version__, "jax": jax.__version__, "flax": flax.__version__},
        "timing": {
            "first_pass_and_grid_seconds": start - compile_start,  # with compilation
            "encoder_pass_seconds": encoded_at - start,
            "grid_seconds": end - encoded_at,
            "examples_per_second": examples / (encoded_at - start),
            "compilations": {"encode": evaluator.encode_traces.traces},
        },
    }, tables
