"""Web servers that do harm: a dataset behind one ends in one line, in bounded time and memory."""

import gzip
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.http_server import RangeHandler, RangeServer
from tests.data.conftest import make_examples, write_dataset
from umemma_jax.data import bounds, remote
from umemma_jax.data.dataset import Dataset, open_dataset
from umemma_jax.errors import UserError

http = pytest.importorskip("umemma_jax.data.http", reason="aiohttp is not installed (extra `cloud`)")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Seconds become tenths."""
    monkeypatch.setattr(remote, "_PAUSES", (0.0, 0.0))
    monkeypatch.setattr(remote, "_PATIENCE", 3.0)
    monkeypatch.setattr(http, "_SILENCE", 0.3)
    monkeypatch.setattr(http, "_GRACE", 0.5)
    monkeypatch.setattr(bounds, "JSON_BYTES", 1 << 20)
    monkeypatch.setattr(remote, "_LONGEST", 3.0)


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory) -> Dataset:
    return write_dataset(tmp_path_factory.mktemp("data") / "small", train=make_examples(20), test=make_examples(3))


class Harmful(RangeHandler):
    """Answers as the server's `harm` does where the file's name contains its `name`, and rightly elsewhere."""

    def do_GET(self):
        if self.server.name in self.path:
            self.server.harm(self)
        else:
            super().do_GET()

    def start(self, status: int = 200, **headers: object) -> None:
        """Sends the beginning of an answer."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.flush()


def endless(handler: Harmful) -> None:
    handler.start()
    while True:
        handler.wfile.write(b"[" * 100_000)


def endless_chunks(handler: Harmful) -> None:
    handler.start(Transfer_Encoding="chunked")
    while True:
        handler.wfile.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")


def slow(handler: Harmful) -> None:
    handler.start(Content_Length=1000)
    for _ in range(1000):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.1)


def silent(handler: Harmful) -> None:
    time.sleep(5)


def silent_in_the_middle(handler: Harmful) -> None:
    handler.start(Content_Length=1000)
    handler.wfile.write(b"{")
    handler.wfile.flush()
    time.sleep(5)


def cut(handler: Harmful) -> None:
    handler.start(Content_Length=100_000)
    handler.wfile.write(b"{}")


def longer(handler: Harmful) -> None:
    handler.start(Content_Length=10**12)
    while True:
        handler.wfile.write(b" " * 100_000)


PACKED = gzip.compress(bytes(200 << 20), 1)


def packed(handler: Harmful) -> None:
    handler.start(Content_Encoding="gzip", Content_Length=len(PACKED))
    handler.wfile.write(PACKED)


def to_a_file(handler: Harmful) -> None:
    handler.start(302, Location="file:///etc/passwd", Content_Length=0)


def in_circles(handler: Harmful) -> None:
    handler.start(302, Location=handler.path, Content_Length=0)


def another_part(handler: Harmful) -> None:
    handler.start(206, Content_Range="bytes 0-3/1000", Content_Length=4)
    handler.wfile.write(b"abcd")


def endless_error(handler: Harmful) -> None:
    handler.start(500)
    while True:
        handler.wfile.write(b"x" * 100_000)


def no_http(handler: Harmful) -> None:
    handler.wfile.write(b"\0" * 1000)
    handler.close_connection = True


@pytest.fixture
def serve(on_disk: Dataset) -> Iterator:
    """A function that serves the dataset, with harm done to some of its files; gives the URL."""
    servers = []

    def start(name: str, harm) -> str:
        server = RangeServer(on_disk.path, handler=Harmful)
        server.name, server.harm, server.handle_error = name, harm, lambda *_: None
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server.url

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def peak() -> int:
    """Bytes that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


HARMS = {
    endless: "more than",
    endless_chunks: "more than",
    longer: "more than",
    slow: "TimeoutError",
    silent: "Timeout",
    silent_in_the_middle: "Timeout",
    cut: "ClientPayloadError",
    packed: "the server sends it packed as gzip, though asked not to",
    to_a_file: "NonHttpUrlRedirect",
    in_circles: "TooManyRedirects",
    endless_error: "500",
    no_http: "cannot be read",
}


@pytest.mark.parametrize("name", ["dataset.json", ".index", "rows.npz", "statistics.npz"])
@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_whole_files(serve, name: str, harm):
    url = serve(name, harm)
    before = peak()
    with pytest.raises(UserError, match=rf"{name}.*{HARMS[harm]}") as caught:
        dataset = open_dataset(url)
        _ = dataset.statistics, dataset.source("train")
    assert "\n" not in str(caught.value)
    assert peak() - before < 100 << 20


@pytest.mark.parametrize("harm", [*HARMS, another_part], ids=lambda harm: harm.__name__)
def test_shards(serve, harm):
    messages = HARMS | {slow: "more than the 4 bytes", another_part: "ValueError: the server sends bytes 0-3/1000 inst"}
    url = serve(".tfrecord", harm)
    before = peak()
    with pytest.raises(UserError, match=rf"tfrecord.*{messages[harm]}") as caught:
        open_dataset(url)
    assert "\n" not in str(caught.value)
    assert peak() - before < 100 << 20


def test_a_long_answer_tells_how_far_it_is(serve, on_disk: Dataset, monkeypatch, capfd):
    monkeypatch.setattr(http, "_TOLD", 0.0)
    data = (on_disk.path / "dataset.json").read_bytes()

    def in_parts(handler: Harmful) -> None:
        handler.start(Content_Length=len(data))
        for start in range(0, len(data), 1000):
            handler.wfile.write(data[start : start + 1000])
            handler.wfile.flush()
            time.sleep(0.02)

    url = serve("dataset.json", in_parts)
    assert open_dataset(url).info == on_disk.info
    assert f"{url}/dataset.json: 1000 of {len(data)} bytes so far" in capfd.readouterr().err
