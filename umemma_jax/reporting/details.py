"""Every number behind the headlines, as tables: of each pattern, cell of the missing-rate grid and pair."""

from umemma_jax.reporting.headlines import ceiling, nats, size_text
from umemma_jax.reporting.parts import Part
from umemma_jax.reporting.results import (
    ABSENT,
    between,
    complete,
    difference,
    headline,
    headline_value,
    in_units,
    interval,
    kind_label,
    kinds,
    lost,
    lost_points,
    metric_column,
    metric_text,
    metrics,
    patterns_by_size,
    percent,
    points,
    rate_maps,
    short_label,
    short_metric_label,
    worst_class_measure,
)
from umemma_jax.reporting.terms import is_regression, terms

MOST_MAPS = 3  # more pairs of modalities are in report.json and report.html alone
MOST_PAIRS = 10


def details(results: dict) -> list[Part]:
    """The parts for which the results have numbers."""
    tables = {
        "uncertainty": _intervals,
        "calibration": _calibration,
        "conformal": _conformal,
        "worst_class": _worst_classes,
        "label_free_bias": _label_free_bias,
        "by_target": _targets,
        "information": _information,
        "robustness": _counter_intuitive,
        "cost": _cost,
    }
    return [table(results) for key, table in tables.items() if key in results and _told(results, key)]


def _told(results: dict, key: str) -> bool:
    return key != "robustness" or "counter_intuitive" in results[key]


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
    words = terms(results)

    def text(value: float | None, is_share: bool) -> str:
        return percent(value, examples) if is_share else nats(value)

    header = ["pattern", words.scale_label]
    for label, _ in words.calibration_scores.values():
        header += [label, "after"]
    cells = {}
    for pattern, entry in results["calibration"]["patterns"].items():
        after = entry["after"] or dict.fromkeys(words.calibration_scores)
        cells[pattern] = [_decimals(entry[words.scale], 2)]
        for name, (_, is_share) in words.calibration_scores.items():
            cells[pattern] += [text(entry["before"][name], is_share), text(after[name], is_share)]
        cells[pattern] += [_decimals(entry["aurc"], 4)] if "aurc" in entry else []
    header += [] if is_regression(results) else ["AURC"]
    return Part(f"Calibration, before and after a {words.scale_label}", [], header, _rows(results, cells))


def _conformal(results: dict) -> Part:
    cells = {
        pattern: [
            _decimals(entry["quantile"], 3),
            percent(entry["coverage"], results["examples"]),
            size_text(results, entry),
        ]
        for pattern, entry in results["conformal"]["patterns"].items()
    }
    what = "intervals" if is_regression(results) else "sets"
    title = f"Conformal {what} at {100 * (1 - results['conformal']['alpha']):.4g} %"
    return Part(title, [], ["pattern", "quantile", "coverage, %", terms(results).size_label], _rows(results, cells))


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


def _label_free_bias(results: dict) -> Part:
    """The headline and, multi-label, the metric at 0.5, without the bias and with it."""
    found, examples = results["label_free_bias"], results["examples"]
    measures = list(dict.fromkeys((headline(results), results["metric"])))
    cells = {}
    for pattern, with_it in found["patterns"].items():
        without = results["patterns"][pattern]
        cells[pattern] = [percent(scores[name], examples) for name in measures for scores in (without, with_it)]
        cells[pattern].append(between(found["gained"][pattern], examples, points))
    header = [text for name in measures for text in (f"{short_metric_label(name)}, %", "with it")]
    title = "With a bias that is fitted without labels"
    return Part(title, [], ["pattern", *header, f"{short_metric_label(measures[0])} gained"], _rows(results, cells))


def _targets(results: dict) -> Part:
    """Each target's own metrics, of complete and of each pattern."""
    examples, by_target = results["examples"], results["by_target"]
    names = [name for name in metrics(results) if name in next(iter(by_target[complete(results)].values()))]
    rows = [
        [short_label(pattern, results["modalities"]), target]
        + [metric_text(name, scores[name], examples) for name in names]
        for pattern in patterns_by_size(results)
        for target, scores in by_target[pattern].items()
    ]
    return Part("Each target", [], ["pattern", "target", *map(metric_column, names)], rows)


def _squared_errors(results: dict) -> Part:
    """What the loss of each modality can cost the best possible predictor."""
    found = results["information"]
    rows = [
        [modality, nats(found["complementary"][modality]), in_units(found["mse_gap_at_most"][modality])]
        for modality in results["modalities"]
    ]
    header = ["modality lost", "complementary, nats", "squared error at most, in squared deviations"]
    return Part("What the best possible predictor can lose", [], header, rows)


def _information(results: dict) -> Part:
    found = results["information"]
    if is_regression(results):
        return _squared_errors(results)
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
