"""umemma_jax/reporting/figures.py: what stands where in the figures."""

import itertools

import matplotlib.pyplot
import numpy as np
import pytest
from matplotlib.text import Annotation, Text
from scipy.optimize import isotonic_regression

from tests.example_results import (
    COLLAPSED,
    ROBUST,
    all_undefined,
    analysed,
    audio_undefined,
    example_results,
    multi_label,
    three_modalities,
)
from umemma_jax.reporting.figures import axis_range, comparison_figure, robustness_figure, spread
from umemma_jax.reporting.results import compare


def five_modalities():
    modalities = ("image", "audio", "text", "depth", "video")
    subsets = (c for size in range(1, 6) for c in itertools.combinations(modalities, size))
    patterns = {"+".join(c): 0.5 + 0.07 * len(c) + 0.001 * len("".join(c)) for c in subsets}
    return example_results(patterns, {m: 0.5 + 0.001 * len(m) for m in modalities}, modalities)


SCENES = {
    "robust": example_results(),
    "collapsed": example_results(COLLAPSED),
    "without ceilings": example_results(ceilings={}),
    "three modalities": three_modalities(),
    "five modalities": five_modalities(),
    "all the same": example_results(dict.fromkeys(ROBUST, 1.0), {"image": 1.0, "audio": 1.0}),
    "large split": example_results(examples=10_000),
    "multi-label": multi_label(),
    "multi-label at tuned thresholds": analysed(multi_label()),
    "audio undefined": audio_undefined(),
    "all undefined": all_undefined(),
    "nothing right": example_results(dict.fromkeys(ROBUST, 0.0), {"image": 0.0, "audio": 0.0}),
}


def comparison_of_four(results):
    names = ("late_fusion", "ume", "augmentation", "ume_mma")
    return compare([results | {"method": name, "seed": seed} for name in names for seed in range(2)])


def words(axes):
    return [text.get_text() for text in axes.findobj(Annotation) if text.get_text()]


def assert_words_are_inside_and_apart(figure):
    """Labels, titles and captions of all panels; not the tick labels."""
    figure.draw_without_rendering()
    texts = [text for axes in figure.axes for text in (*axes.findobj(Annotation), axes._left_title)]
    texts += [figure._suptitle] if figure._suptitle else []
    # Text's own box: an annotation's would take in its line, which may pass anywhere.
    boxes = {text: Text.get_window_extent(text) for text in texts if text.get_text()}
    for (one, box), (other, other_box) in itertools.combinations(boxes.items(), 2):
        assert not box.padded(-1).overlaps(other_box.padded(-1)), (one.get_text(), other.get_text())
    for text, box in boxes.items():
        assert figure.bbox.padded(1).contains(box.x0, box.y0), text.get_text()
        assert figure.bbox.padded(1).contains(box.x1, box.y1), text.get_text()


@pytest.mark.parametrize("name", SCENES)
def test_no_words_collide_or_leave_the_figure(name):
    assert_words_are_inside_and_apart(robustness_figure(SCENES[name]))


@pytest.mark.parametrize("name", SCENES)
def test_no_words_of_a_comparison_collide_or_leave_the_figure(name):
    assert_words_are_inside_and_apart(comparison_figure(comparison_of_four(SCENES[name])))


def test_curves_and_ceilings_are_the_numbers():
    results = example_results()
    axes = robustness_figure(results).axes[0]
    dashed = {line.get_ydata()[0] for line in axes.lines if line.is_dashed()}
    assert dashed == {0.951, 0.972}
    curves = [line.get_xydata() for line in axes.lines if not line.is_dashed()]
    for curve, kind in zip(curves, ("image", "audio", "mixed"), strict=True):
        cells = [cell for cell in results["missing_rates"] if cell["kind"] == kind]
        np.testing.assert_array_equal(curve, [(cell["rate"], cell["mean"]["accuracy"]) for cell in cells])


def test_what_is_not_defined_is_not_drawn():
    axes = robustness_figure(audio_undefined()).axes[0]
    assert [line.get_ydata()[0] for line in axes.lines if line.is_dashed()] == [0.951]
    assert sum(not line.is_dashed() for line in axes.lines) == 3
    axes = robustness_figure(all_undefined()).axes[0]
    assert not any(len(line.get_xdata()) for line in axes.lines)
    assert axes.get_ylim()[0] == 0
    assert words(axes) == ["accuracy, which no example of the split defines"]


def test_a_curve_and_its_ceiling_share_a_colour():
    axes = robustness_figure(example_results()).axes[0]
    colours = {text.get_text(): text.get_color() for text in axes.findobj(Annotation)}
    assert colours["image missing 97.0 %"] == colours["ceiling: audio alone 97.2 %"]
    assert colours["audio missing 94.9 %"] == colours["ceiling: image alone 95.1 %"]
    assert len({colours["image missing 97.0 %"], colours["audio missing 94.9 %"]}) == 2


def test_the_figure_says_what_it_shows():
    axes = robustness_figure(example_results()).axes[0]
    assert axes.get_title(loc="left") == "av_mnist_small, test split: UME-MMA"
    said = words(axes)
    assert "complete 99.3 %" in said
    assert "accuracy, mean ± standard deviation over 5 seeded missing tables; the axis starts at 94 %" in said


def test_the_figure_of_multi_label_data_is_of_macro_f1():
    axes = robustness_figure(multi_label()).axes[0]
    said = words(axes)
    assert "complete 69.3 %" in said
    assert any(text.startswith("macro-F1, mean") for text in said)
    curve = next(line for line in axes.lines if not line.is_dashed())
    assert curve.get_ydata()[0] == multi_label()["patterns"]["image+audio"]["macro_f1"]


def test_the_figure_is_of_the_headline_where_there_is_one():
    axes = robustness_figure(analysed(multi_label())).axes[0]
    assert "complete 70.3 %" in words(axes)
    assert any(text.startswith("tuned macro-F1, mean") for text in words(axes))


def test_the_axis_of_a_collapse_starts_at_zero():
    axes = robustness_figure(example_results(COLLAPSED)).axes[0]
    assert axes.get_ylim()[0] == 0
    assert not any("axis starts" in text for text in words(axes))


def test_best_uni_modal_model_is_not_called_a_ceiling_of_two_modalities():
    said = words(robustness_figure(three_modalities()).axes[0])
    assert [text for text in said if "uni-modal" in text] == [
        "best uni-modal: text 90.5 %",
        "best uni-modal: image 81.5 %",
    ]


def test_comparison_has_a_panel_per_loss_and_a_line_per_method():
    figure = comparison_figure(comparison_of_four(example_results()))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["image missing", "audio missing", "mixed"]
    for axes in figure.axes:
        lines = [line for line in axes.lines if not line.is_dashed()]
        assert len(lines) == 4
        assert lines[-1].get_linewidth() > lines[0].get_linewidth(), "the last method is heavier"
    assert "- - ceiling: audio alone 97.2 %" in words(figure.axes[0])
    assert {text.rsplit(" ", 1)[0] for text in words(figure.axes[2])} == {
        "late fusion",
        "UME average",
        "augmentation alone",
        "UME-MMA",
    }


def test_a_grid_that_ends_early_is_labelled_at_its_end():
    results = example_results()
    results["missing_rates"] = [cell for cell in results["missing_rates"] if cell["rate"] < 1]
    axes = robustness_figure(results).axes[0]
    ends = {text.get_text(): text.xy for text in axes.findobj(Annotation)}
    assert ends["image missing 98.2 %"] == pytest.approx((0.5, 0.98150))
    assert axes.get_xlim()[1] == 0.5


def test_pyplot_knows_nothing_of_the_figures():
    before = matplotlib.pyplot.get_fignums()
    robustness_figure(example_results())
    assert matplotlib.pyplot.get_fignums() == before


@pytest.mark.parametrize("seed", range(20))
def test_spread_is_the_least_squares_answer(seed):
    """Least squares under a minimum distance is isotonic regression after the distances are taken off."""
    rng = np.random.default_rng(seed)
    heights = rng.uniform(0, 1, rng.integers(1, 9))
    gap = 0.1
    found = spread(heights, gap, low=-10, high=10)
    order = np.argsort(heights)
    steps = gap * np.arange(len(heights))
    np.testing.assert_allclose(found[order], isotonic_regression(heights[order] - steps).x + steps, atol=1e-12)


def test_spread_stays_in_bounds_and_in_order():
    found = spread([0.99, 1.0, 0.98, 0.0], gap=0.1, low=0.0, high=1.0)
    np.testing.assert_allclose(found, [0.9, 1.0, 0.8, 0.0])


@pytest.mark.parametrize(
    ("values", "low"), [((0.949, 0.993), 0.94), ((0.36, 0.973), 0.0), ((0.9987, 0.9991), 0.94), ((0.36, 0.53), 0.3)]
)
def test_axis_range(values, low):
    found, top, tick = axis_range(values)
    assert found == pytest.approx(low)
    assert top > max(values)
    assert top - found >= 0.05
    assert 3 <= (top - found) / tick <= 10
