"""Whether any method is better than the references: in words, and as tables."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from umemma_jax.reporting.parts import Part
from umemma_jax.reporting.results import ABSENT, MINUS, between, method_label, percent, points

TITLES = {
    "complete": "complete",
    "mean_over_patterns": "mean over patterns",
    "worst_pattern": "worst pattern",
    "area": "area under the rate curve",
    "nll": "NLL",
    "ece": "ECE",
}
NATS = ("nll",)  # the others are fractions, told in percent
JUDGED = ("complete", "mean_over_patterns", "worst_pattern", "area")  # what a method is said to be better by


def verdict_parts(comparison: dict) -> list[Part]:
    """The verdict, and the comparisons that it rests on; nothing where the comparison has none.

    Args:
        comparison: from `results.compare`, with `paired`.
    """
    if "verdict" not in comparison["paired"]:
        return []
    verdict, examples = comparison["paired"]["verdict"], comparison["examples"]
    measures = defined(verdict["measures"])
    sentences = [*words(measures, verdict["references"], examples), basis(verdict)]
    return [
        Part("The verdict", sentences, *standings(measures, examples)),
        Part("Each method against the references", [], *comparisons(measures, examples)),
        patterns(verdict["patterns"], examples),
    ]


def defined(measures: Mapping[str, dict]) -> dict[str, dict]:
    """Those measures that some run has a number of."""
    return {
        name: found
        for name, found in measures.items()
        if any(value is not None for values in found["methods"].values() for value in values)
    }


def words(measures: Mapping[str, dict], references: Sequence[str], examples: int) -> list[str]:
    """For each reference which methods are better by which measures, or that none is by more than the error."""
    found = []
    for reference in references:
        better = [
            f"{method_label(one['method'])} ({TITLES[name]} {change(name, one, examples)})"
            for name in JUDGED
            if name in measures
            for one in measures[name]["comparisons"]
            if (one["reference"], one["finding"]) == (reference, "better")
        ]
        if better:
            found.append(f"Better than {method_label(reference)} by more than the error: {', '.join(better)}.")
        else:
            found.append(f"No method beats {method_label(reference)} by more than the error, by any measure.")
    return found


def basis(verdict: Mapping[str, Any]) -> str:
    """How the findings are corrected."""
    return (
        f"Better or worse is what has a p-value by Holm of at most {verdict['error_rate']:g}: corrected within each "
        "measure for all methods and references, and under the patterns for all of these too. The intervals are not "
        "widened. NLL and ECE are means over patterns before any temperature, their intervals over the seeds alone."
    )


def standings(measures: Mapping[str, dict], examples: int) -> tuple[list[str], list[list[str]]]:
    """Header and rows: every method by each measure, mean ± sample standard deviation over the seeds."""
    methods = dict.fromkeys(name for found in measures.values() for name in found["methods"])
    header = ["method", *(f"{TITLES[name]}{'' if name in NATS else ', %'}" for name in measures)]
    rows = [
        [
            method_label(method),
            *(_spread(name, found["methods"].get(method, []), examples) for name, found in measures.items()),
        ]
        for method in methods
    ]
    return header, rows


def comparisons(measures: Mapping[str, dict], examples: int) -> tuple[list[str], list[list[str]]]:
    """Header and rows: every comparison by every measure; percentages are differences in points."""
    rows = [
        [TITLES[name], *_pair(one), change(name, one, examples), _p(one["holm"]), one["finding"]]
        for name, found in measures.items()
        for one in found["comparisons"]
    ]
    return ["measure", "method", "against", "difference", "Holm's p", "finding"], rows


def patterns(compared: Sequence[dict], examples: int) -> Part:
    """What is found under single patterns; of a comparison's often thousands only those that come to a finding."""
    found = [one for one in compared if one["finding"] != "undecided"]
    rows = [
        [one["pattern"], *_pair(one), change("complete", one, examples), _p(one["holm"]), one["finding"]]
        for one in found
    ]
    sentence = f"Of {len(compared)} comparisons under single patterns {len(found)} come to a finding."
    header = ["pattern", "method", "against", "difference, points", "Holm's p", "finding"]
    return Part("Each method against the references, pattern by pattern", [sentence], header if rows else [], rows)


def change(measure: str, one: Mapping[str, Any], examples: int) -> str:
    """A difference with its interval: "+0.5 (+0.2 to +0.8)"; in points where it is of fractions."""
    form = _nats_signed if measure in NATS else points
    return f"{form(one['difference'], examples)} ({between(one['interval'], examples, form)})"


def _spread(measure: str, values: Sequence[float | None], examples: int) -> str:
    if not values or None in values:
        return ABSENT
    form: Callable = _nats if measure in NATS else percent
    spread = f" ± {form(float(np.std(values, ddof=1)), examples)}" if len(values) > 1 else ""
    return f"{form(float(np.mean(values)), examples)}{spread}"


def _nats(value: float, examples: int) -> str:
    return f"{value:.3f}"


def _nats_signed(value: float | None, examples: int) -> str:
    return ABSENT if value is None else f"{value:+.3f}".replace("-", MINUS)


def _pair(one: Mapping[str, Any]) -> list[str]:
    return [method_label(one["method"]), method_label(one["reference"])]


def _p(value: float | None) -> str:
    if value is None:
        return ABSENT
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"
