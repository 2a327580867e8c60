"""Exact evaluation under every missing pattern and missing rate from ONE pass of the encoders.

Late fusion makes every missing pattern a function of the per-modality features. So each encoder runs once over the
split, the features stay on the device, the head predicts each of the 2^M - 1 patterns once, and every cell of the
missing-rate grid only chooses, per example, among those predictions.
"""

import itertools
import time
from collections.abc import Iterable, Sequence
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
from umemma_jax.results import definitions
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
      label: int32 [N]; multi-label: float32 [N, K].
      weight: float32 [N].
    """

    features: dict[str, jax.Array]
    logits: dict[str, jax.Array]
    available: jax.Array
    label: jax.Array
    weight: jax.Array


class Evaluator:
    """The compiled functions that evaluate one model; several sets of variables share them.

    Predictions are classes, int32 [P, N], of P patterns or uni-modal models; of multi-label data they are logits,
    float32 [P, N, K]. Where `thresholds`, float [P], are given (multi-label), F1 is taken at probability 0.5 and, under
    names that begin with `metrics.TUNED`, at each pattern's own threshold too.
    """

    def __init__(self, model: LateFusion, mesh: Mesh, means: PyTree) -> None:
        self.model = model
        self.mesh = mesh
        self.modalities = tuple(tower.name for tower in model.towers)
        self.patterns = missing.all_patterns(len(self.modalities))
        same, rows = replicated(mesh), by_rows(mesh)
        self.encode_traces = Counted(self._encode_batch)
        self._encode = jax.jit(self.encode_traces, in_shardings=(same, rows), out_shardings=rows)
        self._concatenate = jax.jit(lambda parts: jax.tree.map(lambda *x: jnp.concatenate(x), *parts))
        self._predict_patterns = jax.jit(lambda variables, encoded: self._fuse(variables, encoded, means))
        self._predict_unimodal = jax.jit(self._unimodal)
        self._count_cells = jax.jit(self._count)
        self._count_thresholds = jax.jit(self._count_at_thresholds)
        self._precision = jax.jit(_mean_average_precisions)

    def encode(self, variables: PyTree, batches: Iterable[PyTree]) -> Encoded:
        """One encoder pass over a split, from the pipeline's padded batches."""
        parts = [self._encode(variables, put_batch(batch, self.mesh)) for batch in batches]
        return self._concatenate(parts)

    def unimodal(self, encoded: Encoded, thresholds: np.ndarray | None = None) -> dict[str, Scores]:
        """Each modality's own head, over the examples that have the modality: `{"image": {"accuracy": ...}, ...}`."""
        counted = np.asarray(encoded.available).T
        numbers = np.repeat(np.arange(len(self.modalities), dtype=np.uint16)[:, None], counted.shape[1], axis=1)
        scores = self._each(self._predict_unimodal(encoded), encoded, numbers, counted, thresholds)
        return dict(zip(self.modalities, scores, strict=True))

    def predict_patterns(self, variables: PyTree, encoded: Encoded) -> jax.Array:
        """Predictions under each of the P patterns."""
        return self._predict_patterns(variables, encoded)

    def tune_unimodal(self, encoded: Encoded) -> np.ndarray:
        """The threshold of each modality's own head with the highest macro-F1, float [M]."""
        return self._tune(self._predict_unimodal(encoded), encoded, np.asarray(encoded.available).T)

    def tune_patterns(self, variables: PyTree, encoded: Encoded) -> np.ndarray:
        """The threshold of each pattern with the highest macro-F1 on the examples that have all of it, float [P]."""
        has_all = ~(self.patterns[:, None, :] & ~np.asarray(encoded.available)[None]).any(axis=-1)
        return self._tune(self.predict_patterns(variables, encoded), encoded, has_all)

    def cells(
        self, predictions: jax.Array, encoded: Encoded, kept: np.ndarray, thresholds: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Metrics of C presence tables, each a float array [C].

        Args:
          predictions: from `predict_patterns`.
          encoded: the same split.
          kept: bool [C, N, M]; in table c, an example that keeps nothing does not count.
          thresholds: of the patterns.
        """
        return self._scores(predictions, encoded, self._pattern_numbers(kept), missing.keeps_any(kept), thresholds)

    def every_pattern(
        self, predictions: jax.Array, encoded: Encoded, thresholds: np.ndarray | None = None
    ) -> dict[str, Scores]:
        """Every subset of modalities: `{"image+audio": {"accuracy": ..., "macro_f1": ..., "examples": ...}, ...}`.

        An example counts with what it has of the pattern, and not at all where it has nothing of it.
        """
        available = np.asarray(encoded.available)
        kept = available[None] & self.patterns[:, None, :]
        counted = missing.keeps_any(kept)
        scores = self._each(predictions, encoded, self._pattern_numbers(kept), counted, thresholds)
        examples = (counted * np.asarray(encoded.weight)).sum(axis=-1)
        return {
            missing.pattern_name(pattern, self.modalities): {**scores[p], "examples": int(examples[p])}
            for p, pattern in enumerate(self.patterns)
        }

    def grid(
        self,
        predictions: jax.Array,
        encoded: Encoded,
        rates: Sequence[float],
        seeds: int,
        thresholds: np.ndarray | None = None,
    ) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
        """The missing-rate grid: each modality lost alone, and mixed, at every rate.

        Args:
          predictions: from `predict_patterns`.
          encoded: the same split.
          rates: shares of the examples that are incomplete.
          seeds: tables per cell, seeded 0, 1, ...
          thresholds: of the patterns.

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
        scores = self.cells(predictions, encoded, kept, thresholds)
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

    def _scores(
        self,
        predictions: jax.Array,
        encoded: Encoded,
        numbers: np.ndarray,
        counted: np.ndarray,
        thresholds: np.ndarray | None,
    ) -> dict[str, np.ndarray]:
        """Metrics, each float [C], where table c takes predictions[numbers[c, n], n] of every row n that counts."""
        cuts = {"": np.zeros(len(predictions), np.float32)}
        if thresholds is not None:
            cuts[metrics.TUNED] = metrics.logit(thresholds)
        found = {}
        for prefix, cut in cuts.items():
            sums = jax.device_get(self._count_cells(predictions, encoded, numbers, counted, cut))
            found |= {prefix + name: values for name, values in metrics.scores(sums).items()}
        return found

    def _each(
        self,
        predictions: jax.Array,
        encoded: Encoded,
        numbers: np.ndarray,
        counted: np.ndarray,
        thresholds: np.ndarray | None,
    ) -> list[Scores]:
        """All metrics of each of the P predictions, over the rows bool [P, N] that count."""
        scores = self._scores(predictions, encoded, numbers, counted, thresholds)
        if encoded.label.ndim == 2:
            scores["mAP"] = jax.device_get(self._precision(predictions, encoded, counted))
        return [{name: float(values[p]) for name, values in scores.items()} for p in range(len(predictions))]

    def _tune(self, predictions: jax.Array, encoded: Encoded, counted: np.ndarray) -> np.ndarray:
        sums = jax.device_get(self._count_thresholds(predictions, encoded, counted))
        # Where no row counts all are NaN, and the first threshold is taken: 0.5.
        return metrics.THRESHOLDS[metrics.scores(sums)["macro_f1"].argmax(axis=-1)]

    # What runs on the device.

    def _encode_batch(self, variables: PyTree, batch: PyTree) -> Encoded:
        features, logits = self.model.apply(variables, batch["inputs"], batch["present"], method="encode")
        return Encoded(features, logits, batch["present"], batch["label"], batch["weight"])

    def _fuse(self, variables: PyTree, encoded: Encoded, means: PyTree) -> jax.Array:
        stand_ins = self.model.apply(variables, encoded.features, means, method="stand_ins")

        def predict(pattern: jax.Array) -> jax.Array:
            present = encoded.available & pattern[None, :]
            _, logits = self.model.apply(variables, encoded.features, stand_ins, present, method="fuse")
            return _prediction(logits, encoded.label)

        return jax.lax.map(predict, jnp.asarray(self.patterns))

    def _unimodal(self, encoded: Encoded) -> jax.Array:
        return jnp.stack([_prediction(encoded.logits[m], encoded.label) for m in self.modalities])

    def _count(
        self, predictions: jax.Array, encoded: Encoded, numbers: jax.Array, counted: jax.Array, cuts: jax.Array
    ) -> metrics.Sums:
        """Sums of each of C tables; cuts float [P] are the logits above which multi-label predictions are positive."""
        decided = predictions if encoded.label.ndim == 1 else predictions > cuts[:, None, None]

        def one_table(table: tuple[jax.Array, jax.Array]) -> metrics.Sums:
            number, counts = table
            row = jnp.expand_dims(number.astype(jnp.int32), (0, *range(2, decided.ndim)))
            predicted = jnp.take_along_axis(decided, row, axis=0)[0]
            return metrics.class_sums(predicted, encoded.label, encoded.weight * counts, self.model.num_classes)

        return jax.lax.map(one_table, (numbers, counted))

    def _count_at_thresholds(self, predictions: jax.Array, encoded: Encoded, counted: jax.Array) -> metrics.Sums:
        """Sums of each of P multi-label predictions at each of T thresholds."""

        def one_prediction(prediction: tuple[jax.Array, jax.Array]) -> metrics.Sums:
            logits, counts = prediction
            weight = encoded.weight * counts

            def at(cut: jax.Array) -> metrics.Sums:
                return metrics.class_sums(logits > cut, encoded.label, weight, self.model.num_classes)

            return jax.lax.map(at, jnp.asarray(metrics.logit(metrics.THRESHOLDS)))

        return jax.lax.map(one_prediction, (predictions, counted))

    def _pattern_numbers(self, kept: np.ndarray) -> np.ndarray:
        """Row of `patterns` that each presence mask [..., M] is, uint16 [...]; 0 where nothing is present."""
        bits = 1 << np.arange(len(self.modalities))
        by_code = np.zeros(2 ** len(self.modalities), np.uint16)
        by_code[self.patterns @ bits] = np.arange(len(self.patterns))
        return by_code[kept @ bits]


def _prediction(logits: jax.Array, label: jax.Array) -> jax.Array:
    """What is kept of the logits [N, K]: the class, or all of them where the data are multi-label."""
    return jnp.argmax(logits, axis=-1) if label.ndim == 1 else logits.astype(jnp.float32)


def _mean_average_precisions(predictions: jax.Array, encoded: Encoded, counted: jax.Array) -> jax.Array:
    """Of each of P multi-label predictions over the rows bool [P, N] that count, float32 [P]."""

    def one(prediction: tuple[jax.Array, jax.Array]) -> jax.Array:
        logits, counts = prediction
        return metrics.mean_average_precision(logits, encoded.label, encoded.weight * counts)

    return jax.lax.map(one, (predictions, counted))


# The report's results.


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
    tunes = info.multi_label and len(experiment.validation[1]) > 0
    ceilings, ceiling_thresholds, thresholds = {}, None, None
    if unimodal is not None:
        if tunes:
            validation = evaluator.encode(unimodal, experiment.batches(*experiment.validation))
            ceiling_thresholds = evaluator.tune_unimodal(validation)
        ceilings = evaluator.unimodal(evaluator.encode(unimodal, experiment.batches(split)), ceiling_thresholds)
    if tunes:
        validation = evaluator.encode(fusion, experiment.batches(*experiment.validation))
        thresholds = evaluator.tune_patterns(fusion, validation)

    rates, eta = tuple(config.evaluation.rates), config.missing.eta
    if eta.rate and eta.rate not in rates:
        rates = (*rates, eta.rate)

    def encoder_pass() -> Encoded:
        return jax.block_until_ready(evaluator.encode(fusion, experiment.batches(split)))

    def every_cell() -> tuple:
        predictions = evaluator.predict_patterns(fusion, encoded)
        patterns = evaluator.every_pattern(predictions, encoded, thresholds)
        return patterns, *evaluator.grid(predictions, encoded, rates, config.evaluation.seeds, thresholds)

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
        "metric": metrics.primary(info.multi_label),
        "method": method_name(config),
        "seed": config.seed,
        "stand_in": config.missing.stand_in,
        **({"eta": _eta(experiment)} if eta.rate else {}),
        "modalities": list(experiment.modalities),
        "patterns": patterns,
        "ceilings": ceilings,
        **_thresholds(evaluator, thresholds, ceiling_thresholds),
        "missing_rates": cells,
        "naturally_missing": {m: examples - present[m] for m in experiment.modalities},
        "definitions": definitions(info.multi_label, tunes),
        "versions": {"umemma_jax": __version__, "jax": jax.__version__, "flax": flax.__version__},
        "timing": {
            "first_pass_and_grid_seconds": start - compile_start,  # with compilation
            "encoder_pass_seconds": encoded_at - start,
            "grid_seconds": end - encoded_at,
            "examples_per_second": examples / (encoded_at - start),
            "compilations": {"encode": evaluator.encode_traces.traces},
        },
    }, tables


def _eta(experiment: Experiment) -> dict[str, Any]:
    """What the training and validation examples have lost for good, with the digests of the tables."""
    tables = {split: missing.table_hash(kept) for split, kept in experiment.dataset.kept.items()}
    return {**experiment.config.missing.eta.to_dict(), "table_sha256": tables}


def _thresholds(evaluator: Evaluator, patterns: np.ndarray | None, ceilings: np.ndarray | None) -> dict[str, Any]:
    """The tuned thresholds by name; nothing where none were tuned."""
    if patterns is None:
        return {}
    names = [missing.pattern_name(pattern, evaluator.modalities) for pattern in evaluator.patterns]
    found = {"patterns": dict(zip(names, patterns.tolist(), strict=True)), "ceilings": {}}
    if ceilings is not None:
        found["ceilings"] = dict(zip(evaluator.modalities, ceilings.tolist(), strict=True))
    return {"thresholds": found}
