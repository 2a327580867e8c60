"""The critical-difference figure: methods on an axis of average ranks, bars over those that cannot be told apart."""

from math import ceil, floor

from matplotlib.figure import Figure

from umemma_jax.evaluation.dataset_ranks import LEVEL, Ranks
from umemma_jax.reporting.colours import INK, PALETTE, QUIET
from umemma_jax.reporting.results import method_label

FONT = 10
ROW, BAR = 0.30, 0.17  # inches: a line of names, a bar
TOP = 0.95  # inches above the axis: title, critical difference, numbers


def critical_difference_figure(ranks: Ranks, datasets: int, measure: str) -> Figure:
    """Demsar's figure: the best method at the left.

    Args:
        ranks: from `evaluation.dataset_ranks.ranks`.
        datasets: over how many.
        measure: what they rank by, in words.
    """
    count, bars = len(ranks.methods), len(ranks.groups)
    left = (count + 1) // 2
    names_at = 0.2 + BAR * bars + 0.12
    height = TOP + names_at + ROW * left
    figure = Figure(figsize=(9, height))
    axes = figure.add_axes((0.29, 0, 0.42, 1))
    low, high = floor(ranks.average.min()), ceil(ranks.average.max())
    high = max(high, low + 1)
    axes.set(xlim=(low, high), ylim=(-(height - TOP), TOP))
    axes.axis("off")
    axes.plot([low, high], [0, 0], color=INK, linewidth=1.2, clip_on=False)
    for tick in range(low, high + 1):
        axes.plot([tick, tick], [0, 0.07], color=INK, linewidth=1.2, clip_on=False)
        axes.text(tick, 0.11, str(tick), ha="center", va="bottom", fontsize=FONT, color=INK)
    for number, (method, rank) in enumerate(zip(ranks.methods, ranks.average, strict=True)):
        _name(figure, method, rank, number, left, count, names_at)
    for number, (first, last) in enumerate(ranks.groups):
        y, reach = -(0.2 + BAR * number), 0.006 * (high - low)
        ends = [ranks.average[first] - reach, ranks.average[last] + reach]
        axes.plot(ends, [y, y], color=PALETTE[0], linewidth=4, solid_capstyle="butt", clip_on=False)
    _scale(figure, ranks.critical_difference, low, high)
    title = f"Average rank by {measure} over {datasets} datasets; bars: not told apart at {LEVEL:g} (Nemenyi)"
    figure.text(0.01, 1 - 0.06 / height, title, ha="left", va="top", fontsize=FONT, color=QUIET, parse_math=False)
    return figure


def _name(figure: Figure, method: str, rank: float, number: int, left: int, count: int, names_at: float) -> None:
    """A method's name and rank at its side, and a line to its place on the axis; the best outermost."""
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    row, edge, side = (number, low, "right") if number < left else (count - 1 - number, high, "left")
    y, out = -(names_at + ROW * row), 0.02 * (high - low) * (-1 if side == "right" else 1)
    axes.plot([rank, rank, edge + out], [0, y, y], color=INK, linewidth=0.9, clip_on=False)
    words = f"{method_label(method)}  {rank:.2f}" if side == "right" else f"{rank:.2f}  {method_label(method)}"
    axes.text(edge + 2 * out, y, words, ha=side, va="center", fontsize=FONT, color=INK, parse_math=False)


def _scale(figure: Figure, critical: float, low: float, high: float) -> None:
    """The length of the critical difference, above the axis; cut where it is longer than that."""
    (axes,) = figure.axes
    end, y = min(low + critical, high), 0.45
    axes.plot([low, end], [y, y], color=INK, linewidth=1.5, clip_on=False)
    for x in (low, end) if low + critical <= high else (low,):
        axes.plot([x, x], [y - 0.05, y + 0.05], color=INK, linewidth=1.5, clip_on=False)
    words = f"critical difference {critical:.2f}" + ("" if low + critical <= high else ", longer than the axis")
    axes.text(low, y + 0.06, words, ha="left", va="bottom", fontsize=FONT - 1, color=INK)
