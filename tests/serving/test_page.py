"""The page in a real browser: every input, every switch."""

import contextlib
import threading
import time

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
import uvicorn

from tests.browser import started
from tests.data_prep import raw_clips
from tests.processes import free_port
from tests.serving.conftest import png, sound
from umemma_jax.data_prep.raw.media import content_of
from umemma_jax.patterns import pattern_name
from umemma_jax.serving.app import make_app

pytestmark = [pytest.mark.usefixtures("one_device"), pytest.mark.slow]
PATIENCE = 30  # seconds


@contextlib.contextmanager
def served(model):
    """The address of a server in a thread of this process."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(make_app(model), "127.0.0.1", port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def address(model):
    with served(model) as address:
        yield address


class Page:
    """What somebody sees and does."""

    def __init__(self, browser, address):
        self.browser = browser
        browser.get_log("browser")  # forgets that of the page before
        browser.get(address)
        self.until(lambda: browser.execute_script("return document.body.dataset.ready"))

    def until(self, happens):
        """Waits until a function gives something, and returns that."""
        end = time.monotonic() + PATIENCE
        while not (found := happens()):
            assert time.monotonic() < end, self.text("#answer")
            time.sleep(0.05)
        return found

    def find(self, selector):
        return self.browser.find_element("css selector", selector)

    def text(self, selector):
        return self.find(selector).text

    def switch(self, name):
        self.browser.execute_script("arguments[0].click()", self.find(f"[data-input='{name}']"))

    def answer_from(self, *used):
        """The answer, as soon as it is made of these inputs alone: what it says, and the row of the table."""
        wanted = f"from {' and '.join(used)};"
        self.until(lambda: wanted in self.text("#answer"))
        return self.text(".said"), self.text("#quality tr.now")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with started(tmp_path_factory.mktemp("chromium")) as chrome:
        yield chrome


@pytest.fixture
def page(browser, address):
    return Page(browser, address)


def test_every_switch_changes_the_answer_and_what_it_is_worth(page, model, tmp_path):
    (tmp_path / "x.png").write_bytes(png(1))
    (tmp_path / "x.wav").write_bytes(content_of(sound(1)))
    page.find("[name=photo]").send_keys(str(tmp_path / "x.png"))
    page.find("[name=clip]").send_keys(str(tmp_path / "x.wav"))
    page.find("[name=title]").send_keys("red thing number 4")
    page.find("[name=price]").send_keys("4.5")
    page.find("[name=colour]").send_keys("red")
    row = {"photo": png(1), "clip": sound(1), "title": "red thing number 4", "price": 4.5, "colour": "red"}
    check(page, model, row, model.modalities)
    answers = {page.text(".said")}
    for off in model.modalities:
        page.switch(off)
        kept = [m for m in model.modalities if m != off]
        check(page, model, {c: row[c] for m in kept for c in model.columns[m]}, kept)
        answers.add(page.text(".said"))
        page.switch(off)
        check(page, model, row, model.modalities)
    assert len(answers) > 2
    assert page.browser.get_log("browser") == []


def check(page, model, row, used):
    """The page says what Python says, and the row of that pattern is the one that is marked."""
    said, marked = page.answer_from(*used)
    expected = model.predict(row)
    assert said == f"{expected.prediction}, {100 * expected.probability:.1f} %"
    pattern = pattern_name([m in used for m in model.modalities], model.modalities)
    assert marked.startswith(pattern.replace("+", " + "))
    assert f"{100 * model.quality[pattern]:.1f} %" in marked


def test_a_picture_becomes_of_the_size_that_the_model_takes_and_what_is_required_stays_on(browser, digits, tmp_path):
    (tmp_path / "x.png").write_bytes(png(1))
    with served(digits) as address:
        page = Page(browser, address)
        page.find("[name=text]").send_keys("a b c")
        page.find("[name=digit]").send_keys(str(tmp_path / "x.png"))
        page.answer_from("digit", "text")
        page.switch("digit")
        page.answer_from("text")
        page.switch("text")
        assert page.find("[data-input=text]").is_selected()
        assert page.browser.get_log("browser") == []


def test_a_video_is_answered(browser, videos, tmp_path):
    raw_clips.write_clip(tmp_path / "x.mp4", 1)
    with served(videos) as address:
        page = Page(browser, address)
        page.find("[name=video]").send_keys(str(tmp_path / "x.mp4"))
        said, _ = page.answer_from("video")
        expected = videos.predict({"video": str(tmp_path / "x.mp4")})
        assert said == f"{expected.prediction}, {100 * expected.probability:.1f} %"
        assert page.browser.get_log("browser") == []


def test_a_microphone_records(page, model):
    (record,) = [
        button for button in page.browser.find_elements("css selector", ".drop button") if button.text == "Record"
    ]
    record.click()
    page.until(lambda: record.text == "Stop")
    time.sleep(0.5)  # of sound
    record.click()
    said, _ = page.answer_from("clip")
    assert said.split(",")[0] in model.classes
    assert page.browser.find_elements("css selector", ".drop audio")
    assert page.browser.get_log("browser") == []


def test_with_everything_off_there_is_nothing_to_say(page, model):
    page.find("[name=title]").send_keys("green")
    page.answer_from("title")
    page.switch("title")
    page.until(lambda: "Nothing is left" in page.text("#answer"))
    assert not page.browser.find_elements("css selector", "tr.now")


def test_what_the_server_refuses_is_said(page):
    page.find("[name=price]").send_keys("tall")
    page.until(lambda: "'tall' in column 'price' is no finite number" in page.text("#answer"))


def test_the_keyboard_is_enough_and_everything_has_a_name(page):
    switches = page.browser.find_elements("css selector", "[role=switch]")
    for switch in switches:
        assert switch.accessible_name.startswith("use ")
        before = switch.is_selected()
        switch.send_keys(" ")
        assert switch.is_selected() != before
    for control in page.browser.find_elements("css selector", "form input, form select, form textarea, form button"):
        assert control.accessible_name


def test_on_a_phone_nothing_is_wider_than_the_screen_and_the_answer_stays_in_sight(page):
    screen = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    page.find("[name=title]").send_keys("green")
    said, _ = page.answer_from("title")
    assert page.browser.execute_script("return document.documentElement.scrollWidth") <= 390
    assert page.text("#summary").startswith(said)
    page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
