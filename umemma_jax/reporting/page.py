"""report.html: one file that opens offline, with drawings to hover over, sliders, and a table that sorts."""

import json
from typing import Any, NamedTuple

from bokeh.embed import json_item
from bokeh.layouts import column
from bokeh.models import UIElement
from bokeh.resources import Resources
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from umemma_jax.reporting import page_figures
from umemma_jax.reporting.definitions import definitions
from umemma_jax.reporting.headlines import headlines
from umemma_jax.reporting.page_mix import deployment_mix
from umemma_jax.reporting.page_table import pattern_table
from umemma_jax.reporting.results import headline, method_label, metric_label, short_metric_label
from umemma_jax.reporting.terms import is_regression, terms

LIBRARY = ("bokeh", "bokeh-widgets", "bokeh-tables")  # the parts of Bokeh that the page uses


class Drawing(NamedTuple):
    """A drawing with what stands around it; `words` change with what the reader selects."""

    id: str
    title: str
    caption: str
    words: str
    model: UIElement


def report_page(results: dict) -> str:
    """The text of report.html.

    It holds all that it shows, and asks nothing of any network. The same results give the same text.

    Args:
        results: as `report.write_report` takes them.
    """
    mix = deployment_mix(results, value_id="mix-value", lost_id="mix-lost")
    drawings = _drawings(results)
    models = {"curves": page_figures.rate_curves(results), "table": pattern_table(results)}
    if mix is not None:
        models["mix"] = column(*mix.sliders, sizing_mode="stretch_width")
    models |= {drawing.id: drawing.model for drawing in drawings}
    page = Environment(
        loader=PackageLoader("umemma_jax", "reporting"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    ).get_template("page.html")
    return page.render(
        title=f"{results['dataset']}: {method_label(results['method'])} with modalities missing",
        subtitle=f"{results['examples']:,} examples of the {results['split']} split{_seed(results)}.",
        headlines=headlines(results),
        bands=_bands(results),
        mix=mix,
        metric=short_metric_label(headline(results)),
        drawings=drawings,
        definitions={metric_label(word): meaning for word, meaning in definitions(results).items()},
        command=results.get("command", ""),
        versions=", ".join(f"{name} {version}" for name, version in results.get("versions", {}).items()),
        library=Markup(Resources(mode="inline", components=list(LIBRARY), log_level="error").render_js()),
        models={name: Markup(_item(model, name)) for name, model in models.items()},
    )


def _seed(results: dict) -> str:
    """Nothing of a model that is known by its logits alone."""
    return f", seed {results['seed']}" if "seed" in results else ""


def _bands(results: dict) -> str:
    if "uncertainty" in results:
        return f"{100 * results['uncertainty']['level']:.4g} % intervals over the examples"
    return "standard deviation over the seeds of the missing tables"


def _drawings(results: dict) -> list[Drawing]:
    """Those for which the results have numbers."""
    found = []
    if "information" in results:
        caption = "From the calibrated NLL of each pattern. Complementary: told by no other."
        caption += "" if is_regression(results) else " Dashed: all there is."
        found.append(Drawing("information", "What each modality tells", caption, "", page_figures.information(results)))
    if "shapley" in results:
        caption = "Its Shapley value: the mean gain over all orders in which modalities can be added."
        found.append(Drawing("shapley", "What each modality contributes", caption, "", page_figures.shapley(results)))
    if "calibration" in results:
        words = page_figures.calibration_words(results, page_figures.most_off(results))
        model = page_figures.reliability(results, "reliability-words")
        found.append(
            Drawing("reliability", terms(results).reliability_title, terms(results).reliability_caption, words, model)
        )
    if results.get("rate_maps"):
        caption = f"Where each is lost at a rate of its own: {short_metric_label(headline(results))}, %."
        words = page_figures.map_words(results["rate_maps"][0])
        found.append(
            Drawing(
                "rate-map", "Two modalities missing", caption, words, page_figures.rate_map(results, "rate-map-words")
            )
        )
    return found


def _item(model: UIElement, target: str) -> str:
    """What Bokeh embeds at the element named `target`, as JSON that may stand inside of a script element."""
    item = _renumbered(json_item(model, target), target, {})
    return json.dumps(item, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _renumbered(node: Any, prefix: str, names: dict[str, str]) -> Any:
    """The same JSON with models numbered as they come: Bokeh's own numbers grow as long as the process lives.

    Keys and values of users stand in lists of pairs there, so that every field named `id` is a model's.
    """
    if isinstance(node, list | tuple):
        return [_renumbered(entry, prefix, names) for entry in node]
    if not isinstance(node, dict):
        return node
    return {
        key: names.setdefault(value, f"{prefix}-{len(names)}")
        if key in ("id", "root_id")
        else _renumbered(value, prefix, names)
        for key, value in node.items()
    }
