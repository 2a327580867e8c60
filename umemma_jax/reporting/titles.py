"""The title of a panel, and words below it."""

from matplotlib.axes import Axes

from umemma_jax.reporting.colours import INK, QUIET


def write_title(axes: Axes, title: str, subtitle: str, size: float) -> None:
    """Writes both above the panel, at its left.

    Args:
        axes: the panel.
        title: bold, as it is: no part of it is read as mathematics.
        subtitle: quieter and smaller, likewise.
        size: of the title's letters, points.
    """
    axes.set_title(title, loc="left", weight="bold", color=INK, fontsize=size, pad=2.1 * size, parse_math=False)
    axes.annotate(
        subtitle,
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 0.85 * size),
        textcoords="offset points",
        color=QUIET,
        fontsize=0.8 * size,
        parse_math=False,
    )
