"""Every number behind the headlines, as tables: of each pattern, cell of the missing-rate grid and pair."""

from umemma_jax.reporting.headlines import ceiling, nats
from umemma_jax.reporting.parts import Part
from umemma_jax.reporting.results import (
    ABSENT,
    between,
    complete,
    difference,
    headline,
    headline_value,
    interval,
    kind_label,
    kinds,
    lost,
    lost_points,
    patterns_by_size,
    percent,
    points,
    rate_maps,
    short_label,
    short_metric_label,
    worst_class_measure,
)

MOST_MAPS = 3  # more pairs of modalities are in report.json and report.html alone
MOST_PAIRS = 10


def details(results: dict) -> list[Part]:
    """The parts for which the results have numbers."""
    tables = {
        "uncertainty": _intervals,
        "calibration": _calibration,
        "conformal": _conformal,
        "worst_class": _worst_classes,
        "information": _information,
        "robustness": _counter_intuitive,
        "cost": _cost,
    }
    return [table(results) for key, table in tables.items() if key in results]


def rate_details(results: dict) -> list[Part]:
    """Those on missing rates."""
    cells = results["missing_rates"]
    parts = []
    if "interval" in cells[0]:
        shown = {_place(cell): between(cell["interval"], results["examples"]) for cell in cells}
        parts.append(_grid(results, f"Intervals of {short_metric_label(headline(results))}, %", shown))
    if "complete" in cells[0]:
        shown = {_place(cell): percent(cell["complete"], results["examples"]) for cell in cells}
        parts.append(_grid(results, "Share of the examples that keep every modality, %", shown))
    if "nll" in cells[0]:
        parts.append(_grid(results, "Calibrated NLL, nats", {_place(cell): nats(cell["nll"]) for cell in cells}))
    maps = rate_maps(results)
    return parts + [_rate_map(results, one) for one in maps if len(maps) <= MOST_MAPS]


def _rows(results: dict, cells: dict[str, list[str]]) -> list[list[str]]:
    """The cells of each pattern after its name."""
    return [
        [short_label(pattern, results["modalities"]), *cells[pattern]]
        for pattern in patterns_by_size(results)
        if pattern in cells
    ]


def _intervals(results: dict) -> Part:
    examples = results["examples"]
    header = ["pattern", f"{short_metric_label(headline(results))}, %", "interval", "lost, points", "interval"]
    if results["ceilings"]:
        header += ["ceiling, %", "above it, points", "interval", "kept of it, %"]
    cells = {}
    for pattern in results["patterns"]:
        left = headline_value(results, pattern)
        cells[pattern] = [percent(left, examples), between(interval(results, "patterns", pattern), examples)]
        cells[pattern] += [
            lost_points(lost(results, pattern), examples),
            between(interval(results, "lost", pattern), examples, lost_points),
        ]
        if results["ceilings"]:
            cells[pattern] += _against_ceiling(results, pattern)
    return Part("How sure each pattern's value is", [], header, _rows(results, cells))


def _against_ceiling(results: dict, pattern: str) -> list[str]:
    """The ceiling, how far the pattern is above it, and the share of it that is kept."""
    robustness, examples = results.get("robustness", {}), results["examples"]
    if pattern == complete(results) and pattern not in robustness.get("ceilings", {}):
        return [ABSENT] * 4
    model, value = ceiling(results, pattern)
    compared = robustness.get("ceilings", {}).get(pattern, {}).get("pattern", headline_value(results, pattern))
    return [
        percent(value, examples) + (f" ({model})" if value is not None else ""),
        points(difference(compared, value), examples),
        between(interval(results, "to_ceiling", pattern), examples, points),
        percent(robustness.get("share_of_ceiling", {}).get(pattern), examples),
    ]


def _calibration(results: dict) -> Part:
    examples = results["examples"]
    forms = {
        "nll": ("NLL", nats),
        "brier": ("Brier", nats),
        "ece": ("ECE equal width, %", lambda value: percent(value, examples)),
        "ece_equal_mass": ("ECE equal mass, %", lambda value: percent(value, examples)),
    }
    header = ["pattern", "temperature"]
    for label, _ in forms.values():
        header += [label, "after"]
    cells = {}
    for pattern, entry in results["calibration"]["patterns"].items():
        after = entry["after"] or dict.fromkeys(forms)
        cells[pattern] = [_decimals(entry["temperature"], 2)]
        for name, (_, form) in forms.items():
            cells[pattern] += [form(entry["before"][name]), form(after[name])]
        cells[pattern].append(_decimals(entry["aurc"], 4))
    return Part("Calibration, before and after a temperature", [], [*header, "AURC"], _rows(results, cells))


def _conformal(results: dict) -> Part:
    cells = {
        pattern: [
            _decimals(entry["quantile"], 3),
            percent(entry["coverage"], results["examples"]),
            _decimals(entry["size"], 2),
        ]
        for pattern, entry in results["conformal"]["patterns"].items()
    }
    title = f"Conformal sets at {100 * (1 - results['conformal']['alpha']):.4g} %"
    return Part(title, [], ["pattern", "quantile", "coverage, %", "set size"], _rows(results, cells))


def _worst_classes(results: dict) -> Part:
    measure = worst_class_measure(results)
    cells = {
        pattern: [
            ABSENT if entry["class"] is None else str(entry["class"]),
            percent(entry["value"], results["examples"]),
            f"{entry['examples']:,}",
        ]
        for pattern, entry in results["worst_class"].items()
    }
    return Part("Worst class", [], ["pattern", "class", f"{measure}, %", "examples"], _rows(results, cells))


def _information(results: dict) -> Part:
    found = results["information"]
    cells = {
        pattern: [nats(found["entropy"][pattern]), percent(found["bayes_error_at_most"][pattern], results["examples"])]
        for pattern in results["patterns"]
    }
    header = ["pattern", "entropy left, nats", "Bayes error at most, %"]
    return Part("What each pattern leaves open", [], header, _rows(results, cells))


def _counter_intuitive(results: dict) -> Part:
    pairs = results["robustness"]["counter_intuitive"]["pairs"]
    defined = {pair: share for pair, share in pairs.items() if share is not None}
    most = sorted(defined, key=lambda pair: -defined[pair])[:MOST_PAIRS]
    rows = [[pair, percent(defined[pair], results["examples"])] for pair in most]
    title = "Right with fewer modalities, wrong with more"
    sentences = [f"The {MOST_PAIRS} most frequent of {len(pairs)} pairs."] if len(pairs) > len(most) else []
    return Part(title, sentences, ["pair", "examples, %"], rows)


def _cost(results: dict) -> Part:
    cells = {}
    for pattern, entry in results["cost"].items():
        flops = ABSENT if entry["flops"] is None else f"{entry['flops'] / 1e6:,.1f}"
        cells[pattern] = [flops, _decimals(entry["milliseconds"], 2), f"{entry['batch_size']}"]
    header = ["pattern", "MFLOPs per example", "ms per batch", "batch size"]
    return Part("Cost of each pattern", ["Encoders of absent modalities do not run."], header, _rows(results, cells))


def _place(cell: dict) -> tuple[str, float]:
    return cell["kind"], cell["rate"]


def _grid(results: dict, title: str, shown: dict[tuple[str, float], str]) -> Part:
    """A row for each missing rate, a column for each kind of loss."""
    columns = kinds(results["missing_rates"])
    rows = [
        [f"{100 * rate:.4g} %", *(shown.get((kind, rate), ABSENT) for kind in columns)]
        for rate in sorted({rate for _, rate in shown})
    ]
    return Part(title, [], ["missing rate", *map(kind_label, columns)], rows)


def _rate_map(results: dict, one: dict) -> Part:
    first, second = one["modalities"]
    header = [f"{first} missing", *(f"{second} {100 * rate:.4g} %" for rate in one["rates"])]
    rows = [
        [f"{100 * rate:.4g} %", *(percent(value, results["examples"]) for value in values)]
        for rate, values in zip(one["rates"], one["values"], strict=True)
    ]
    title = f"{first} and {second} missing at rates of their own: {short_metric_label(headline(results))}, %"
    return Part(title, [], header, rows)


def _decimals(value: float | None, count: int) -> str:
    return ABSENT if value is None else f"{value:.{count}f}"
