"""umemma_jax/reporting/diagrams.py: the figures show the numbers, and their words do not collide."""

import numpy as np
import pytest

from tests.example_results import (
    all_undefined,
    analysed,
    audio_undefined,
    example_results,
    multi_label,
    six_modalities,
    three_modalities,
    uncalibrated,
)
from tests.reporting.test_figures import assert_words_are_inside_and_apart, words
from umemma_jax.reporting.diagrams import information_figure, rate_map_figure, reliability_figure

SCENES = {
    "two": analysed(example_results()),
    "uncalibrated": uncalibrated(analysed(example_results())),
    "three": analysed(three_modalities()),
    "six": analysed(six_modalities()),
    "multi-label": analysed(multi_label()),
    "audio undefined": analysed(audio_undefined()),
    "all undefined": analysed(all_undefined()),
}


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


@pytest.mark.parametrize("draw", [reliability_figure, information_figure, rate_map_figure])
@pytest.mark.parametrize("name", SCENES)
def test_no_words_collide_or_leave_the_figure(name, draw):
    assert_words_are_inside_and_apart(draw(SCENES[name]))


def test_a_panel_of_reliability_is_of_a_pattern():
    results = SCENES["two"]
    figure = reliability_figure(results)
    assert titles(figure) == ["everything there", "without audio", "without image"]
    entry = results["calibration"]["patterns"]["image"]
    _, *curves = figure.axes[1].lines
    for curve, bins in zip(curves, (entry["reliability_before"], entry["reliability"]), strict=True):
        np.testing.assert_array_equal(curve.get_xydata().T, [bins["confidence"], bins["accuracy"]])
    assert words(figure.axes[1]) == ["ECE 2.5 %, calibrated 0.8 %"]
    assert words(reliability_figure(SCENES["uncalibrated"]).axes[1]) == ["ECE 2.5 %, not calibrated"]


def test_of_many_patterns_those_of_one_loss_and_the_worst_are_shown():
    found = titles(reliability_figure(SCENES["six"]))
    assert found == ["everything there", *(f"without view_{number}" for number in range(1, 7)), "only view_1"]


def test_bars_are_the_information():
    results = SCENES["two"]
    axes = information_figure(results).axes[0]
    alone, complementary = (container.datavalues for container in axes.containers)
    entropy = results["information"]["entropy"]
    np.testing.assert_allclose(
        alone, entropy[""] - np.array([entropy["image+audio"], entropy["image"], entropy["audio"]])
    )
    np.testing.assert_allclose(complementary[1:], list(results["information"]["complementary"].values()))


def test_a_map_is_of_each_two_modalities():
    results = SCENES["three"]
    figure = rate_map_figure(results)
    *panels, _ = figure.axes  # the last one is the colour bar
    for axes, one in zip(panels, results["rate_maps"], strict=True):
        first, second = one["modalities"]
        assert (axes.get_ylabel(), axes.get_xlabel()) == (f"{first} missing, %", f"{second} missing, %")
        np.testing.assert_array_equal(axes.collections[0].get_array(), one["values"])


def test_of_many_maps_those_whose_loss_costs_most_are_shown():
    *panels, _ = rate_map_figure(SCENES["six"]).axes
    assert len(panels) == 6
    assert panels[0].get_ylabel() == "view_5 missing, %" and panels[0].get_xlabel() == "view_6 missing, %"
