"""The table of all patterns in report.html, which sorts by the column that a reader clicks."""

from typing import NamedTuple

from bokeh.models import ColumnDataSource, DataTable, InlineStyleSheet, NumberFormatter, StringFormatter, TableColumn

from umemma_jax.reporting.headlines import ceiling
from umemma_jax.reporting.results import (
    ABSENT,
    IN_UNITS,
    headline,
    headline_value,
    interval,
    lost,
    metric_label,
    metrics,
    patterns_by_size,
    short_label,
    short_metric_label,
)
from umemma_jax.reporting.terms import terms

ROW = 30  # pixels
MOST_ROWS = 16  # in view; more scroll
STYLE = """
:host { font: 13px system-ui, sans-serif; }
.slick-header-column, .slick-cell { font-size: 13px; }
.slick-header-column { text-align: right; }
.slick-column-name { float: none; }
.slick-header-left .slick-header-column { text-align: left; }
"""


class Column(NamedTuple):
    """Numbers of all patterns, None where there is none."""

    title: str
    values: list[float | None]
    format: str = "0.0"
    width: int = 90


def pattern_table(results: dict) -> DataTable:
    """A row for each pattern: metric, intervals, ceilings, calibration, conformal sets, worst class and cost."""
    patterns = patterns_by_size(results)
    labels = [short_label(pattern, results["modalities"]) for pattern in patterns]
    columns = [column for column in _columns(results, patterns) if set(column.values) != {None}]
    data = {f"c{number}": column.values for number, column in enumerate(columns)}
    width = min(260, 24 + 7 * max(map(len, labels)))
    shown = [TableColumn(field="pattern", title="pattern", width=width)]
    shown += [
        TableColumn(
            field=f"c{number}",
            title=column.title,
            width=column.width,
            formatter=NumberFormatter(format=column.format, nan_format=ABSENT, null_format=ABSENT, text_align="right"),
        )
        for number, column in enumerate(columns)
    ]
    worst = results.get("worst_class")
    if worst:
        data["worst"] = [ABSENT if worst[p]["value"] is None else str(worst[p]["class"]) for p in patterns]
        shown.append(
            TableColumn(field="worst", title="worst class", width=140, formatter=StringFormatter(text_align="right"))
        )
    return DataTable(
        source=ColumnDataSource({"pattern": labels, **data}),
        columns=shown,
        height=ROW * (min(len(patterns), MOST_ROWS) + 1) + 20,
        row_height=ROW,
        index_position=None,
        autosize_mode="none",
        frozen_columns=1,
        stylesheets=[InlineStyleSheet(css=STYLE)],
        selectable=False,
        sizing_mode="stretch_width",
    )


def _columns(results: dict, patterns: list[str]) -> list[Column]:
    metric = headline(results)
    name = short_metric_label(metric)
    values = [headline_value(results, p) for p in patterns]
    ends = [interval(results, "patterns", p) for p in patterns]
    lost_ends = [interval(results, "lost", p) for p in patterns]
    columns = [
        Column("examples", [results["patterns"][p].get("examples", results["examples"]) for p in patterns], "0,0"),
        Column(f"{name}, %", _percent(values), width=60 + 7 * len(name)),
        Column("from", _percent([low for low, _ in ends])),
        Column("to", _percent([high for _, high in ends])),
        Column("lost, points", _percent([lost(results, p) for p in patterns]), width=100),
        Column("from", _percent([low for low, _ in lost_ends])),
        Column("to", _percent([high for _, high in lost_ends])),
        *_errors(results, patterns),
    ]
    if results["ceilings"]:
        ceilings = [ceiling(results, p)[1] for p in patterns]
        columns.append(Column("ceiling, %", _percent(ceilings)))
    ensembles = results.get("ensembles", {})
    columns.append(Column("ensemble, %", _percent([ensembles.get(p, {}).get(metric) for p in patterns]), width=105))
    return columns + _calibration(results, patterns) + _sets(results, patterns) + _cost(results, patterns)


def _errors(results: dict, patterns: list[str]) -> list[Column]:
    """Of regression, in the units of the target."""
    names = [name for name in metrics(results) if name in IN_UNITS]
    return [
        Column(metric_label(name), [results["patterns"][p][name] for p in patterns], "0,0.[0000]") for name in names
    ]


def _percent(fractions: list[float | None]) -> list[float | None]:
    return [None if fraction is None else 100 * fraction for fraction in fractions]


def _calibration(results: dict, patterns: list[str]) -> list[Column]:
    if "calibration" not in results:
        return []
    entries = [results["calibration"]["patterns"][p] for p in patterns]
    columns, words = [], terms(results)
    for when in ("before", "after"):
        scores = [entry[when] or dict.fromkeys(entry["before"]) for entry in entries]
        error = f"{words.error_label} {when}, %"
        columns += [
            Column(error, _percent([s[words.error] for s in scores]), "0.0", 45 + 7 * len(error)),
            Column(f"NLL {when}, nats", [s["nll"] for s in scores], "0.000", 125),
            Column(f"Brier {when}", [s.get("brier") for s in scores], "0.000", 100),
        ]
    columns.append(Column(words.scale_label, [entry[words.scale] for entry in entries], "0.00", 100))
    columns.append(Column("AURC", [entry.get("aurc") for entry in entries], "0.0000"))
    return columns


def _sets(results: dict, patterns: list[str]) -> list[Column]:
    columns = []
    if "conformal" in results:
        entries = [results["conformal"]["patterns"][p] for p in patterns]
        columns.append(Column("coverage, %", _percent([entry["coverage"] for entry in entries]), width=100))
        words = terms(results)
        columns.append(Column(words.size_label, [entry[words.size] for entry in entries], "0.00", 100))
    if "worst_class" in results:
        values = [results["worst_class"][p]["value"] for p in patterns]
        columns.append(Column("worst class, %", _percent(values), width=115))
    return columns


def _cost(results: dict, patterns: list[str]) -> list[Column]:
    if "cost" not in results:
        return []
    entries = [results["cost"][p] for p in patterns]
    millions = [None if entry["flops"] is None else entry["flops"] / 1e6 for entry in entries]
    batch = entries[0]["batch_size"]
    return [
        Column("MFLOPs/example", millions, "0,0.0", 125),
        Column(f"ms/batch of {batch}", [entry["milliseconds"] for entry in entries], "0.00", 125),
    ]
