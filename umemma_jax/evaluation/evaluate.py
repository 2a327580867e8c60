"""Exact evaluation under every missing pattern and missing rate from ONE pass of the encoders.

Late fusion makes every missing pattern a function of the per-modality features. So each encoder runs once over the
split, the features stay where they are made, each device with its own rows, the head predicts each of the 2^M - 1
patterns once, and every cell of the missing-rate grid only chooses, per example, among those predictions. What leaves
the devices are counts.
"""

import functools
import itertools
import operator
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from umemma_jax import __version__, missing
from umemma_jax.config import method_name
from umemma_jax.devices.sharding import Counted, Devices, by_rows, fetch, place, put_batch, replicated
from umemma_jax.evaluation import calibration, metrics, names
from umemma_jax.experiment import Experiment
from umemma_jax.model import LateFusion, encode_present

PyTree = Any
Scores = dict[str, float]

PARTS = 64  # arrays that one call concatenates: a call takes long to compile for thousands


@flax.struct.dataclass
class Encoded:
    """A split after the encoders: N rows, split over the devices, of which the padding ones have weight 0.

    With several devices they are not in the order of the split, which `index` tells: each device holds the rows that it
    has encoded.

    Attributes:
      features: {m: [N, D_m]}, zero where m is absent.
      logits: uni-modal logits {m: [N, K]}.
      available: bool [N, M], what the data has.
      label: int32 [N]; multi-label: float32 [N, K].
      weight: float32 [N].
      index: int32 [N], the number of each row's record.
    """

    features: dict[str, jax.Array]
    logits: dict[str, jax.Array]
    available: jax.Array
    label: jax.Array
    weight: jax.Array
    index: jax.Array


class Evaluator:
    """The compiled functions that evaluate one model; several sets of variables share them.

    Predictions are classes, int32 [P, N], of P patterns or uni-modal models; of multi-label data they are logits,
    float32 [P, N, K]. Where `thresholds`, float [P], are given (multi-label), F1 is taken at probability 0.5 and, under
    names that begin with `names.TUNED`, at each pattern's own threshold too.

    Of several processes, all call the same methods in the same order, and all get the same scores.
    """

    def __init__(self, model: LateFusion, mesh: Mesh, means: PyTree) -> None:
        self.model = model
        self.mesh = mesh
        self.modalities = tuple(tower.name for tower in model.towers)
        self.patterns = missing.all_patterns(len(self.modalities))
        self._singles = np.eye(len(self.modalities), dtype=bool)
        rows, columns = by_rows(mesh), NamedSharding(mesh, PartitionSpec(None, *by_rows(mesh).spec))
        self._columns = columns  # what is [P, N]
        self.encode_traces = Counted(self._encode_batch)
        self._encode = jax.jit(self.encode_traces, static_argnums=2, out_shardings=rows)
        self._concatenate = jax.jit(jax.shard_map(_concatenate, mesh=mesh, in_specs=rows.spec, out_specs=rows.spec))
        self._predict_patterns = jax.jit(functools.partial(self._fuse, means), out_shardings=columns)
        self._predict_unimodal = jax.jit(self._unimodal, out_shardings=columns)
        specs = (columns.spec, rows.spec, PartitionSpec(), PartitionSpec())  # predictions, encoded, patterns, cuts
        self._count_patterns = self._total(functools.partial(self._pattern_sums, operator.and_), *specs)
        self._count_whole_patterns = self._total(functools.partial(self._pattern_sums, _whole), *specs)
        self._count_cells = self._total(self._cell_sums, *specs, columns.spec, PartitionSpec())
        self._precisions = jax.jit(self._mean_average_precisions, out_shardings=replicated(mesh))

    def _total(self, count: Callable, *specs: PartitionSpec) -> Callable:
        """Compiles `count`, which each device calls with its own rows, to give the sums over all devices."""

        def total(*args: PyTree) -> PyTree:
            return jax.lax.psum(count(*args), self.mesh.axis_names)

        return jax.jit(jax.shard_map(total, mesh=self.mesh, in_specs=specs, out_specs=PartitionSpec()))

    def encode(self, variables: PyTree, batches: Iterable[PyTree], capacities: missing.Capacities = ()) -> Encoded:
        """One encoder pass over a split, from the pipeline's padded batches.

        With `experiment.capacities` of an incomplete split, encoders run on little more than the rows that they have.
        """
        parts = [self._encode(variables, put_batch(batch, self.mesh), capacities) for batch in batches]
        while len(parts) > 1:
            parts = [self._concatenate(parts[i : i + PARTS]) for i in range(0, len(parts), PARTS)]
        return parts[0]

    def unimodal(self, encoded: Encoded, thresholds: np.ndarray | None = None) -> dict[str, Scores]:
        """Each modality's own head, over the examples that have the modality: `{"image": {"accuracy": ...}, ...}`."""
        scores, _ = self._each(self._predict_unimodal(encoded), self._singles, encoded, thresholds)
        return dict(zip(self.modalities, scores, strict=True))

    def predict_patterns(self, variables: PyTree, encoded: Encoded) -> jax.Array:
        """Predictions under each of the P patterns."""
        return self._predict_patterns(variables, encoded)

    def tune_unimodal(self, encoded: Encoded) -> np.ndarray:
        """The threshold of each modality's own head with the highest macro-F1, float [M]."""
        return self._tune(self._predict_unimodal(encoded), self._singles, encoded)

    def tune_patterns(self, variables: PyTree, encoded: Encoded) -> np.ndarray:
        """The threshold of each pattern with the highest macro-F1 on the examples that have all of it, float [P]."""
        return self._tune(self.predict_patterns(variables, encoded), self.patterns, encoded)

    def every_pattern(
        self, predictions: jax.Array, encoded: Encoded, thresholds: np.ndarray | None = None
    ) -> dict[str, Scores]:
        """Every subset of modalities: `{"image+audio": {"accuracy": ..., "macro_f1": ..., "examples": ...}, ...}`.

        An example counts with what it has of the pattern, and not at all where it has nothing of it.
        """
        scores, examples = self._each(predictions, self.patterns, encoded, thresholds)
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
    ) -> tuple[list[dict[str, Any]], missing.GridTables]:
        """The missing-rate grid: each modality lost alone, and mixed, at every rate.

        Args:
          predictions: from `predict_patterns`.
          encoded: the same split.
          rates: shares of the examples that are incomplete.
          seeds: tables per cell, seeded 0, 1, ...
          thresholds: of the patterns.

        Returns:
          The cells of report.json's `missing_rates`, and their tables, whose examples are in the order of the split.
        """
        weight, index, available = fetch((encoded.weight, encoded.index, encoded.available))
        order = np.flatnonzero(weight)
        order = order[index[order].argsort()]
        tables = missing.GridTables(available[order], rates, seeds, self.modalities)
        rank_of_row = np.zeros((seeds, len(weight)), np.int32)
        rank_of_row[:, order] = tables.ranks
        ranks = jax.make_array_from_callback(rank_of_row.shape, self._columns, lambda part: rank_of_row[part])
        losses = np.array(list(tables.losses.values()), np.int32)
        sums = self._count_cells(predictions, encoded, self.patterns, _cuts(predictions, thresholds), ranks, losses)
        lost, digests = [], []
        for table in tables.values():  # while the devices count
            kept = [np.count_nonzero(table[..., m]) for m in range(len(self.modalities))]  # `mean` takes far longer
            lost.append([1.0 - count / (seeds * len(order)) for count in kept])
            digests.append(missing.table_hash(table))
        scores = _scores(fetch(sums))
        cells = [
            {
                "kind": kind,
                "rate": rate,
                "rates": dict(zip(self.modalities, lost[number], strict=True)),
                "seeds": seeds,
                "mean": {name: float(values[:, number].mean()) for name, values in scores.items()},
                "std": {name: float(values[:, number].std()) for name, values in scores.items()},
                "table_sha256": digests[number],
            }
            for number, (kind, rate) in enumerate(tables.cells.values())
        ]
        return cells, tables

    def _each(
        self, predictions: jax.Array, patterns: np.ndarray, encoded: Encoded, thresholds: np.ndarray | None
    ) -> tuple[list[Scores], np.ndarray]:
        """All metrics of each of the P predictions, over the rows that have any of its pattern, and how many they are.

        Patterns are bool [P, M].
        """
        sums = fetch(self._count_patterns(predictions, encoded, patterns, _cuts(predictions, thresholds)))
        scores = _scores(sums)
        if encoded.label.ndim == 2:
            scores["mAP"] = fetch(self._precisions(predictions, encoded, patterns))
        each = [{name: float(values[p]) for name, values in scores.items()} for p in range(len(patterns))]
        return each, sums["rows"][:, 0]

    def _tune(self, predictions: jax.Array, patterns: np.ndarray, encoded: Encoded) -> np.ndarray:
        """Of each of the P predictions the threshold with the highest macro-F1, over the rows that have all of it."""
        cuts = np.repeat(metrics.logit(calibration.THRESHOLDS)[:, None], len(patterns), axis=1)
        sums = fetch(self._count_whole_patterns(predictions, encoded, patterns, cuts))
        # Where no row that counts has a class all are NaN, and the first threshold is taken: 0.5.
        return calibration.THRESHOLDS[metrics.scores(sums)["macro_f1"].argmax(axis=-1)]

    # What runs on the devices. Counts are of each one's own rows.

    def _encode_batch(self, variables: PyTree, batch: PyTree, capacities: missing.Capacities) -> Encoded:
        features, logits = encode_present(self.model, variables, batch, capacities, Devices(self.mesh.size))
        return Encoded(features, logits, batch["present"], batch["label"], batch["weight"], batch["index"])

    def _fuse(self, means: PyTree, variables: PyTree, encoded: Encoded) -> jax.Array:
        stand_ins = self.model.apply(variables, encoded.features, means, method="stand_ins")

        def predict(pattern: jax.Array) -> jax.Array:
            present = encoded.available & pattern[None, :]
            _, logits = self.model.apply(variables, encoded.features, stand_ins, present, method="fuse")
            return _prediction(logits, encoded.label)

        return jax.lax.map(predict, jnp.asarray(self.patterns))

    def _unimodal(self, encoded: Encoded) -> jax.Array:
        return jnp.stack([_prediction(encoded.logits[m], encoded.label) for m in self.modalities])

    def _pattern_sums(
        self, keep: Callable, predictions: jax.Array, encoded: Encoded, patterns: jax.Array, cuts: jax.Array
    ) -> metrics.Sums:
        """Sums [P, V, ...] where rows are left with `keep` of what they have and each of the patterns."""

        def one(pattern: jax.Array) -> metrics.Sums:
            return self._sums(predictions, encoded, patterns, cuts, keep(encoded.available, pattern[None, :]))

        return jax.lax.map(one, patterns)

    def _cell_sums(
        self,
        predictions: jax.Array,
        encoded: Encoded,
        patterns: jax.Array,
        cuts: jax.Array,
        ranks: jax.Array,
        losses: jax.Array,
    ) -> metrics.Sums:
        """Sums [seeds, C, V, ...] of every cell, by its `missing.GridTables.losses` [C, 2], under ranks [seeds, N]."""

        def one(rank: jax.Array, loss: jax.Array) -> metrics.Sums:
            return self._sums(predictions, encoded, patterns, cuts, missing.keep(encoded.available, rank, *loss))

        return jax.lax.map(lambda rank: jax.lax.map(functools.partial(one, rank), losses), ranks)

    def _sums(
        self, predictions: jax.Array, encoded: Encoded, patterns: jax.Array, cuts: jax.Array, kept: jax.Array
    ) -> metrics.Sums:
        """Sums [V, ...] where each row takes the prediction of the pattern that it keeps, if it keeps anything.

        Args:
          predictions: of the patterns, [P, N] or [P, N, K].
          encoded: N rows.
          patterns: bool [P, M].
          cuts: float [V, P], from `_cuts`.
          kept: bool [N, M].
        """
        row_of_code = jnp.zeros(2 ** len(self.modalities), jnp.int32)
        row_of_code = row_of_code.at[_code(patterns)].set(jnp.arange(len(patterns)))
        number = row_of_code[_code(kept)]
        which = jnp.expand_dims(number, tuple(range(1, predictions.ndim - 1)))
        chosen = jax.lax.select_n(jnp.broadcast_to(which, predictions.shape[1:]), *predictions)
        weight = encoded.weight * kept.any(axis=-1)

        def at(cut: jax.Array) -> metrics.Sums:
            predicted = chosen if chosen.ndim == 1 else chosen > cut[number][:, None]
            return metrics.class_sums(predicted, encoded.label, weight, self.model.num_classes)

        return jax.lax.map(at, cuts)

    def _mean_average_precisions(self, predictions: jax.Array, encoded: Encoded, patterns: jax.Array) -> jax.Array:
        """Of each of P multi-label predictions over the rows that have any of its pattern, float32 [P]."""

        def one(prediction: tuple[jax.Array, jax.Array]) -> jax.Array:
            logits, pattern = prediction
            # From some rows of all classes on each device to all rows of some classes.
            logits, label = jax.lax.with_sharding_constraint((logits, encoded.label), self._columns)
            weight = encoded.weight * (encoded.available & pattern[None, :]).any(axis=-1)
            return metrics.mean_average_precision(logits, label, weight)

        return jax.lax.map(one, (predictions, patterns))


def _concatenate(parts: list[Encoded]) -> Encoded:
    return jax.tree.map(lambda *x: jnp.concatenate(x), *parts)


def _prediction(logits: jax.Array, label: jax.Array) -> jax.Array:
    """What is kept of the logits [N, K]: the class, or all of them where the data are multi-label."""
    return jnp.argmax(logits, axis=-1) if label.ndim == 1 else logits.astype(jnp.float32)


def _whole(available: jax.Array, pattern: jax.Array) -> jax.Array:
    """The pattern [1, M] where all of it is available, nothing elsewhere; bool [N, M]."""
    return pattern & (available | ~pattern).all(axis=-1, keepdims=True)


def _code(kept: jax.Array) -> jax.Array:
    """A number for each subset of modalities, bool [..., M]: modality m is bit m."""
    return sum(kept[..., m].astype(jnp.int32) << m for m in range(kept.shape[-1]))


def _cuts(predictions: jax.Array, thresholds: np.ndarray | None) -> np.ndarray:
    """Logits above which each of P predictions is positive, float32 [V, P]: at probability 0.5, and tuned."""
    half = np.full(len(predictions), 0.5)
    return metrics.logit(np.stack([half] if thresholds is None else [half, thresholds]))


def _scores(sums: metrics.Sums) -> dict[str, np.ndarray]:
    """Metrics [...] of sums [..., V, K] at the thresholds of `_cuts`."""
    found = metrics.scores(sums)
    prefixes = ("", names.TUNED)[: sums["rows"].shape[-1]]
    return {prefix + name: values[..., v] for v, prefix in enumerate(prefixes) for name, values in found.items()}


# The report's results.


def evaluate(
    experiment: Experiment, unimodal: PyTree | None, fusion: PyTree
) -> tuple[dict[str, Any], missing.GridTables]:
    """Every pattern, ceiling and cell of the missing-rate grid on the test split.

    Args:
      experiment: what was trained.
      unimodal: variables of the uni-modal models, which are the ceilings; None where there are none.
      fusion: variables of the model to evaluate.

    Returns:
      What `report.write_report` takes, with None for metrics that no example defines, and the grid's tables.
    """
    config, info = experiment.config, experiment.dataset.info
    split = config.data.test_split
    evaluator = Evaluator(experiment.model, experiment.mesh, experiment.means)
    tunes = info.multi_label and len(experiment.validation[1]) > 0
    ceilings, ceiling_thresholds, thresholds = {}, None, None

    test = split, None, experiment.capacities(split)
    validation = (*experiment.validation, experiment.capacities(*experiment.validation)) if tunes else None

    def encode(variables: PyTree, split: str, rows: np.ndarray | None, capacities: missing.Capacities) -> Encoded:
        return evaluator.encode(variables, experiment.batches(split, rows), capacities)

    if unimodal is not None:
        unimodal = place(unimodal, experiment.mesh)
        if tunes:
            ceiling_thresholds = evaluator.tune_unimodal(encode(unimodal, *validation))
        ceilings = evaluator.unimodal(encode(unimodal, *test), ceiling_thresholds)
    fusion = place(fusion, experiment.mesh)
    if tunes:
        thresholds = evaluator.tune_patterns(fusion, encode(fusion, *validation))

    rates, eta = tuple(config.evaluation.rates), config.missing.eta
    if eta.rate and eta.rate not in rates:
        rates = (*rates, eta.rate)

    def every_cell() -> tuple:
        predictions = evaluator.predict_patterns(fusion, encoded)
        patterns = evaluator.every_pattern(predictions, encoded, thresholds)
        return patterns, *evaluator.grid(predictions, encoded, rates, config.evaluation.seeds, thresholds)

    # Compiled on one batch, so that the pass is timed without it. The cells are cheap enough to be counted twice.
    first = itertools.islice(experiment.batches(split), 1)
    jax.block_until_ready(evaluator.encode(fusion, first, test[-1]))
    start = time.perf_counter()
    encoded = jax.block_until_ready(encode(fusion, *test))
    encoded_at = time.perf_counter()
    every_cell()
    compiled_at = time.perf_counter()
    patterns, cells, tables = every_cell()
    end = time.perf_counter()

    examples = info.splits[split].examples
    present = info.splits[split].present
    results = {
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
        **_not_validated(experiment, evaluator.patterns, ceilings, tunes),
        "missing_rates": cells,
        "naturally_missing": {m: examples - present[m] for m in experiment.modalities},
        "versions": {"umemma_jax": __version__, "jax": jax.__version__, "flax": flax.__version__},
        "timing": {
            "encoder_pass_seconds": encoded_at - start,
            "grid_seconds": end - compiled_at,
            "grid_with_compilation_seconds": compiled_at - encoded_at,
            "examples_per_second": examples / (encoded_at - start),
            "compilations": {"encode": evaluator.encode_traces.traces},
        },
    }
    return metrics.undefined_as_none(results), tables


def _not_validated(experiment: Experiment, patterns: np.ndarray, ceilings: dict, tunes: bool) -> dict[str, Any]:
    """By name the uni-modal models and the thresholds that no validation example chose; nothing where there is none."""
    found = {}
    if ceilings and (unjudged := experiment.unjudged_modalities()):
        found["ceilings"] = unjudged
    if tunes and not (judged := experiment.judged(patterns)).all():
        found["thresholds"] = [missing.pattern_name(pattern, experiment.modalities) for pattern in patterns[~judged]]
    return {"not_validated": found} if found else {}


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
