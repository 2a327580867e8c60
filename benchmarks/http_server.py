"""A web server for a folder, as far from here as one likes, that answers range requests, which Python's own does not.

python -m benchmarks.http_server DIR [--latency=SECONDS]

It prints its address, and serves until it is ended.
"""

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from umemma_jax import command


class RangeHandler(SimpleHTTPRequestHandler):
    """Files of the server's folder, whole or in part."""

    protocol_version = "HTTP/1.1"  # connections are kept
    disable_nagle_algorithm = True
    wbufsize = 1 << 16  # header and body go together

    def do_GET(self) -> None:
        """Sends a file, or bytes of it, or only what comes before."""
        time.sleep(self.server.latency)
        path = self.server.folder / self.path.partition("?")[0].strip("/")
        if not path.is_file():
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        size = path.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        start, last = map(int, asked.groups()) if asked else (0, size - 1)
        if asked and start >= size:
            self.send_error(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            return
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(last + 1 - start)
        self.send_response(HTTPStatus.PARTIAL_CONTENT if asked else HTTPStatus.OK)
        self.send_header("Content-Length", str(len(data)))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{start + len(data) - 1}/{size}")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    do_HEAD = do_GET

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""


class RangeServer(ThreadingHTTPServer):
    """Serves a folder on a free port of this machine."""

    request_queue_size = 256  # connections that come at the same time
    daemon_threads = True

    def __init__(
        self, folder: Path, latency: float = 0.0, handler: type[SimpleHTTPRequestHandler] = RangeHandler
    ) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.folder, self.latency = folder, latency

    @property
    def url(self) -> str:
        """Of the folder."""
        return f"http://127.0.0.1:{self.server_port}"


@contextlib.contextmanager
def serving(folder: Path, latency: float = 0.0) -> Iterator[str]:
    """Serves a folder from another process, each answer so many seconds late; gives its URL."""
    words = [sys.executable, "-m", "benchmarks.http_server", str(folder), f"--latency={latency}"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = command.Parser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds until an answer, default %(default)s")
    arguments = parser.parse_args(argv)
    with RangeServer(arguments.folder, arguments.latency) as server:
        print(server.url, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    command.run(main)
