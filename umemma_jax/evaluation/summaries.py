"""What the patterns and missing rates come to together: the worst, the means, and what each modality is worth."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from umemma_jax.evaluation import contributions, information, metrics
from umemma_jax.evaluation.ceilings import Ceiling
from umemma_jax.evaluation.headline import Headline
from umemma_jax.evaluation.judgement import Judgement
from umemma_jax.evaluation.split_logits import SplitLogits
from umemma_jax.patterns import all_patterns, pattern_name, pattern_shares

Cells = Sequence[Mapping[str, Any]]


def worst_classes(model: Judgement, names: Sequence[str], classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Of each pattern the class with the lowest recall, multi-label F1, among those that any example has."""
    rows = zip(names, model.decided, model.counted, strict=True)
    return {name: _worst_class(decided[rows], model.label[rows], classes) for name, decided, rows in rows}


def _worst_class(decided: np.ndarray, label: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    hits, predicted, actual = metrics.class_counts(decided, label, len(classes))
    there = np.flatnonzero(actual)
    if not len(there):
        return {"class": None, "value": None, "examples": 0}
    value = metrics.f1_scores(hits, predicted, actual) if label.ndim == 2 else hits / np.maximum(actual, 1)
    worst = there[value[there].argmin()]
    return {"class": classes[worst], "value": float(value[worst]), "examples": int(actual[worst])}


def robustness(
    model: Judgement,
    test: SplitLogits,
    headline: Headline,
    cells: Cells,
    deployment: Mapping[str, float],
    ceilings: Sequence[Ceiling],
    harm: Mapping[str, Any],
) -> dict[str, Any]:
    """The key `robustness` of report.json.

    Args:
      model: judged under each of P patterns.
      test: the same examples.
      headline: of them.
      cells: of the missing-rate grid.
      deployment: weights by pattern name; {}: all the same.
      ceilings: of each pattern; none where there are no uni-modal models.
      harm: where more modalities do harm.
    """
    values = dict(zip(test.names, (scores[model.headline] for scores in model.scores), strict=True))
    defined = {name: value for name, value in values.items() if not np.isnan(value)}
    worst = min(defined, key=defined.get, default=None)
    shares = pattern_shares(deployment, test.modalities, "deployment")
    weights = {pattern_name(pattern, test.modalities): share for pattern, share in shares}
    return {
        "worst_pattern": {"pattern": worst, "value": defined.get(worst)},
        "uniform_mean": _mean(values.values()),
        "deployment": {"weights": weights, "mean": sum(weight * values[name] for name, weight in weights.items())},
        "lost": _lost(model, test.names, headline),
        "area": _areas(cells, model.headline, values[test.names[0]]),
        "ceilings": {name: _beside(ceiling) for name, ceiling in zip(test.names, ceilings, strict=bool(ceilings))},
        "share_of_ceiling": {
            name: _ratio(ceiling.pattern_value, ceiling.value)
            for name, ceiling in zip(test.names, ceilings, strict=bool(ceilings))
        },
        **harm,
    }


def _lost(model: Judgement, names: Sequence[str], headline: Headline) -> dict[str, float]:
    """Of each pattern but the complete one what complete has more, over the examples that the pattern counts."""
    rows = zip(names[1:], model.decided[1:], model.counted[1:], strict=True)
    return {
        name: headline.value(model.decided[0], counted) - headline.value(decided, counted)
        for name, decided, counted in rows
    }


def _areas(cells: Cells, metric: str, complete: float) -> dict[str, float]:
    """Of each kind the mean height of the curve over its missing rates, by trapezoids, over the complete value."""
    found = {}
    for kind in dict.fromkeys(cell["kind"] for cell in cells):
        curve = sorted((cell["rate"], cell["mean"][metric]) for cell in cells if cell["kind"] == kind)
        rates, values = np.array(curve).T
        span = rates[-1] - rates[0]
        height = np.trapezoid(values, rates) / span if span else values[0]
        found[kind] = _ratio(float(height), complete)
    return found


def _beside(ceiling: Ceiling) -> dict[str, Any]:
    examples = int(ceiling.rows.sum())
    return {"model": ceiling.model, "value": ceiling.value, "pattern": ceiling.pattern_value, "examples": examples}


def counter_intuitive(model: Judgement, test: SplitLogits) -> dict[str, Any]:
    """Over the examples that have all of the patterns compared; multi-label, over their decisions for each class."""
    patterns = all_patterns(len(test.modalities))
    has_all = test.left == np.arange(len(patterns))[:, None]
    right = model.decided == test.label
    if test.multi_label:
        has_all = np.repeat(has_all, len(test.classes), axis=1)
    rate, pairs = contributions.counter_intuitive(right.reshape(len(patterns), -1), patterns, has_all)
    names = {f"{test.names[fewer]} < {test.names[more]}": share for (fewer, more), share in pairs.items()}
    return {"rate": rate, "pairs": names}


def shapley(model: Judgement, test: SplitLogits, headline: Headline, without: np.ndarray) -> dict[str, Any]:
    """The key `shapley` of report.json, over the examples that have every modality.

    `without` is what is decided without any modality, of the form of the labels.
    """
    rows = model.counted[0] & (test.left[0] == 0)
    empty = headline.value(without, rows)
    values = {frozenset(): empty}
    for name, decided in zip(test.names, model.decided, strict=True):
        values[frozenset(name.split("+"))] = headline.value(decided, rows)
    shares = contributions.shapley(values, test.modalities)
    return {"metric": model.headline, "empty": empty, "values": shares, "examples": int(rows.sum())}


def knowledge(
    model: Judgement, test: SplitLogits, without: np.ndarray, bounds: Callable[..., dict[str, Any]]
) -> dict[str, Any]:
    """The key `information` of report.json, in nats, over the examples that have every modality.

    Args:
      model: judged under each of P patterns.
      test: the same examples.
      without: NLL without any modality, float [N].
      bounds: what follows from the entropies, and from the complementary information, by name.
    """
    rows = test.left[0] == 0
    entropy = {"": _mean(without[rows])}
    entropy |= {name: _mean(nll[rows]) for name, nll in zip(test.names, model.nll, strict=True)}
    by_set = {frozenset(filter(None, name.split("+"))): value for name, value in entropy.items()}
    complementary = information.complementary(by_set, test.modalities)
    return {
        "entropy": entropy,
        "complementary": complementary,
        "redundancy": information.redundancy(by_set, test.modalities),
        "complementary_share": information.complementary_share(by_set, test.modalities),
        **bounds(entropy, complementary),
        "examples": int(rows.sum()),
    }


def _mean(values: Any) -> float:
    """NaN of nothing, and where any value is."""
    values = np.fromiter(values, float)
    return float(values.mean()) if len(values) else np.nan


def _ratio(value: float, whole: float) -> float:
    """NaN where there is nothing to have a share of, as of an R2 below 0."""
    return value / whole if whole > 0 else np.nan
