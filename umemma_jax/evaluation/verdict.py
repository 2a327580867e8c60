"""Whether a method is better than the references of a comparison, by each measure, for all that is compared at once.

A measure sums up one run in one number. Differences, their intervals and p-values are those of `paired`: over examples
and training seeds. Holm's procedure (1979, "A simple sequentially rejective multiple test procedure") then corrects
the p-values of one measure for all methods and references together: the chance that it calls any method better or worse
that is neither is at most `ERROR_RATE`. The patterns are one such family too, of methods times references times
patterns. Left open by the field, chosen here.

NLL and ECE come from the reports, which say them of each pattern but not of each example: their intervals are over the
seeds alone, by the paired t-test, and there are none with one seed.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from umemma_jax.evaluation import paired
from umemma_jax.evaluation.bootstrap import Resamples
from umemma_jax.evaluation.decisions import Decisions
from umemma_jax.evaluation.headline import headline_of
from umemma_jax.evaluation.metrics import undefined_as_none
from umemma_jax.evaluation.paired import Measured
from umemma_jax.missing_rates import MIXED, missing_table
from umemma_jax.patterns import pattern_numbers

MEASURES = ("complete", "mean_over_patterns", "worst_pattern", "area")  # of the headline metric
CALIBRATION = ("nll", "ece")  # mean over patterns, before any temperature
LOWER_IS_BETTER = frozenset(CALIBRATION)
ERROR_RATE = 0.05


def holm(p_values: np.ndarray) -> np.ndarray:
    """p-values corrected for there being many: at most ERROR_RATE where the family-wise error rate is.

    Args:
      p_values: [N]; NaN where there is no comparison, which counts for nothing.

    Returns:
      float64 [N].
    """
    adjusted = np.full(len(p_values), np.nan)
    order = np.argsort(p_values, kind="stable")  # NaN comes last
    count = np.count_nonzero(~np.isnan(p_values))
    factors = np.arange(count, 0, -1)
    adjusted[order[:count]] = np.minimum(np.maximum.accumulate(factors * p_values[order[:count]]), 1.0)
    return adjusted


def summed_up(
    decisions: Decisions, run: Measured, resamples: Resamples, rates: Sequence[float], seeds: int
) -> Measured:
    """One run by MEASURES, float64 [4] and [4, R].

    The worst pattern is each resample's own. The area is that of report.json, under the curve over mixed missing
    rates, over the complete value.

    Args:
      decisions: of the run, complete first.
      run: the same decisions under every pattern.
      resamples: those that `run` is measured on.
      rates: of the missing-rate grid.
      seeds: tables of each of its cells.
    """
    area = _area(decisions, run, resamples, sorted(rates), seeds)
    values = [run.values[0], run.values.mean(), np.fmin.reduce(run.values), area.values]
    on_resamples = [run.resampled[0], run.resampled.mean(axis=0), np.fmin.reduce(run.resampled), area.resampled]
    return Measured(np.array(values), np.array(on_resamples))


def _area(decisions: Decisions, run: Measured, resamples: Resamples, rates: Sequence[float], seeds: int) -> Measured:
    """Of a scalar: `values` is a float, `resampled` is [R]."""
    modalities = decisions.patterns[0].split("+")
    available = np.stack([decisions.counted[decisions.patterns.index(name)] for name in modalities], axis=-1)
    headline = headline_of(decisions.label, decisions.num_classes, resamples)
    rows = np.arange(len(available))

    def choices(rate: float) -> list[np.ndarray]:
        tables = (missing_table(available, MIXED, rate, seed, modalities) for seed in range(seeds))
        return [pattern_numbers(table) for table in tables]

    def value(rate: float) -> float:
        return np.mean([headline.value(decisions.decided[c, rows], c >= 0) for c in choices(rate)])

    chosen = (decisions.decided[np.array(choices(rate)), rows] for rate in rates)
    curve = np.array([value(rate) for rate in rates])
    on_resamples = headline.resampled_means(chosen, decisions.counted[0])
    return Measured(_height(curve, rates) / run.values[0], _height(on_resamples, rates) / run.resampled[0])


def _height(curve: np.ndarray, rates: Sequence[float]) -> np.ndarray:
    """Mean height of a curve [rates, ...] by trapezoids."""
    span = rates[-1] - rates[0]
    return np.trapezoid(curve, rates, axis=0) / span if span else curve[0]


def of_seeds(values: Mapping[str, Sequence[float]]) -> list[Measured]:
    """One per seed, of measures that are known by their values alone: the error over the examples is left out.

    Args:
      values: of each measure, one per seed.
    """
    by_seed = np.array(list(values.values()), float).T
    on_resamples = np.nan if len(by_seed) == 1 else 0.0  # the same on each, but of one seed nothing is known
    return [Measured(row, row[:, None] + np.full((1, 2), on_resamples)) for row in by_seed]


def verdict(
    runs: Mapping[str, Sequence[Measured]],
    summed: Mapping[str, Sequence[Measured]],
    results: Sequence[Mapping[str, Any]],
    references: Sequence[str],
    largest: float = 1.0,
) -> dict[str, Any]:
    """The key `verdict` of comparison.json.

    Args:
      runs: of each method under every pattern, one per seed, the same seeds in the same order.
      summed: the same runs by MEASURES.
      results: their reports, in the same order.
      references: methods that the others are compared with.
      largest: what values under a pattern can differ by.
    """
    measures = by_measure(summed, MEASURES, references) | by_measure(_calibrated(results), CALIBRATION, references)
    patterns = of_patterns(runs, list(results[0]["patterns"]), references, largest)
    return {"references": list(references), "error_rate": ERROR_RATE, "measures": measures, "patterns": patterns}


def _calibrated(results: Sequence[Mapping[str, Any]]) -> dict[str, list[Measured]]:
    """Of each method one per seed: means over patterns of CALIBRATION, NaN where a report does not say them."""
    by_method: dict[str, dict[str, list[float]]] = {}
    for result in results:
        found = by_method.setdefault(result["method"], {name: [] for name in CALIBRATION})
        scores = [one["before"] for one in result.get("calibration", {}).get("patterns", {}).values()]
        for name in CALIBRATION:
            values = np.array([one.get(name) for one in scores], float)  # None becomes NaN
            found[name].append(float(values.mean()) if len(values) else math.nan)
    return {method: of_seeds(found) for method, found in by_method.items()}


def by_measure(
    runs: Mapping[str, Sequence[Measured]], measures: Sequence[str], references: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Every method by each measure, and against each reference.

    Args:
      runs: of each method, one per seed, the same seeds in the same order.
      measures: names of what `Measured` holds.
      references: methods that the others are compared with, and with each other the earlier one last.

    Returns:
      {measure: {"methods": {method: value of each seed}, "comparisons": [{"method", "reference", "difference",
      "interval", "p_value", "holm", "finding": "better", "worse" or "undecided"}]}}. Numbers are None where no
      example defines them.
    """
    pairs = pairs_with(references, list(runs))
    found = {pair: paired.of_patterns(*(runs[name] for name in pair), np.inf) for pair in pairs}
    return undefined_as_none(
        {
            measure: {
                "methods": {name: [float(run.values[m]) for run in runs[name]] for name in runs},
                "comparisons": corrected([(*pair, found[pair][m]) for pair in pairs], measure in LOWER_IS_BETTER),
            }
            for m, measure in enumerate(measures)
        }
    )


def of_patterns(
    runs: Mapping[str, Sequence[Measured]], patterns: Sequence[str], references: Sequence[str], largest: float = 1.0
) -> list[dict[str, Any]]:
    """The same comparisons under each of P patterns, corrected for all of them at once; each names its `pattern`."""
    pairs = pairs_with(references, list(runs))
    found = {pair: paired.of_patterns(*(runs[name] for name in pair), largest) for pair in pairs}
    each = [(p, pair) for p in range(len(patterns)) for pair in pairs]
    told = corrected([(*pair, found[pair][p]) for p, pair in each], lower_is_better=False)
    return undefined_as_none([{"pattern": patterns[p], **one} for (p, _), one in zip(each, told, strict=True)])


def pairs_with(references: Sequence[str], methods: Sequence[str]) -> list[tuple[str, str]]:
    """Each method with each reference but itself; two references are compared once, the later with the earlier."""
    earlier = {name: references[: references.index(name)] if name in references else references for name in methods}
    return [(name, reference) for name in methods for reference in earlier[name]]


def corrected(compared: Sequence[tuple[str, str, dict[str, Any]]], lower_is_better: bool) -> list[dict[str, Any]]:
    """What is found of one family of comparisons: (method, reference, what `paired` says of their difference)."""
    adjusted = holm(np.array([one["p_value"] for *_, one in compared]))
    return [
        {
            "method": method,
            "reference": reference,
            **one,
            "holm": float(p),
            "finding": _finding(one, p, lower_is_better),
        }
        for (method, reference, one), p in zip(compared, adjusted, strict=True)
    ]


def _finding(one: dict[str, Any], p: float, lower_is_better: bool) -> str:
    if not p <= ERROR_RATE:
        return "undecided"
    return "better" if (one["difference"] > 0) != lower_is_better else "worse"
