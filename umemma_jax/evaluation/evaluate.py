"""A whole evaluation from ONE pass of the encoders: on the devices up to the logits, on the host from there.

Late fusion makes every missing pattern a function of the per-modality features. So each encoder runs once over the
split, the features stay where they are made, each device with its own rows, and the head predicts each of the 2^M - 1
patterns there once. What leaves the devices are logits; all that is counted is counted by `robustness.report`, which
serves the logits of any other model as well.
"""

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from umemma_jax import __version__, protocol
from umemma_jax.config import method_name
from umemma_jax.data.targets import Target
from umemma_jax.devices.sharding import Counted, Devices, by_rows, fetch, place, put_batch, replicated
from umemma_jax.evaluation import metrics, robustness, target_judgement
from umemma_jax.evaluation.cost import pattern_costs
from umemma_jax.evaluation.split_logits import SplitLogits
from umemma_jax.experiment import Experiment
from umemma_jax.missing import Capacities
from umemma_jax.missing_rates import table_hash
from umemma_jax.model import LateFusion, encode_present
from umemma_jax.patterns import all_patterns, pattern_names

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
      label: int32 [N]; multi-label: float32 [N, K]; of targets float32 [N, T].
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

    Of several processes, all call the same methods in the same order, and all get the same.
    """

    def __init__(self, model: LateFusion, mesh: Mesh, means: PyTree, targets: tuple[Target, ...] = ()) -> None:
        """Takes what `Experiment` has of them, and the targets of the dataset, if it has such."""
        self.model = model
        self._targets = targets
        self.mesh = mesh
        self.modalities = tuple(tower.name for tower in model.towers)
        self._means = means
        rows = by_rows(mesh)
        self.encode_traces = Counted(self._encode_batch)
        self._encode = jax.jit(self.encode_traces, static_argnums=2, out_shardings=rows)
        self._concatenate = jax.jit(jax.shard_map(_concatenate, mesh=mesh, in_specs=rows.spec, out_specs=rows.spec))
        self._make_stand_ins = jax.jit(self._stand_ins, out_shardings=replicated(mesh))
        self._predict = jax.jit(self._fuse, out_shardings=rows)

    def encode(self, variables: PyTree, batches: Iterable[PyTree], capacities: Capacities = ()) -> Encoded:
        """One encoder pass over a split, from the pipeline's padded batches.

        With `experiment.capacities` of an incomplete split, encoders run on little more than the rows that they have.
        """
        parts = [self._encode(variables, put_batch(batch, self.mesh), capacities) for batch in batches]
        while len(parts) > 1:
            parts = [self._concatenate(parts[i : i + PARTS]) for i in range(0, len(parts), PARTS)]
        return parts[0]

    def lower(self, variables: PyTree, batch: PyTree, capacities: Capacities = ()) -> jax.stages.Lowered:
        """What is to be compiled for the encoder pass over batches like this one, of arrays or shapes."""
        return self._encode.lower(variables, batch, capacities)

    def predict_patterns(self, variables: PyTree, encoded: Encoded) -> "PatternLogits":
        """Logits under each of the P patterns."""
        stand_ins = self._make_stand_ins(variables, encoded.features)

        def predict(pattern: np.ndarray) -> np.ndarray:
            return _in_order(self._predict(variables, encoded.features, stand_ins, encoded.available, pattern), encoded)

        return PatternLogits(self.modalities, predict)

    def split_logits(
        self,
        encoded: Encoded,
        predictions: Mapping[str, np.ndarray],
        unimodal: Encoded | None,
        classes: Sequence[str],
    ) -> SplitLogits:
        """What the model says of a split, for `robustness.report`.

        Args:
          encoded: the split.
          predictions: from `predict_patterns`.
          unimodal: the same split, encoded with the variables of the uni-modal models, if there are any.
          classes: names.
        """
        label, available = _in_order((encoded.label, encoded.available), encoded)
        logits = {} if unimodal is None else _in_order(unimodal.logits, unimodal)
        label = label > 0 if label.ndim == 2 and not self._targets else label
        return SplitLogits(self.modalities, tuple(classes), label, available, predictions, logits, self._targets)

    def unimodal(self, encoded: Encoded) -> dict[str, Scores]:
        """Each modality's own head, over the examples that have the modality: `{"image": {"accuracy": ...}, ...}`."""
        label, available, logits = _in_order((encoded.label, encoded.available, encoded.logits), encoded)
        of_logits = metrics.of_logits
        if self._targets:
            of_logits = functools.partial(target_judgement.scores_of_evidence, targets=self._targets)
        return {m: of_logits(logits[m][has], label[has]) for m, has in zip(self.modalities, available.T, strict=True)}

    # What runs on the devices.

    def _encode_batch(self, variables: PyTree, batch: PyTree, capacities: Capacities) -> Encoded:
        features, logits = encode_present(self.model, variables, batch, capacities, Devices(self.mesh.size))
        return Encoded(features, logits, batch["present"], batch["label"], batch["weight"], batch["index"])

    def _stand_ins(self, variables: PyTree, features: PyTree) -> PyTree:
        return self.model.apply(variables, features, self._means, method="stand_ins")

    def _fuse(
        self, variables: PyTree, features: PyTree, stand_ins: PyTree, available: jax.Array, pattern: jax.Array
    ) -> jax.Array:
        _, logits = self.model.apply(variables, features, stand_ins, available & pattern[None, :], method="fuse")
        return logits.astype(jnp.float32)


def on_host(encoded: Encoded, unimodal: Encoded | None) -> dict[str, np.ndarray]:
    """The N encoded examples as arrays by name, from which `from_host` makes them again.

    Args:
      encoded: a split.
      unimodal: the same, encoded with the variables of the uni-modal models, whose logits are kept; None without such.
    """
    label, available, features = _in_order((encoded.label, encoded.available, encoded.features), encoded)
    logits = {} if unimodal is None else _in_order(unimodal.logits, unimodal)
    return as_arrays(label, available, {m: x.astype(np.float32) for m, x in features.items()}, logits)


def as_arrays(
    label: np.ndarray, available: np.ndarray, features: Mapping[str, np.ndarray], unimodal: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """What `from_host` takes of N examples: attributes of `Encoded`, whose logits are those of the uni-modal models."""
    named = {f"{kind}/{m}": x for kind, of in (("features", features), ("unimodal", unimodal)) for m, x in of.items()}
    return {"label": label, "available": available, **named}


def from_host(arrays: Mapping[str, np.ndarray]) -> Encoded:
    """Back from the arrays of `on_host`, to be on one device; `logits` are those of the uni-modal models, if any."""

    def of(kind: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(kind): x for name, x in arrays.items() if name.startswith(kind)}

    label, count = arrays["label"], len(arrays["label"])
    weight, index = np.ones(count, np.float32), np.arange(count, dtype=np.int32)
    return jax.device_put(Encoded(of("features/"), of("unimodal/"), arrays["available"], label, weight, index))


def _concatenate(parts: list[Encoded]) -> Encoded:
    return jax.tree.map(lambda *x: jnp.concatenate(x), *parts)


def _in_order(tree: PyTree, encoded: Encoded) -> PyTree:
    """Arrays that have a row for each of the encoded ones, on the host: those of the N examples, as in the split."""
    weight, index = fetch((encoded.weight, encoded.index))
    rows = np.flatnonzero(weight)
    order = rows[index[rows].argsort()]
    return jax.tree.map(lambda x: x[order], fetch(tree))


class PatternLogits(Mapping[str, np.ndarray]):
    """Logits under every missing pattern, float32 [N, K] by name, computed on the devices at each access.

    Of several processes, all make the same accesses, and all get the same.
    """

    def __init__(self, modalities: Sequence[str], predict: Callable[[np.ndarray], np.ndarray]) -> None:
        """Takes M names, and what gives the logits under a pattern, bool [M]."""
        self._patterns = dict(zip(pattern_names(modalities), all_patterns(len(modalities)), strict=True))
        self._predict = predict

    def __getitem__(self, name: str) -> np.ndarray:
        """Runs the head."""
        return self._predict(self._patterns[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._patterns)

    def __len__(self) -> int:
        return len(self._patterns)


# The report's results.


class Evaluated(NamedTuple):
    """A run's evaluation.

    Attributes:
      report: on the test split.
      validation: what the model makes of the validation examples, as `on_host` gives it; None without such.
    """

    report: robustness.Report
    validation: dict[str, np.ndarray] | None


def evaluate(experiment: Experiment, unimodal: PyTree | None, fusion: PyTree) -> robustness.Report:
    """The report of `evaluate_run`."""
    return evaluate_run(experiment, unimodal, fusion).report


def evaluate_run(experiment: Experiment, unimodal: PyTree | None, fusion: PyTree) -> Evaluated:
    """Every pattern, ceiling and cell of the missing-rate grid on the test split, and what they come to.

    Args:
      experiment: what was trained.
      unimodal: variables of the uni-modal models, which are the ceilings; None where there are none.
      fusion: variables of the model to evaluate.

    Returns:
      What `report.write_report` takes, with None for metrics that no example defines, the grid's tables, and the
      decisions of the model.
    """
    evaluator = Evaluator(experiment.model, experiment.mesh, experiment.means, experiment.task.targets)
    fusion = place(fusion, experiment.mesh)
    unimodal = None if unimodal is None else place(unimodal, experiment.mesh)

    def encode(variables: PyTree, part: _Part) -> Encoded:
        return evaluator.encode(variables, experiment.batches(part.split, part.rows), part.capacities)

    def said(encoded: Encoded, alone: Encoded | None) -> SplitLogits:
        predictions = evaluator.predict_patterns(fusion, encoded)
        return evaluator.split_logits(encoded, predictions, alone, experiment.dataset.info.classes)

    def alone(part: _Part) -> Encoded | None:
        return None if unimodal is None else encode(unimodal, part)

    # Compiled on one batch, so that the pass is timed without it.
    part, first = _part(experiment, experiment.config.data.test_split), _first_batch(experiment)
    jax.block_until_ready(evaluator.encode(fusion, [first], part.capacities))
    encoded, pass_seconds = _timed(lambda: jax.block_until_ready(encode(fusion, part)))
    test, validation, kept = said(encoded, alone(part)), None, None
    if len(experiment.validation[1]):
        part = _part(experiment, *experiment.validation)
        encoded = encode(fusion, part), alone(part)
        validation, kept = said(*encoded), on_host(*encoded)
    asked = options(experiment.config, experiment.log_prior())
    found, report_seconds = _timed(lambda: robustness.report(test, validation, asked))
    cost = pattern_costs(experiment.model, experiment.mesh, fusion, experiment.means, first)
    results = {
        **_about(experiment),
        **found.results,
        **_not_validated(experiment, found.results),
        "cost": metrics.undefined_as_none(cost),
        "versions": {"umemma_jax": __version__, "jax": jax.__version__, "flax": flax.__version__},
        "timing": {
            "encoder_pass_seconds": pass_seconds,
            "report_seconds": report_seconds,
            "examples_per_second": len(test.label) / pass_seconds,
            "compilations": {"encode": evaluator.encode_traces.traces},
        },
    }
    return Evaluated(found._replace(results=results), kept)


class _Part(NamedTuple):
    """Rows of a split, all where they are None, with the capacities that their encoders need."""

    split: str
    rows: np.ndarray | None
    capacities: Capacities


def _part(experiment: Experiment, split: str, rows: np.ndarray | None = None) -> _Part:
    return _Part(split, rows, experiment.capacities(split, rows))


def _first_batch(experiment: Experiment) -> PyTree:
    return next(experiment.batches(experiment.config.data.test_split))


def _timed(action: Callable[[], Any]) -> tuple[Any, float]:
    """What it returns, and the seconds that it takes."""
    start = time.perf_counter()
    return action(), time.perf_counter() - start


def _about(experiment: Experiment) -> dict[str, Any]:
    """Which model is evaluated on what."""
    config = experiment.config
    return {
        "dataset": experiment.dataset.info.name,
        "split": config.data.test_split,
        "method": method_name(config),
        "seed": config.seed,
        "stand_in": config.missing.stand_in,
        **({"eta": _eta(experiment)} if protocol.loses(config.missing.eta) else {}),
    }


def options(config: ConfigDict, log_prior: np.ndarray) -> robustness.Options:
    """What the report of a run is asked for, by its recipe and the prior of its training examples."""
    asked, eta = config.evaluation, config.missing.eta
    rates = tuple(asked.rates)
    return robustness.Options(
        rates=rates if not eta.rate or eta.rate in rates else (*rates, eta.rate),
        seeds=asked.seeds,
        resamples=asked.resamples,
        alpha=asked.alpha,
        deployment=asked.deployment.to_dict(),
        unequal=eta.rates.to_dict(),
        prior=log_prior,
        prior_source="training examples",
        label_free_bias=asked.label_free_bias,
    )


def _not_validated(experiment: Experiment, results: Mapping[str, Any]) -> dict[str, Any]:
    """By name the uni-modal models and the thresholds that no validation example chose; nothing where there is none."""
    found = {}
    if results["ceilings"] and (unjudged := experiment.unjudged_modalities()):
        found["ceilings"] = unjudged
    if "thresholds" in results:
        calibrated = results["calibration"]["patterns"]
        untuned = [name for name, pattern in calibrated.items() if pattern["temperature"] is None]
        found |= {"thresholds": untuned} if untuned else {}
    return {"not_validated": found} if found else {}


def _eta(experiment: Experiment) -> dict[str, Any]:
    """What the training and validation examples have lost for good, with the digests of the tables."""
    tables = {split: table_hash(kept) for split, kept in experiment.dataset.kept.items()}
    return {**protocol.stated(experiment.config.missing.eta), "table_sha256": tables}
