"""The mix of missing patterns that a reader expects in use, and what the model is worth under it."""

import math
from typing import NamedTuple

from bokeh.models import CustomJS, InlineStyleSheet, Slider

from umemma_jax.reporting.results import complete, headline_value, patterns_by_size, percent, points, short_label

MOST_PATTERNS = 7  # so many sliders, one a pattern; with more, one a modality

STYLE = ":host, .bk-slider-title { font: 14px system-ui, sans-serif; }"


class Mix(NamedTuple):
    """Sliders, and what stands on the page before any is moved."""

    sliders: list[Slider]
    value: str
    lost: str
    words: str


def deployment_mix(results: dict, value_id: str, lost_id: str) -> Mix | None:
    """Sliders that move the expected value of the headline metric; None where no pattern has any.

    With up to three modalities each pattern has a slider. With more each modality has one, its missing rate: they are
    lost independently, and who would lose everything keeps one, each equally likely.

    Args:
        value_id: the element of the page that shows the expected value, in %.
        lost_id: the one that shows how many points less than complete that is.
    """
    values = {pattern: headline_value(results, pattern) for pattern in patterns_by_size(results)}
    values = {pattern: value for pattern, value in values.items() if value is not None}
    if not values:
        return None
    modalities = results["modalities"]
    weights = results.get("robustness", {}).get("deployment", {}).get("weights", {})
    weights = {pattern: weights.get(pattern, 0.0) if weights else 1 / len(values) for pattern in values}
    if len(results["patterns"]) <= MOST_PATTERNS:
        words = "How often is what there? Only the ratio of the weights counts."
        sliders = [_slider(short_label(p, modalities), weight) for p, weight in weights.items()]
        of_sliders = "const weights = sliders.map((slider) => slider.value)"
        shares = {pattern: slider.value for pattern, slider in zip(values, sliders, strict=True)}
    else:
        words = "How often is each modality missing? They are lost independently; who would lose all keeps one."
        total = sum(weights.values()) or 1.0
        rates = {m: sum(w for p, w in weights.items() if m not in p.split("+")) / total for m in modalities}
        sliders = [_slider(f"{modality} missing", rate) for modality, rate in rates.items()]
        of_sliders = WEIGHTS_OF_RATES
        shares = pattern_shares({m: s.value / 100 for m, s in zip(modalities, sliders, strict=True)}, list(values))
    kept = [[modality in pattern.split("+") for modality in modalities] for pattern in values]
    everything = headline_value(results, complete(results))
    callback = CustomJS(
        args={
            "sliders": sliders,
            "kept": kept,
            "values": list(values.values()),
            "complete": everything,
            "decimals": 2 if results["examples"] > 5000 else 1,
            "value_id": value_id,
            "lost_id": lost_id,
        },
        code=of_sliders + EXPECTED,
    )
    for slider in sliders:
        slider.js_on_change("value", callback)
    share = sum(shares.values())
    expected = sum(shares[pattern] * value for pattern, value in values.items()) / share if share else None
    lost = None if None in (everything, expected) else expected - everything
    return Mix(sliders, percent(expected, results["examples"]), points(lost, results["examples"]), words)


def pattern_shares(rates: dict[str, float], patterns: list[str]) -> dict[str, float]:
    """How likely each pattern is where modalities are lost independently; who would lose all keeps any one.

    Args:
        rates: missing rate of each modality.
        patterns: those wanted, by name.
    """
    everything = math.prod(rates.values())
    shares = {}
    for pattern in patterns:
        kept = pattern.split("+")
        shares[pattern] = math.prod(1 - rate if modality in kept else rate for modality, rate in rates.items())
        if len(kept) == 1:
            shares[pattern] += everything / len(rates)
    return shares


# As `pattern_shares`.
WEIGHTS_OF_RATES = """
const rates = sliders.map((slider) => slider.value / 100)
const everything = rates.reduce((product, rate) => product * rate, 1)
const weights = kept.map((row) => {
  const share = rates.reduce((product, rate, m) => product * (row[m] ? 1 - rate : rate), 1)
  return share + (row.filter(Boolean).length == 1 ? everything / rates.length : 0)
})
"""
EXPECTED = """
const total = weights.reduce((sum, weight) => sum + weight, 0)
const expected = weights.reduce((sum, weight, p) => sum + weight * values[p], 0) / total
const text = (fraction) => (100 * Math.abs(fraction)).toFixed(decimals)
const sign = (fraction) => (Number(text(fraction)) == 0 ? "" : fraction > 0 ? "+" : "\\u2212")
const known = total > 0
const lost = expected - complete
document.getElementById(value_id).textContent = known ? text(expected) : "\\u2013"
document.getElementById(lost_id).textContent = known && complete != null ? sign(lost) + text(lost) : "\\u2013"
"""


def _slider(title: str, share: float) -> Slider:
    """From 0 to 100 %."""
    looks = {"sizing_mode": "stretch_width", "stylesheets": [InlineStyleSheet(css=STYLE)]}
    value = round(100 * share, 1)
    return Slider(title=title, start=0, end=100, step=0.1, value=value, format="0.[0]", **looks)
