"""The server under load, with and without batching, and under what nobody should send.

python -m benchmarks.serving --model=DIR [--seconds=60] [--concurrency=200]

Clients in a process of their own ask again as soon as they are answered, with a row that has all inputs, or any part of
them. A table says how many were answered, how long that took, and what memory the server had at the beginning and at
the end. Then come requests that are too large, damaged, of wrong types or without end, and what they are answered.
"""

import argparse
import asyncio
import base64
import collections
import contextlib
import io
import itertools
import json
import random
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from PIL import Image

from umemma_jax import command
from umemma_jax.data_prep.raw.media import content_of

WARM_UP = 5.0  # seconds, of all that is compiled for batches
PATHS = (
    "/etc/passwd",
    "../../../etc/passwd",
    "file:///etc/passwd",
    "http://127.0.0.1/x",
    "/proc/self/mem",
    "/dev/zero",
)
POST = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\n"
FILES = {"image": "png", "audio": "wav", "video": "png"}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser("benchmarks.serving")
    parser.add_argument("--model", required=True, metavar="DIR")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--concurrency", type=int, default=200)
    options = parser.parse_args(argv)
    print("| batches of | answered | lost | a second | p50, ms | p99, ms | memory, MB |\n|---|---|---|---|---|---|---|")
    for batch in (32, 1):
        with served(options.model, "--batch", str(batch), "--timeout", "300") as (port, process):
            rows = requests_of(port)
            asyncio.run(load(port, rows, options.concurrency, WARM_UP))
            before = memory(process.pid)
            latencies, lost = asyncio.run(load(port, rows, options.concurrency, options.seconds))
            p50, p99 = (1000 * np.percentile(latencies, q) for q in (50, 99))
            figures = f"{len(latencies) / options.seconds:.0f} | {p50:.0f} | {p99:.0f}"
            print(
                f"| {batch} | {len(latencies)} | {lost} | {figures} | {before:.0f} -> {memory(process.pid):.0f} |",
                flush=True,
            )
    with served(options.model, "--timeout", "5", "--max-body", "1") as (port, process):
        hostile(port, requests_of(port)[0])
        alive = process.poll() is None and asyncio.run(load(port, requests_of(port), 1, 1.0))[1] == 0
        print(f"the server {'answers as before' if alive else 'is gone'}, memory {memory(process.pid):.0f} MB")


@contextlib.contextmanager
def served(model: str, *options: str) -> Iterator[tuple[int, subprocess.Popen]]:
    """A server in a process of its own: its port and process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command_line = [sys.executable, "-m", "umemma_jax.serving", f"--model={model}", f"--port={port}", *options]
    process = subprocess.Popen(command_line, stdout=subprocess.DEVNULL)
    try:
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health"):
                break
            if process.poll() is not None:
                raise SystemExit(f"the server has ended with {process.returncode}")
            time.sleep(0.2)
        yield port, process
    finally:
        process.terminate()
        process.wait()


def memory(pid: int) -> float:
    """Of a process, resident, in megabytes."""
    (line,) = (x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) / 1000


# --- requests that should be answered ---------------------------------------------------------------------------------


def requests_of(port: int) -> list[bytes]:
    """Bodies in JSON, one for each part of the inputs that a row may have; the first has all."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/model") as answer:
        inputs = json.load(answer)["inputs"]
    values = {x["name"]: {field["name"]: value(x, field) for field in x["fields"]} for x in inputs}
    parts = itertools.chain.from_iterable(itertools.combinations(values, n) for n in range(len(values), 0, -1))
    return [json.dumps({k: v for m in part for k, v in values[m].items()}).encode() for part in parts]


def value(of_input: dict[str, Any], field: dict[str, Any]) -> Any:
    """Anything that a field takes."""
    rng, kind = np.random.default_rng(0), of_input["kind"]
    if kind == "audio":
        sound = rng.integers(-9000, 9000, 8000).astype(np.int16), 8000
        return base64.b64encode(content_of(sound)).decode()
    if kind in FILES:
        return base64.b64encode(picture(*(of_input.get("size") or (64, 64)))).decode()
    if kind == "text":
        return "a few words of a text"
    return field["levels"][0] if field["levels"] else 1.5


def picture(height: int, width: int) -> bytes:
    """A PNG of one colour."""
    buffer = io.BytesIO()
    Image.new("L", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


async def load(port: int, rows: Sequence[bytes], concurrency: int, seconds: float) -> tuple[list[float], int]:
    """Seconds that each answer took, and how many requests had none."""
    end, latencies, lost = time.perf_counter() + seconds, [], 0
    headers, url = {"content-type": "application/json"}, f"http://127.0.0.1:{port}/predict"

    async def client(number: int, session: aiohttp.ClientSession) -> None:
        nonlocal lost
        draw = random.Random(number)
        while (begin := time.perf_counter()) < end:
            try:
                async with session.post(url, data=draw.choice(rows), headers=headers) as answer:
                    await answer.read()
                    lost += answer.status != 200
            except (aiohttp.ClientError, TimeoutError):
                lost += 1
            latencies.append(time.perf_counter() - begin)

    connector, timeout = aiohttp.TCPConnector(limit=concurrency), aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        await asyncio.gather(*(client(number, session) for number in range(concurrency)))
    return latencies, lost


# --- and those that should not ----------------------------------------------------------------------------------------


def hostile(port: int, good: bytes) -> None:
    """Sends what nobody should, and prints how often each kind was answered by which status."""
    rng = random.Random(0)
    counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    for kind, content in itertools.chain(bodies(good, rng), (("slow client", None),) * 3):
        counts[kind][slow(port) if content is None else status(port, content)] += 1
    print("\n| what is sent | answers by status |\n|---|---|")
    for kind, found in counts.items():
        print(f"| {kind} | {', '.join(f'{n} x {code}' for code, n in sorted(found.items()))} |", flush=True)


def bodies(good: bytes, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """A kind, and a request with its headers."""
    row = json.loads(good)
    paths = [
        "/etc/passwd",
        "../../../etc/passwd",
        "file:///etc/passwd",
        "http://127.0.0.1/x",
        "/proc/self/mem",
        "/dev/zero",
    ]
    for name in row:
        for path in paths:
            yield "a path for a value", of_json(json.dumps({name: path}).encode())
            yield "a path in base64", of_json(json.dumps({name: base64.b64encode(path.encode()).decode()}).encode())
        for wrong in ([], {}, [[1]], {"a": 1}, True, 10**400, -1e308, "\0", "\ud800", None):
            yield "a value of another type", of_json(json.dumps({name: wrong}).encode())
        bomb = base64.b64encode(picture(9000, 9000)).decode()
        yield "a picture of 81 million pixels", of_json(json.dumps({name: bomb}).encode())
    for _ in range(50):
        yield "cut anywhere", of_json(good[: rng.randrange(len(good))])
        flipped = bytearray(good)
        for _ in range(5):
            flipped[rng.randrange(len(flipped))] = rng.randrange(256)
        yield "five bytes changed", of_json(bytes(flipped))
        yield "noise", of_json(rng.randbytes(200))
        yield "noise for a request", rng.randbytes(200) + b"\r\n\r\n"
    yield "nested 100,000 deep", of_json(b"[" * 100_000)
    yield "NaN", of_json(b'{"x": NaN}')
    yield "more than a megabyte", of_json(b'"' + b"x" * 1_100_000 + b'"')
    yield "100 MB by its header", POST + b"Content-Length: 100000000\r\n\r\n"
    yield "a header of 100 kB", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"
    yield "another origin", of_json(good, b"Origin: http://elsewhere.example\r\n")
    yield "another host", of_json(good).replace(b"Host: 127.0.0.1", b"Host: elsewhere.example")
    yield "a path of the server", b"GET /../../etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    form = b"".join(b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' for _ in range(2000)) + b"--x--\r\n"
    yield "a form of 2,000 parts", request(form, b"multipart/form-data; boundary=x")
    yield "a form without an end", request(form[:100], b"multipart/form-data; boundary=x")


def of_json(body: bytes, headers: bytes = b"") -> bytes:
    """A request of that body."""
    return request(body, b"application/json", headers)


def request(body: bytes, form: bytes, headers: bytes = b"") -> bytes:
    """A POST as it goes over the wire."""
    head = (
        b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: " + form + b"\r\n" + headers
    )
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def status(port: int, content: bytes) -> str:
    """Of the answer; "closed" where there is none."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(content)
        try:
            words = connection.recv(100).split()
        except OSError:
            words = []
    return words[1].decode() if len(words) > 1 else "closed"


def slow(port: int) -> str:
    """As `status`, of a client that sends a byte a second."""
    head = (
        b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(head)
        for _ in range(30):
            try:
                connection.sendall(b"x")
                words = connection.recv(100).split()
                return words[1].decode() if len(words) > 1 else "closed"
            except TimeoutError:
                continue
            except OSError:
                return "closed"
    return "waits"


if __name__ == "__main__":
    command.run(main)
