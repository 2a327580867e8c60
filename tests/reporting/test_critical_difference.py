"""umemma_jax/reporting/critical_difference.py: each method stands at its rank, bars join those in a group."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from umemma_jax.evaluation.dataset_ranks import Ranks, critical_difference
from umemma_jax.reporting.colours import PALETTE
from umemma_jax.reporting.critical_difference import critical_difference_figure

METHODS = ["ranking", "simultaneous", "ume_mma", "modality_dropout", "augmentation"]


@pytest.fixture(scope="module")
def figure():
    average = np.array([1.5, 2.0, 3.0, 4.0, 4.5])
    ranks = Ranks(METHODS, average, 0.01, critical_difference(5, 30), [(0, 1), (3, 4)])
    return critical_difference_figure(ranks, 30, "mean over patterns")


def test_all_words_are_inside_of_the_figure(figure):
    renderer = FigureCanvasAgg(figure).get_renderer()
    for text in [*figure.texts, *figure.axes[0].texts]:
        box = text.get_window_extent(renderer)
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0 and box.y1 <= figure.bbox.height


def test_every_method_stands_at_its_rank(figure):
    """A line goes from its rank on the axis down to its name's height, and out to the name's side."""
    (axes,) = figure.axes
    lines = [line.get_data() for line in axes.lines if len(line.get_xdata()) == 3]
    assert sorted(x[0] for x, _ in lines) == [1.5, 2.0, 3.0, 4.0, 4.5]
    for text in axes.texts:
        if "  " in text.get_text():
            at, height = text.get_position()
            rank = next(x[0] for x, y in lines if y[-1] == height and abs(x[-1] - at) < 0.1)
            assert f"{rank:.2f}" in text.get_text().split("  ")


def test_bars_join_those_that_cannot_be_told_apart(figure):
    bars = [line.get_xdata() for line in figure.axes[0].lines if line.get_color() == PALETTE[0]]
    np.testing.assert_allclose(bars, [[1.5, 2.0], [4.0, 4.5]], atol=0.05)


def test_the_scale_is_as_long_as_the_critical_difference(figure):
    (words,) = (text.get_text() for text in figure.axes[0].texts if "critical" in text.get_text())
    assert words == f"critical difference {critical_difference(5, 30):.2f}"
    scale = next(line.get_xdata() for line in figure.axes[0].lines if line.get_linewidth() == 1.5)
    assert scale[1] - scale[0] == pytest.approx(critical_difference(5, 30))
