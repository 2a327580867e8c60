"""Methods side by side: which differences between them the data support, in words and as a table."""

from umemma_jax.reporting.parts import Part
from umemma_jax.reporting.results import (
    ABSENT,
    MINUS,
    between,
    complete,
    lost_points,
    method_label,
    percent,
    points,
    rest,
    short_label,
    short_metric_label,
)


def supported_differences(comparison: dict) -> Part:
    """Sentences on the last method, complete and with one modality lost; a table of every two methods.

    Args:
        comparison: from `results.compare`, with `paired`.
    """
    paired, examples = comparison["paired"], comparison["examples"]
    last, told = list(comparison["methods"])[-1], _told(comparison)
    sentences = [
        _sentence(comparison, one)
        for one in paired["differences"]
        if one["pattern"] in told and last in one["methods"] and one["difference"] is not None
    ]
    rows = [
        [
            _capital(_place(comparison, one["pattern"])),
            f" {MINUS} ".join(map(method_label, one["methods"])),
            points(one["difference"], examples),
            between(one["interval"], examples, points),
            ABSENT if one["difference"] is None else ("yes" if one["supported"] else "no"),
        ]
        for one in paired["differences"]
    ]
    header = ["pattern", "methods", f"{short_metric_label(paired['metric'])}, points", "interval", "supported"]
    return Part("Which differences the data support", [*sentences, *_basis(comparison)], header, rows)


def _told(comparison: dict) -> list[str]:
    return [complete(comparison), *(rest(comparison, modality) for modality in comparison["modalities"])]


def _sentence(comparison: dict, one: dict) -> str:
    """Which method is better by how much, or that it cannot be told."""
    examples, (low, high) = comparison["examples"], one["interval"]
    first, second = map(method_label, one["methods"])
    place = _capital(_place(comparison, one["pattern"]))
    if not one["supported"]:
        found = f"{points(one['difference'], examples)} points ({between((low, high), examples, points)})"
        among = f" among {_compared(comparison)} comparisons" if low > 0 or high < 0 else ""
        return f"{place}, {first} and {second} cannot be told apart{among}: {found}."
    if one["difference"] < 0:
        first, second, low, high = second, first, -high, -low
    size = percent(abs(one["difference"]), examples)
    return f"{place}, {first} is better than {second} by {size} points ({between((low, high), examples, lost_points)})."


def _basis(comparison: dict) -> list[str]:
    """What the intervals are over, and what is made of there being many."""
    paired, level = comparison["paired"], f"{100 * comparison['paired']['level']:.4g} %"
    seeds = len(next(iter(comparison["methods"].values()))["seeds"])
    metric = short_metric_label(paired["metric"])
    if seeds == 1:
        over = "over the examples alone: with one training seed they say nothing of how another would turn out"
    else:
        over = f"over the examples and the {seeds} training seeds{', so few that they are wide' if seeds < 4 else ''}"
    rate = f"{100 * paired['false_discovery_rate']:.4g} %"
    return [
        f"Differences are of {metric}, paired by example and seed; intervals of {level} are {over}.",
        f"Of {_compared(comparison)} comparisons, those are called supported of which at most {rate} are expected to "
        "be chance (Benjamini-Hochberg); the intervals are not widened for there being many.",
    ]


def _compared(comparison: dict) -> int:
    return sum(one["difference"] is not None for one in comparison["paired"]["differences"])


def _place(comparison: dict, pattern: str) -> str:
    return "complete" if pattern == complete(comparison) else short_label(pattern, comparison["modalities"])


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
