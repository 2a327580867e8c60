"""The command line of the server."""

import contextlib
import os
import signal
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

from tests.processes import free_port
from umemma_jax import predictor
from umemma_jax.errors import UserError
from umemma_jax.serving.__main__ import main

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

PATIENCE = 60  # seconds
HEADERS = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "--model"),
        (["--model=nowhere"], "nowhere: no such folder"),
        (["--model=x", "--batch=0"], "--batch=0: is not above 0"),
        (["--model=x", "--timeout=nan"], "--timeout=nan: is not above 0"),
        (["--model=x", "--port=high"], "--port: invalid int value: 'high'"),
        (["--model=x", "--prot=8000"], "unrecognized arguments: --prot=8000"),
    ],
)
def test_a_mistake_is_said_in_one_line(arguments, reason):
    with pytest.raises(UserError, match=reason):
        main(arguments)


@pytest.mark.usefixtures("one_device")
def test_a_server_that_is_asked_to_end_answers_first(model, monkeypatch):
    """SIGTERM comes while requests are at work."""
    port, statuses, made = free_port(), [], []
    working, ended = threading.Event(), threading.Event()
    said = model.said

    def slowly(examples):
        working.set()
        ended.wait(PATIENCE)
        return said(examples)

    def ask():
        request = urllib.request.Request(f"http://127.0.0.1:{port}/predict", b'{"title": "x"}', HEADERS)
        while not statuses:
            with contextlib.suppress(ConnectionError, urllib.error.URLError), urllib.request.urlopen(request) as answer:
                statuses.append(answer.status)
            time.sleep(0.01)

    def end():
        working.wait(PATIENCE)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)  # so that uvicorn sees it while the request is at work
        ended.set()

    monkeypatch.setattr(predictor, "load", lambda folder: model)
    monkeypatch.setattr(model, "said", slowly)
    monkeypatch.setattr(model, "compile", made.append)
    threads = [threading.Thread(target=do, daemon=True) for do in (ask, end)]
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for thread in threads:
            thread.start()
        main(["--model=x", f"--port={port}", "--warm-up=5"])
    finally:
        signal.signal(signal.SIGTERM, before)
    for thread in threads:
        thread.join(PATIENCE)
    assert statuses == [200]
    assert made == [1, 2, 4, 8]  # rows of the programs


def test_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(UserError, match=r"umemma serve: needs uvicorn, .*pip install 'umemma_jax\[serve\]'"):
        main(["--model=x"])
