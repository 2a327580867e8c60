"""Figures of what stands behind the headline: reliability of each pattern, information, maps of two missing rates.

Drawn as those of `figures`; numbers that no example defines (None) are left out.
"""

from math import ceil

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from umemma_jax.reporting.colours import GRID, INK, PALE, PALETTE, QUIET
from umemma_jax.reporting.headlines import nats, shown_patterns
from umemma_jax.reporting.results import (
    complete,
    difference,
    headline,
    patterns_by_size,
    percent,
    rate_maps,
    short_label,
    short_metric_label,
)
from umemma_jax.reporting.terms import Terms, is_regression, terms
from umemma_jax.reporting.titles import write_title

FONT = 10
TITLE = FONT + 1
MOST_PANELS = 8  # with more patterns than these: complete, one modality lost, the worst
MOST_MAPS = 6  # with more pairs than these: those whose loss costs most


def reliability_figure(results: dict) -> Figure:
    """A panel for each pattern: the share that is true against the confidence, before its temperature (pale) and after.

    Of regression, the share of the targets within central intervals against their level. Subtitles give the calibration
    error of both.
    """
    patterns = patterns_by_size(results)
    if len(patterns) > MOST_PANELS:
        patterns = shown_patterns(results)
    entries = {pattern: results["calibration"]["patterns"][pattern] for pattern in patterns}
    figure, panels = _panels(len(patterns), 2.75, 3.2)
    bins = [entry[name] for entry in entries.values() for name in ("reliability_before", "reliability")]
    values = [value for one in bins for name in ("confidence", "accuracy") for value in one[name]]
    low, words = np.floor(10 * min(values, default=0.0)) / 10, terms(results)
    for axes, (pattern, entry) in zip(panels, entries.items(), strict=True):
        axes.plot([low, 1], [low, 1], color=QUIET, linewidth=1, linestyle=(0, (2, 2)))
        _draw_reliability(axes, entry["reliability_before"], color=PALE)
        _draw_reliability(axes, entry["reliability"], color=PALETTE[0])
        axes.set(xlim=(low, 1), ylim=(low, 1), box_aspect=1)
        _percent_axes(axes)
        error = _calibration_error(entry, words, results["examples"])
        write_title(axes, short_label(pattern, results["modalities"]), error, TITLE)
    _labels(panels, words.confidence_label, words.accuracy_label)
    return figure


def information_figure(results: dict) -> Figure:
    """What each modality tells alone and, inside it, what no other tells, in nats."""
    found, modalities = results["information"], results["modalities"]
    entropy = found["entropy"]
    rows = ["all together", *modalities]
    told = [difference(entropy[""], entropy[name]) for name in (complete(results), *modalities)]
    complementary = [None, *(found["complementary"][modality] for modality in modalities)]
    figure = Figure(figsize=(8.3, 1.7 + 0.5 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    heights = np.arange(len(rows))[::-1]
    axes.barh(heights, _numbers(told), height=0.7, color=PALE)
    axes.barh(heights, _numbers(complementary), height=0.28, color=PALETTE[0])
    limit = None if is_regression(results) else entropy[""]  # what can be known of a number has no end
    right = max([value for value in (*told, limit) if value is not None], default=1.0)
    for height, name, whole, part in zip(heights, rows, told, complementary, strict=True):
        text = f"{nats(whole)} together" if name == rows[0] else f"{nats(whole)} alone, {nats(part)} complementary"
        axes.annotate(text, (right, height), (8, 0), textcoords="offset points", va="center", fontsize=FONT, color=INK)
    if limit is not None:
        axes.axvline(limit, color=QUIET, linewidth=1, linestyle=(0, (5, 2.5)))
    axes.set_xlim(min(0.0, *(value for value in complementary if value is not None), 0.0), right)
    axes.set_yticks(heights, rows, parse_math=False)
    axes.set_xlabel("nats", color=QUIET, fontsize=FONT)
    _plain(axes)
    axes.grid(visible=False, axis="y")
    of = "a target" if limit is None else f"a label, of {nats(limit)} nats (dashed)"
    subtitle = f"information about {of}; dark: what no other modality tells"
    write_title(axes, "What each modality tells", subtitle, TITLE)
    return figure


def rate_map_figure(results: dict) -> Figure:
    """A map for each two modalities: the headline metric where either is lost at a rate of its own."""
    maps = rate_maps(results)
    if len(maps) > MOST_MAPS:
        maps = sorted(maps, key=lambda one: np.nan_to_num(_numbers(one["values"][-1])[-1], nan=np.inf))[:MOST_MAPS]
    figure, panels = _panels(len(maps), 4.2 if len(maps) == 1 else 3.2, 3.6 if len(maps) == 1 else 3.0)
    values = [np.array(one["values"], float) for one in maps]
    defined = np.concatenate([value[np.isfinite(value)] for value in values])
    low, high = (defined.min(), defined.max()) if len(defined) else (0.0, 1.0)
    for axes, one, value in zip(panels, maps, values, strict=True):
        first, second = one["modalities"]
        mesh = axes.pcolormesh(
            one["rates"], one["rates"], value, cmap="cividis", vmin=low, vmax=high, shading="nearest"
        )
        mesh.set(edgecolor="white", linewidth=0.5)
        axes.set_aspect("equal")
        _percent_axes(axes)
        axes.grid(visible=False)
        axes.set_xlabel(f"{second} missing, %", color=QUIET, fontsize=FONT, parse_math=False)
        axes.set_ylabel(f"{first} missing, %", color=QUIET, fontsize=FONT, parse_math=False)
        for corner, height in ((0, 0), (-1, -1)):
            rate = one["rates"][corner]
            axes.annotate(
                percent(None if np.isnan(value[corner, height]) else value[corner, height], results["examples"]),
                (rate, rate),
                ha="center",
                va="center",
                fontsize=FONT - 2,
                color=INK if value[corner, height] > (low + high) / 2 else "white",
            )
    bar = figure.colorbar(mesh, ax=panels, shrink=0.8, format=FuncFormatter(lambda value, _: f"{100 * value:.4g}"))
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelcolor=QUIET, labelsize=FONT - 1)
    bar.set_label(f"{short_metric_label(headline(results))}, %", color=QUIET, fontsize=FONT)
    return figure


def _draw_reliability(axes: Axes, bins: dict, **style: object) -> None:
    if bins["confidence"]:
        axes.plot(bins["confidence"], bins["accuracy"], marker="o", markersize=4, clip_on=False, **style)


def _panels(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels, each of a size in inches."""
    columns = min(count, 3 if count in (3, 5, 6) else 4)
    rows = ceil(count / columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08, wspace=0.04)
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for unused in grid[count:]:
        unused.remove()
    return figure, list(grid[:count])


def _numbers(values: list[float | None]) -> np.ndarray:
    """float64, NaN for None."""
    return np.array(values, float)


def _calibration_error(entry: dict, words: Terms, examples: int) -> str:
    before = f"{words.error_short} {percent(entry['before'][words.error], examples)} %"
    if entry["after"] is None:
        return f"{before}, not calibrated"
    return f"{before}, calibrated {percent(entry['after'][words.error], examples)} %"


def _percent_axes(axes: Axes) -> None:
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}"))
        axis.set_major_locator(MaxNLocator(5))
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelcolor=QUIET, labelsize=FONT - 1)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def _labels(panels: list[Axes], x_label: str, y_label: str) -> None:
    """On the outer panels alone."""
    for axes in panels:
        axes.set_xlabel(x_label, color=QUIET, fontsize=FONT)
        if axes.get_subplotspec().is_first_col():
            axes.set_ylabel(y_label, color=QUIET, fontsize=FONT)
