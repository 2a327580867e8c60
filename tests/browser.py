"""Debian's Chromium without any network but this machine's."""

import contextlib
import shutil

import pytest


@contextlib.contextmanager
def started(profile):
    """A browser driven by Selenium, whose profile goes into a folder; without one the test is skipped."""
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        *("headless", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "disable-quic", "no-first-run"),
        *("disable-background-networking", "disable-component-update", "disable-sync", "window-size=1200,1000"),
        # A microphone that beeps, and that needs no permission.
        *("use-fake-device-for-media-stream", "use-fake-ui-for-media-stream"),
        *(f"user-data-dir={profile}", "host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"),
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # Both paths are given, so that Selenium does not look for a driver to download.
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as chrome:
        yield chrome
