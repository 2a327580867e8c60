"""The drawings of report.html, as Bokeh models that a reader can hover over.

Names that users gave stand only where Bokeh shows plain text: in data, factors, legends and options. In titles and
labels of axes it would read what stands between $$ as mathematics.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import ceil, nan

from bokeh.layouts import column
from bokeh.models import (
    ColorBar,
    ColumnDataSource,
    CustomJS,
    FactorRange,
    FixedTicker,
    HoverTool,
    Legend,
    LinearColorMapper,
    Plot,
    Select,
    Span,
    UIElement,
)
from bokeh.palettes import Cividis256
from bokeh.plotting import figure
from bokeh.transform import transform

from umemma_jax.reporting.colours import GRID, INK, PALE, PALETTE, QUIET, nth_colour
from umemma_jax.reporting.headlines import nats
from umemma_jax.reporting.results import (
    ABSENT,
    between,
    complete,
    difference,
    headline,
    kind_label,
    kinds,
    losses_by_ceiling,
    patterns_by_size,
    percent,
    points,
    rate_maps,
    short_label,
    short_metric_label,
)
from umemma_jax.reporting.terms import is_regression, terms

FONT = "system-ui, sans-serif"
LEGEND_ROW = 24  # pixels
BAR = 34  # pixels of height for each bar
WIDE = {"sizing_mode": "stretch_width"}  # as the page is


def rate_curves(results: dict) -> Plot:
    """The headline metric in % against the missing rate: a line per kind of loss, its ceiling dashed."""
    metric, examples = headline(results), results["examples"]
    colours = {modality: nth_colour(number) for number, modality in enumerate(results["modalities"])}
    plot = _plot("missing rate, %", f"{short_metric_label(metric)}, %", height=360)
    last = max(cell["rate"] for cell in results["missing_rates"])
    legend = []
    for kind in kinds(results["missing_rates"]):
        cells = [cell for cell in results["missing_rates"] if cell["kind"] == kind and cell["mean"][metric] is not None]
        source = ColumnDataSource(_curve(sorted(cells, key=lambda cell: cell["rate"]), metric, examples))
        style = {"color": colours.get(kind, INK)}
        band = plot.varea("rate", "low", "high", source=source, fill_alpha=0.13, **style)
        line = plot.line("rate", "value", source=source, line_width=2.5, **style)
        dots = plot.scatter("rate", "value", source=source, size=8, **style)
        plot.add_tools(
            HoverTool(
                renderers=[dots],
                tooltips=[
                    ("lost", "@kind"),
                    ("missing rate", "@rate %"),
                    (short_metric_label(metric), "@text %"),
                    ("interval", "@interval"),
                    ("spread", "@seeds"),
                    ("complete", "@complete"),
                    ("NLL", "@nll"),
                ],
            )
        )
        legend.append((kind_label(kind), [band, line, dots]))
    for (best, height), losses in losses_by_ceiling(results, metric).items():
        tint = colours[losses[0]] if len(losses) == 1 else QUIET
        source = ColumnDataSource({"rate": [0, 100 * last], "value": [100 * height] * 2, "model": [best] * 2})
        dashes = plot.line("rate", "value", source=source, color=tint, line_dash=[7, 4], line_width=1.6)
        tooltips = [
            ("best uni-modal model left", "@model"),
            (short_metric_label(metric), f"{percent(height, examples)} %"),
        ]
        plot.add_tools(HoverTool(renderers=[dashes], tooltips=tooltips))
        legend.append((f"ceiling: {best} alone", [dashes]))
    _add_legend(plot, legend)
    return plot


def _curve(cells: list[dict], metric: str, examples: int) -> dict[str, list]:
    """Columns of a data source, rates and values in %."""
    ends = [cell.get("interval") or (None, None) for cell in cells]
    means, stds = [cell["mean"][metric] for cell in cells], [cell["std"][metric] or 0.0 for cell in cells]
    bands = [
        (max(mean - std, min(mean, 0.0)), min(mean + std, 1.0)) if None in end else end
        for mean, std, end in zip(means, stds, ends, strict=True)
    ]
    return {
        "kind": [cell["kind"] for cell in cells],
        "rate": [round(100 * cell["rate"], 6) for cell in cells],
        "value": [100 * mean for mean in means],
        "low": [100 * low for low, _ in bands],
        "high": [100 * high for _, high in bands],
        "text": [percent(mean, examples) for mean in means],
        "interval": [between(end, examples) for end in ends],
        "seeds": [
            f"\u00b1 {percent(std, examples)}, {cell['seeds']} seeds" for cell, std in zip(cells, stds, strict=True)
        ],
        "complete": [
            ABSENT if cell.get("complete") is None else f"{percent(cell['complete'], 0)} % of the examples"
            for cell in cells
        ],
        "nll": [nats(cell.get("nll")) for cell in cells],
    }


def reliability(results: dict, words_id: str) -> UIElement:
    """Accuracy against confidence of a pattern that the reader selects, before and after its temperature.

    Beside it that of the complete one, after its temperature.

    Args:
        words_id: the element of the page whose text tells the selected pattern's calibration.
    """
    entries = results["calibration"]["patterns"]

    def label(pattern: str) -> str:
        return short_label(pattern, results["modalities"])

    columns = {label(pattern): _reliability_columns(entries[pattern]) for pattern in patterns_by_size(results)}
    everything, chosen = label(complete(results)), label(most_off(results))
    axes = ("confidence", "accuracy"), ("confidence_before", "accuracy_before")
    values = [value for column in columns.values() for names in axes for name in names for value in column[name]]
    low = 10 * (min(values, default=0) // 10)
    words = terms(results)
    plot = _plot(words.confidence_label, words.accuracy_label, height=340)
    plot.x_range.start = plot.y_range.start = low
    plot.x_range.end = plot.y_range.end = 100 + 0.02 * (100 - low)
    plot.line([low, 100], [low, 100], color=QUIET, line_dash=[3, 3])
    legend = []
    after, before = axes
    source = ColumnDataSource(columns[chosen])
    for name, (x, y), shown, tint in (
        (everything, after, ColumnDataSource(columns[everything]), INK),
        ("selected, before", before, source, PALETTE[1]),
        ("selected", after, source, PALETTE[0]),
    ):
        line = plot.line(x, y, source=shown, color=tint, line_width=2, line_alpha=0.6)
        dots = plot.scatter(x, y, source=shown, color=tint, size=8)
        shares = [(words.confidence_label, f"@{x}{{0.0}}"), (words.accuracy_label, f"@{y}{{0.0}}")]
        tooltips = [*shares, ("examples", "@examples")]
        plot.add_tools(HoverTool(renderers=[dots], tooltips=tooltips))
        legend.append((name, [line, dots]))
    _add_legend(plot, legend)
    sentences = {label(pattern): calibration_words(results, pattern) for pattern in entries}
    return column(_select("selected", chosen, source, columns, sentences, words_id), plot, **WIDE)


def _reliability_columns(entry: dict) -> dict[str, list]:
    """Columns of a data source, in %: the bins after the temperature, and as many before it."""
    before, after = entry["reliability_before"], entry["reliability"]
    return {
        "confidence": [100 * value for value in after["confidence"]],
        "accuracy": [100 * value for value in after["accuracy"]],
        "confidence_before": [100 * value for value in before["confidence"]],
        "accuracy_before": [100 * value for value in before["accuracy"]],
        "examples": after["examples"],
    }


def calibration_words(results: dict, pattern: str) -> str:
    """A pattern's calibration before and after its temperature, as a sentence."""
    entry, words = results["calibration"]["patterns"][pattern], terms(results)

    def text(scores: dict) -> str:
        error = percent(scores[words.error], results["examples"])
        return f"{words.error_label} {error} %, NLL {nats(scores['nll'])} nats"

    if entry["after"] is None or entry[words.scale] is None:
        return f"{text(entry['before'])}; not calibrated."
    after = f"After, at {words.scale_label} {entry[words.scale]:.2f}: {text(entry['after'])}."
    return f"Before: {text(entry['before'])}. {after}"


def most_off(results: dict) -> str:
    """The pattern with the largest calibration error, complete where none has any."""
    entries = results["calibration"]["patterns"]
    errors = {
        pattern: (entries[pattern]["after"] or entries[pattern]["before"])[terms(results).error]
        for pattern in patterns_by_size(results)
    }
    defined = {pattern: error for pattern, error in errors.items() if error is not None}
    return max(defined, key=defined.get, default=complete(results))


def rate_map(results: dict, words_id: str) -> UIElement:
    """The headline metric in % where two modalities, which the reader selects, are lost at rates of their own.

    Args:
        words_id: the element of the page whose text names both.
    """
    maps, examples = rate_maps(results), results["examples"]
    names = [" and ".join(entry["modalities"]) for entry in maps]
    columns = {name: _map_columns(entry, examples) for name, entry in zip(names, maps, strict=True)}
    rates = maps[0]["rates"]
    source = ColumnDataSource(columns[names[0]])
    plot = _plot("second modality's missing rate, %", "first modality's missing rate, %", height=390)
    mapper = LinearColorMapper(Cividis256, nan_color=GRID)  # from the least value shown to the greatest
    colours = {"fill_color": transform("value", mapper), "line_color": "white"}
    cells = plot.quad(left="left", right="right", bottom="bottom", top="top", source=source, **colours)
    tooltips = [("lost", "@lost"), (short_metric_label(headline(results)), "@text %")]
    plot.add_tools(HoverTool(renderers=[cells], tooltips=tooltips))
    bar = ColorBar(color_mapper=mapper, width=12, padding=6, major_label_text_color=QUIET, bar_line_color=None)
    plot.add_layout(bar, "right")
    plot.grid.visible = False
    plot.axis.ticker = FixedTicker(ticks=[100 * rate for rate in rates])
    if len(names) == 1:
        return plot
    words = {name: map_words(entry) for name, entry in zip(names, maps, strict=True)}
    return column(_select("modalities", names[0], source, columns, words, words_id), plot, **WIDE)


def map_words(entry: dict) -> str:
    """Which of the two modalities is which axis."""
    first, second = entry["modalities"]
    return f"Upwards: missing rate of {first}. To the right: missing rate of {second}."


def _map_columns(entry: dict, examples: int) -> dict[str, list]:
    """Columns of a data source: of each cell its ends in %, rows first, its value in %, and words."""
    first, second = entry["modalities"]
    cells = [
        (a, b, value)
        for a, row in zip(entry["rates"], entry["values"], strict=True)
        for b, value in zip(entry["rates"], row, strict=True)
    ]
    ends = list(pairwise(_edges([100 * rate for rate in entry["rates"]])))
    places = [(row, column) for row in ends for column in ends]
    return {
        "bottom": [row[0] for row, _ in places],
        "top": [row[1] for row, _ in places],
        "left": [column[0] for _, column in places],
        "right": [column[1] for _, column in places],
        "value": [nan if value is None else 100 * value for _, _, value in cells],
        "lost": [f"{first} {100 * a:.4g} %, {second} {100 * b:.4g} %" for a, b, _ in cells],
        "text": [percent(value, examples) for _, _, value in cells],
    }


def _edges(centres: Sequence[float]) -> list[float]:
    """Ends of cells around the centres, halfway to the next ones."""
    if len(centres) == 1:
        return [centres[0] - 0.5, centres[0] + 0.5]
    middles = [(a + b) / 2 for a, b in pairwise(centres)]
    return [2 * centres[0] - middles[0], *middles, 2 * centres[-1] - middles[-1]]


def information(results: dict) -> Plot:
    """What each modality tells alone, and inside it what no other tells, in nats."""
    found, modalities = results["information"], results["modalities"]
    entropy = found["entropy"]
    alone = {modality: difference(entropy[""], entropy[modality]) for modality in modalities}
    plot = _bars(["all together", *modalities], "nats")
    known = difference(entropy[""], entropy[complete(results)])
    legend = []
    for name, height, tint, values in (
        ("what it tells", 0.72, PALE, {"all together": known} | alone),
        ("complementary", 0.3, PALETTE[0], found["complementary"]),
    ):
        source = ColumnDataSource(_bar_columns({bar: v for bar, v in values.items() if v is not None}, nats))
        bars = plot.hbar("name", right="value", height=height, source=source, color=tint)
        plot.add_tools(HoverTool(renderers=[bars], tooltips=[("", "@name"), (name, "@text nats")]))
        legend.append((name, [bars]))
    if entropy[""] is not None and not is_regression(results):  # what can be known of a number has no end
        plot.add_layout(Span(location=entropy[""], dimension="height", line_color=QUIET, line_dash=[3, 3]))
        plot.x_range.end = 1.04 * entropy[""]
    _add_legend(plot, legend)
    return plot


def shapley(results: dict) -> Plot:
    """Each modality's Shapley value, in points of the metric."""
    values = {m: value for m, value in results["shapley"]["values"].items() if value is not None}
    plot = _bars(results["modalities"], f"points of {short_metric_label(results['shapley']['metric'])}")
    columns = _bar_columns(values, lambda value: points(value, results["examples"]))
    source = ColumnDataSource(columns | {"value": [100 * value for value in columns["value"]]})
    bars = plot.hbar("name", right="value", height=0.6, source=source, color=PALETTE[2])
    plot.add_tools(HoverTool(renderers=[bars], tooltips=[("", "@name"), ("points", "@text")]))
    return plot


def _bar_columns(values: dict[str, float], form: Callable[[float], str]) -> dict[str, list]:
    return {"name": list(values), "value": list(values.values()), "text": [form(value) for value in values.values()]}


def _plot(x_label: str, y_label: str, height: int, **ranges: object) -> Plot:
    plot = figure(height=height, tools="", toolbar_location=None, **WIDE, **ranges)
    plot.outline_line_color = plot.border_fill_color = plot.background_fill_color = None
    plot.xaxis.axis_label, plot.yaxis.axis_label = x_label, y_label
    for axis in plot.axis:
        axis.axis_label_text_font = axis.major_label_text_font = FONT
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = axis.major_label_text_font_size = "13px"
        axis.axis_label_text_color = axis.major_label_text_color = QUIET
        axis.axis_line_color = axis.minor_tick_line_color = axis.major_tick_line_color = None
    plot.grid.grid_line_color = GRID
    return plot


def _bars(names: Sequence[str], x_label: str) -> Plot:
    plot = _plot(x_label, "", height=70 + BAR * len(names), y_range=FactorRange(*reversed(names)))
    plot.ygrid.visible = False
    plot.yaxis.major_label_text_color = INK
    return plot


def _add_legend(plot: Plot, items: list[tuple]) -> None:
    """Below the plot, which grows by it; a click hides a line."""
    columns = 2 if max(len(label) for label, _ in items) <= 24 else 1
    legend = Legend(
        items=items,
        ncols=columns,
        location="bottom_left",
        border_line_color=None,
        background_fill_color=None,
        label_text_font=FONT,
        label_text_font_size="13px",
        label_text_color=INK,
        click_policy="hide",
        label_width=120,
        padding=2,
        spacing=2,
    )
    plot.height += LEGEND_ROW * ceil(len(items) / columns)
    plot.add_layout(legend, "below")


def _select(
    title: str, first: str, source: ColumnDataSource, columns: dict[str, dict], words: dict[str, str], words_id: str
) -> Select:
    """A choice between names, which shows the columns and the words of the name chosen."""
    select = Select(title=title, options=list(columns), value=first, **WIDE)
    code = """
        const number = names.indexOf(cb_obj.value)
        shown.data = sources[number].data
        document.getElementById(words_id).textContent = words[number]
    """
    args = {
        "names": list(columns),
        "shown": source,
        "sources": [ColumnDataSource(column) for column in columns.values()],
        "words": [words[name] for name in columns],
        "words_id": words_id,
    }
    select.js_on_change("value", CustomJS(args=args, code=code))
    return select
