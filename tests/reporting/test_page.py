"""umemma_jax/reporting/page.py: one file that opens offline; what a reader does to it in a real browser."""

import itertools
import json
import re
from html.parser import HTMLParser

import pytest

from tests.browser import started
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
from umemma_jax.reporting.page import report_page
from umemma_jax.reporting.page_mix import deployment_mix, pattern_shares
from umemma_jax.reporting.results import patterns_by_size

SCENES = {
    "an older report": example_results(),
    "neither ceilings nor validation": uncalibrated(analysed(example_results(ceilings={}))),
    "six": analysed(six_modalities()),
    "multi-label": analysed(multi_label()),
    "audio undefined": analysed(audio_undefined()),
    "all undefined": analysed(all_undefined()),
}
LARGEST = 6e6  # bytes


def hostile():
    """Names that would break out of the page if any were taken for markup, script or mathematics."""
    image, audio = "<img src=x onerror=document.title='out'>", "$$x^2$$ {{ 1 * 1 }} @{kind}"
    patterns = {f"{image}+{audio}": 0.99, image: 0.94, audio: 0.97}
    results = analysed(example_results(patterns, {image: 0.95, audio: 0.96}, (image, audio)))
    results["dataset"] = "</script><b>dataset</b>"
    for worst in results["worst_class"].values():
        worst["class"] = "</script><b>class</b>"
    return results


class Addresses(HTMLParser):
    """What the elements of a page load."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("src", "href", "srcset", "data", "action")]


def test_it_is_one_file_that_asks_nothing_of_a_network():
    page = report_page(analysed(six_modalities()))
    assert len(page.encode()) < LARGEST
    parser = Addresses()
    parser.feed(page)
    assert parser.found == ["data:,"]
    assert "default-src 'none'" in page, "what the page's policy does not name is not loaded"
    assert "url(http" not in page and "@import" not in page


@pytest.mark.parametrize("name", ["an older report", "six", "all undefined"])
def test_same_results_give_the_same_text(name):
    assert report_page(SCENES[name]) == report_page(json.loads(json.dumps(SCENES[name])))


def test_missing_rates_may_come_in_any_order_and_distance():
    results = analysed(example_results())
    whole = {"modalities": ["image", "audio"], "rates": [0.0, 0.65, 1.0], "values": [[9, 8, 7], [6, 5, 4], [3, 2, 1]]}
    mixed = whole | {"rates": [0.0, 1.0, 0.65], "values": [[9, 7, 8], [3, 1, 2], [6, 4, 5]]}
    assert report_page(results | {"rate_maps": [mixed]}) == report_page(results | {"rate_maps": [whole]})


def test_models_have_names_of_their_own():
    page = report_page(analysed(example_results()))
    models = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page)
    roots = [json.loads(model)["root_id"] for model in models]
    assert len(set(roots)) == len(roots) == 7


def test_names_are_text():
    page = report_page(hostile())
    assert "<b>" not in page.replace(plain_library(page), "")
    assert "&lt;/script&gt;&lt;b&gt;class&lt;/b&gt;" in page


def plain_library(page):
    """Bokeh's own scripts within the page."""
    return page[page.index("</main>") : page.index('<script type="application/json"')]


def test_the_headlines_stand_in_the_text_itself():
    page = report_page(analysed(example_results()))
    assert "With everything there, accuracy is 99.3 % (98.3 to 100.0)." in page
    assert "audio has most that no other modality tells: 0.256 nats." in page
    assert "Temperatures, one per pattern, are fitted on 500 validation examples." in page


def test_a_model_of_anyone_has_a_page():
    results = analysed(example_results())
    page = report_page({key: results[key] for key in results if key not in ("seed", "stand_in", "timing", "versions")})
    assert "450 examples of the test split.</p>" in page


def test_an_older_report_has_no_sections_without_numbers():
    page = report_page(example_results())
    titles = re.findall("<h2>(.*?)</h2>", page)
    assert titles == [
        "What is lost when what is missing",
        "At every missing rate",
        "Expected in your deployment",
        "Every pattern",
        "What the words mean",
        "To reproduce it",
    ]
    assert "Expected in your deployment" not in report_page(all_undefined())


def test_pattern_shares_are_those_of_independent_losses():
    """Against every outcome, one after the other."""
    rates = {"a": 0.1, "b": 0.5, "c": 0.7}
    patterns = ["a+b+c", "a+b", "a+c", "b+c", "a", "b", "c"]
    expected = dict.fromkeys(patterns, 0.0)
    for there in itertools.product((True, False), repeat=3):
        chance = 1.0
        for kept, rate in zip(there, rates.values(), strict=True):
            chance *= 1 - rate if kept else rate
        left = [modality for modality, kept in zip(rates, there, strict=True) if kept]
        for survivors in [left] if left else [["a"], ["b"], ["c"]]:
            expected["+".join(survivors)] += chance if left else chance / 3
    found = pattern_shares(rates, patterns)
    assert found == pytest.approx(expected)
    assert sum(found.values()) == pytest.approx(1)


def test_the_mix_begins_at_the_deployment_weights():
    results = analysed(example_results())
    results["robustness"]["deployment"] = {"weights": {"image+audio": 0.8, "image": 0.2, "audio": 0.0}, "mean": 0.9842}
    mix = deployment_mix(results, "value", "lost")
    assert [(slider.title, slider.value) for slider in mix.sliders] == [
        ("everything there", 80),
        ("without audio", 20),
        ("without image", 0),
    ]
    assert (mix.value, mix.lost) == ("98.4", "\u22120.9")


# In a browser.

DEEP = """
const found = (root, selector) => [...root.querySelectorAll(selector)].concat(
  ...[...root.querySelectorAll("*")].filter((e) => e.shadowRoot).map((e) => found(e.shadowRoot, selector)))
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with started(tmp_path_factory.mktemp("chromium")) as chrome:
        yield chrome


class OpenPage:
    """The page of some results, as its reader sees it."""

    def __init__(self, browser, folder, results):
        self.browser = browser
        (folder / "report.html").write_text(report_page(results), encoding="utf-8")
        browser.get_log("browser")  # forgets that of the page before
        browser.get((folder / "report.html").as_uri())
        models = "document.querySelectorAll('script[type=\"application/json\"]').length"
        idle = f"Bokeh.documents.length == {models} && Bokeh.documents.every((one) => one.is_idle)"
        self.wait(lambda: browser.execute_script(f"return {idle}"))

    def wait(self, condition):
        from selenium.webdriver.support.wait import WebDriverWait

        return WebDriverWait(self.browser, 30, poll_frequency=0.05).until(lambda _: condition())

    def elements(self, selector):
        """All of them, also those within Bokeh's shadow roots."""
        return self.browser.execute_script(f"{DEEP} return found(document, arguments[0])", selector)

    def text(self, name):
        return self.browser.find_element("id", name).text

    def errors(self):
        return [entry for entry in self.browser.get_log("browser") if entry["level"] not in ("INFO", "DEBUG")]

    def column(self, number):
        """Cells of a column from the top row down."""
        script = """
            const cells = found(document, `.slick-cell.l${arguments[0]}`)
            const top = (cell) => cell.getBoundingClientRect().top
            return cells.sort((one, other) => top(one) - top(other)).map((cell) => cell.textContent)
        """
        return self.browser.execute_script(DEEP + script, number)

    def click_header(self, title):
        header = next(e for e in self.elements(".slick-header-column") if e.text == title)
        before = self.column(0)
        header.click()
        self.wait(lambda: self.column(0) != before)

    def press(self, element, key, changes):
        """Presses a key and waits until the text of the element named changes."""
        before = self.text(changes)
        element.send_keys(key)
        self.wait(lambda: self.text(changes) != before)

    def select(self, value, changes):
        from selenium.webdriver.support.select import Select

        before = self.text(changes)
        boxes = self.elements("select")
        box = next(box for box in boxes if value in [option.text for option in Select(box).options])
        Select(box).select_by_visible_text(value)
        self.wait(lambda: self.text(changes) != before)


@pytest.mark.parametrize("name", SCENES)
def test_it_opens_offline_without_an_error(name, browser, tmp_path):
    page = OpenPage(browser, tmp_path, SCENES[name])
    assert page.errors() == []
    assert browser.execute_script("return performance.getEntriesByType('resource')") == []
    # Each drawing is there, none of them wider than its place or without height.
    for box in page.elements(".drawing"):
        assert box.size["height"] > 50, box.get_attribute("id")
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")


def test_a_slider_moves_the_expected_value(browser, tmp_path):
    from selenium.webdriver.common.keys import Keys

    page = OpenPage(browser, tmp_path, analysed(example_results()))
    assert page.text("mix-value") == "97.1"
    handles = page.elements(".noUi-handle")
    page.press(handles[1], Keys.HOME, changes="mix-value")  # never without audio
    assert float(page.text("mix-value")) == pytest.approx((99.3 + 97.0) / 2, abs=0.051)
    page.press(handles[2], Keys.HOME, changes="mix-value")
    assert (page.text("mix-value"), page.text("mix-lost")) == ("99.3", "0.0")
    page.press(handles[0], Keys.HOME, changes="mix-value")
    assert (page.text("mix-value"), page.text("mix-lost")) == ("\u2013", "\u2013")
    assert page.errors() == []


def test_with_many_modalities_each_has_a_slider_for_its_rate(browser, tmp_path):
    from selenium.webdriver.common.keys import Keys

    results = analysed(six_modalities())
    page = OpenPage(browser, tmp_path, results)
    handles = page.elements(".noUi-handle")
    assert len(handles) == 6
    for handle in handles[:-1]:
        page.press(handle, Keys.HOME, changes="mix-value")
    page.press(handles[-1], Keys.END, changes="mix-value")
    assert page.text("mix-value") == "95.6", "all but the last view"
    for handle in handles[1:-1]:
        page.press(handle, Keys.END, changes="mix-value")
    assert page.text("mix-value") == f"{100 * results['patterns']['view_1']['accuracy']:.1f}"
    page.press(handles[0], Keys.END, changes="mix-value")
    alone = [results["patterns"][modality]["accuracy"] for modality in results["modalities"]]
    assert page.text("mix-value") == f"{100 * sum(alone) / 6:.1f}", "everything lost: any one stays"


def test_the_table_sorts_by_the_column_clicked(browser, tmp_path):
    results = analysed(three_modalities())
    page = OpenPage(browser, tmp_path, results)
    values = [100 * results["patterns"][pattern]["accuracy"] for pattern in patterns_by_size(results)]
    page.click_header("accuracy, %")
    assert page.column(2) == [f"{value:.1f}" for value in sorted(values)]
    page.click_header("accuracy, %")
    assert page.column(2) == [f"{value:.1f}" for value in sorted(values, reverse=True)]
    assert page.errors() == []


def test_what_is_selected_is_told(browser, tmp_path):
    page = OpenPage(browser, tmp_path, analysed(three_modalities()))
    page.select("everything there", changes="reliability-words")
    assert page.text("reliability-words").startswith("Before: ECE 2.2 %, NLL 0.345 nats. After, at temperature 1.37")
    page.select("audio and text", changes="rate-map-words")
    assert page.text("rate-map-words") == "Upwards: missing rate of audio. To the right: missing rate of text."
    assert page.errors() == []


def test_names_are_text_in_the_browser_too(browser, tmp_path):
    from selenium.webdriver.common.action_chains import ActionChains

    page = OpenPage(browser, tmp_path, hostile())
    for drawing, said in (("rate-map", "$$x^2$$"), ("shapley", "<img src=x")):
        element = browser.find_element("id", drawing)
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        ActionChains(browser).move_to_element(element).move_by_offset(90, -50).perform()
        page.wait(lambda said=said: any(said in shown.text for shown in page.elements(".bk-Tooltip")))
    assert page.elements("img, b, mjx-container") == []
    assert page.errors() == []
    assert browser.title.startswith("</script><b>dataset</b>")
