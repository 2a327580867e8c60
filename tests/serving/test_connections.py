"""Clients that do not say what they want are left; those that do, however slowly, are answered."""

import contextlib
import socket
import threading
import time

import pytest

uvicorn = pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

from tests.processes import free_port  # noqa: E402
from umemma_jax.serving.connections import Connection  # noqa: E402

PATIENCE = 60  # seconds
HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


async def app(scope, receive, send):
    """Answers 204."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})


@pytest.fixture(scope="module")
def port():
    port = free_port()
    config = uvicorn.Config(app, "127.0.0.1", port, http=Connection, ws="none", timeout_keep_alive=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield port
    server.should_exit = True
    thread.join()


@pytest.fixture
def client(port):
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        yield connection


@pytest.mark.parametrize("sent", [b"", b"GET / HT", HEAD])
def test_a_head_that_does_not_come_ends_the_connection(client, sent):
    client.sendall(sent)
    assert client.recv(100) == b""


def test_nor_does_one_that_comes_a_line_at_a_time(client):
    client.sendall(HEAD)
    client.settimeout(0.1)
    end = time.monotonic() + PATIENCE
    with contextlib.suppress(ConnectionError):
        while time.monotonic() < end:
            client.sendall(b"X: y\r\n")
            try:
                assert client.recv(100) == b""
                break
            except TimeoutError:
                continue
    assert time.monotonic() < end


def test_several_requests_of_one_connection_are_answered(client):
    for _ in range(3):
        client.sendall(HEAD[:9])
        client.sendall(HEAD[9:] + b"\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 204")
