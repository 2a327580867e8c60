"""Figures of the reports: the headline metric against the missing rate, with ceilings.

Numbers that no example defines (None) are left out.

Drawn on `Figure` objects; pyplot's global state is never touched. Colours are Okabe and Ito's,
which colour-blind readers can tell apart.
"""

from collections.abc import Sequence
from math import ceil, floor
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator

from umemma_jax.reporting.colours import GRID, INK, QUIET, nth_colour
from umemma_jax.reporting.results import (
    ceilings_by_loss,
    headline,
    kind_label,
    kinds,
    losses_by_ceiling,
    method_label,
    percent,
    short_metric_label,
)
from umemma_jax.reporting.titles import write_title

CEILING = {"linestyle": (0, (5, 2.5)), "linewidth": 1.3, "zorder": 3}
FONT = 10.5
TITLE = FONT + 2
LABEL_GAP = 14.5  # points between the baselines of two labels


class Label(NamedTuple):
    """Words at the right end of a line that ends at `height`."""

    height: float
    text: str
    colour: str
    bold: bool


def robustness_figure(results: dict) -> Figure:
    """The headline metric against the missing rate: one line per modality lost, ceilings dashed."""
    metric, examples, cells = headline(results), results["examples"], results["missing_rates"]
    modalities = results["modalities"]
    colours = {modality: nth_colour(number) for number, modality in enumerate(modalities)}
    figure = Figure(figsize=(8.3, 4.6), layout="constrained")
    axes = figure.add_subplot()
    labels, heights = [], []
    for (best, height), losses in losses_by_ceiling(results, metric).items():
        colour = colours[losses[0]] if len(losses) == 1 else QUIET
        axes.axhline(height, color=colour, **CEILING)
        text = f"{_ceiling_label(best, modalities)} {percent(height, examples)} %"
        labels.append(Label(height, text, colour, bold=False))
        heights.append(height)
    for kind in kinds(cells):
        colour = colours.get(kind, INK)
        curve = [(c["rate"], c["mean"][metric], c["std"][metric]) for c in cells if c["kind"] == kind]
        heights += _draw_curve(axes, curve, color=colour, linewidth=2, marker="o", markersize=4)
        last = max(curve)[1]
        if last is not None:
            labels.append(Label(last, f"{kind_label(kind)} {percent(last, examples)} %", colour, bold=True))
    low = _frame(axes, heights, cells, rate_ticks=0.2)
    complete = results["patterns"]["+".join(modalities)][metric]
    if complete is not None:
        axes.annotate(
            f"complete {percent(complete, examples)} %",
            (0, complete),
            xytext=(0, 7),
            textcoords="offset points",
            weight="bold",
            color=INK,
            fontsize=FONT,
        )
    seeds = cells[0]["seeds"]
    title = f"{results['dataset']}, {results['split']} split: {method_label(results['method'])}"
    write_title(axes, title, _subtitle(metric, seeds, "seeded missing tables", heights, low), TITLE)
    _label_ends(axes, labels)
    return figure


def comparison_figure(comparison: dict) -> Figure:
    """One panel per kind of loss, one line per method, ceilings dashed.

    Args:
        comparison: as returned by `results.compare`; its last method is drawn heavier.
    """
    metric, examples, methods = comparison["metric"], comparison["examples"], comparison["methods"]
    modalities = comparison["modalities"]
    means = {m: {metric: values[metric]["mean"]} for m, values in comparison["ceilings"].items()}
    ceilings = ceilings_by_loss({"modalities": modalities, "ceilings": means}, metric)
    panels = kinds(next(iter(methods.values()))["missing_rates"])
    columns = 2 if len(panels) == 4 else min(len(panels), 3)
    rows = ceil(len(panels) / columns)
    figure = Figure(figsize=(10.5, 0.8 + 3.3 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
    for unused in grid[len(panels) :]:
        unused.remove()
    labels, heights = {}, []
    for axes, kind in zip(grid, panels, strict=False):
        rightmost = axes.get_subplotspec().is_last_col()
        labels[axes] = []
        for number, (method, content) in enumerate(methods.items(), start=1):
            heavy = number == len(methods)
            colour = nth_colour(len(methods) - number)  # the last method has the first colour
            cells = [cell for cell in content["missing_rates"] if cell["kind"] == kind]
            curve = [(c["rate"], c[metric]["mean"], c[metric]["std"] or 0.0) for c in cells]
            heights += _draw_curve(axes, curve, color=colour, linewidth=2.8 if heavy else 1.8)
            last = max(curve)[1]
            name = f"{method_label(method)} " if rightmost else ""
            if last is not None:
                labels[axes].append(Label(last, name + percent(last, examples), colour, heavy))
        caption = ""
        if kind in ceilings:
            best, height = ceilings[kind]
            axes.axhline(height, color=INK, **CEILING)
            heights.append(height)
            caption = f"- - {_ceiling_label(best, modalities)} {percent(height, examples)} %"
        write_title(axes, kind_label(kind), caption, TITLE)
    for axes in labels:
        low = _frame(axes, heights, cells, rate_ticks=0.5)
    seeds = max(len(content["seeds"]) for content in methods.values())
    title = f"{comparison['dataset']}, {comparison['split']} split: "
    figure.suptitle(
        title + _subtitle(metric, seeds, "training seeds", heights, low),
        x=0.01,
        ha="left",
        color=QUIET,
        fontsize=FONT,
        parse_math=False,
    )
    for axes, ends in labels.items():
        _label_ends(axes, ends)
    return figure


def axis_range(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower end, upper end and tick distance that show the values without exaggeration.

    From 0 where the worst value is under half of the best, or there is none; otherwise, and where it is negative, from
    a round number below the worst, with at least 5 points in view. Above the best there is room for a line of words.
    """
    low, high = (min(values), max(0.05, *values)) if values else (0.0, 1.0)
    if low < 0:  # R2 alone
        tick = next((step for step in (0.1, 0.2, 0.5) if high - low < 8 * step), 1.0)
        low = floor(low / tick) * tick
    elif low < high / 2:
        low, tick = 0.0, 0.2
    else:
        low = min(low - 0.1 * (high - low), high - 0.05)
        tick = next(step for step in (0.01, 0.02, 0.05, 0.1) if high - low < 8 * step)
        low = max(0.0, floor(low / tick) * tick)
    top = max(high + 0.12 * (high - low), min(1.0, ceil(high / tick) * tick))
    return low, top, tick


def spread(heights: Sequence[float], gap: float, low: float, high: float) -> np.ndarray:
    """Moves heights as little as possible (least squares) so that all are `gap` apart.

    Pool adjacent violators: labels that would touch form a block around their mean.

    Args:
        heights: [N], in any order.
        gap: least distance.
        low: lower bound of the result.
        high: upper bound of the result, kept where N labels fit.

    Returns:
        float64 [N], in the order given.
    """
    order = np.argsort(heights, kind="stable")
    steps = gap * np.arange(len(order))
    blocks = []  # (mean, count)
    for height in np.asarray(heights, float)[order] - steps:
        blocks.append((height, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (below, n), (above, m) = blocks[-2:]
            blocks[-2:] = [((below * n + above * m) / (n + m), n + m)]
    placed = np.repeat([mean for mean, _ in blocks], [count for _, count in blocks])
    result = np.empty(len(order))
    result[order] = np.clip(placed, low, max(low, high - steps[-1])) + steps
    return result


def _ceiling_label(best: str, modalities: Sequence[str]) -> str:
    """With more than two modalities several are left, and the best of them is no upper bound."""
    return f"ceiling: {best} alone" if len(modalities) == 2 else f"best uni-modal: {best}"


def _subtitle(metric: str, count: int, of: str, heights: Sequence[float], low: float) -> str:
    text = short_metric_label(metric)
    if not heights:
        return f"{text}, which no example of the split defines"
    if count > 1:
        text += f", mean ± standard deviation over {count} {of}"
    return text + (f"; the axis starts at {100 * low:.0f} %" if low else "")


def _draw_curve(axes: Axes, curve: list[tuple], **style: object) -> list[float]:
    """Draws (rate, mean, std) points; returns the heights that must be in view."""
    rates, mean, std = np.array(sorted(point for point in curve if None not in point)).reshape(-1, 3).T
    band = (np.maximum(mean - std, np.minimum(mean, 0)), np.minimum(mean + std, 1))
    axes.fill_between(rates, *band, color=style["color"], alpha=0.18, linewidth=0)
    axes.plot(rates, mean, clip_on=False, **style)
    return [*band[0], *band[1]]


def _frame(axes: Axes, heights: Sequence[float], cells: list[dict], rate_ticks: float) -> float:
    """Sets ranges, ticks and grid; returns the lower end of the vertical axis."""
    low, high, tick = axis_range(heights)
    last_rate = max(cell["rate"] for cell in cells)
    axes.set_xlim(-0.015 * last_rate, last_rate)
    axes.set_ylim(low, high)
    axes.xaxis.set_major_locator(MultipleLocator(rate_ticks))
    axes.yaxis.set_major_locator(MultipleLocator(tick))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    axes.set_xlabel("missing rate", color=QUIET, fontsize=FONT)
    axes.tick_params(length=0, pad=6, labelcolor=QUIET, labelsize=FONT - 0.5)
    axes.spines[:].set_visible(False)
    axes.spines["bottom"].set(visible=True, color=QUIET)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    return low


def _label_ends(axes: Axes, labels: list[Label]) -> None:
    """Writes each label right of its line's end, moved up or down where two would collide."""
    if not labels:
        return
    axes.figure.draw_without_rendering()  # settles the layout, hence the height of the axes
    low, high = axes.get_ylim()
    right = axes.get_xlim()[1]
    points = axes.get_window_extent().height * 72 / axes.figure.dpi
    per_point = (high - low) / points
    heights = spread([label.height for label in labels], LABEL_GAP * per_point, low, high)
    for label, height in zip(labels, heights, strict=True):
        axes.annotate(
            label.text,
            (right, label.height),
            xytext=(1.045 * right, height),
            color=label.colour,
            weight="bold" if label.bold else "normal",
            fontsize=FONT,
            va="center",
            annotation_clip=False,
            parse_math=False,
            arrowprops={
                "arrowstyle": "-",
                "color": label.colour,
                "linewidth": 0.8,
                "shrinkA": 2,
                "shrinkB": 1,
                "relpos": (0, 0.5),
            },
        )
