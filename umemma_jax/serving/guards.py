"""What stands before a server's routes: bounds on bodies and on time, and pages of other origins are kept out.

All of it is ASGI, so that a body is counted while it comes, not when it is in memory.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from starlette.requests import ClientDisconnect

from umemma_jax.serving.limits import Limits

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

GONE = 499  # status, in metrics alone, where a client has left before its request was whole
MOST_DIGITS = 18  # of a body's length: Python reads no number of thousands of them
HEADERS = [
    (b"content-security-policy", b"default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob: data:; "
     b"object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]  # fmt: skip


class Guard:
    """Answers in place of an app what must not reach it."""

    def __init__(
        self, app: App, limits: Limits, hosts: Sequence[str], observe: Callable[[str, int, float], None]
    ) -> None:
        """Takes what is guarded, and the limits.

        Args:
          app: that is guarded.
          limits: on requests.
          hosts: names that the server may be called by; none: any.
          observe: is told of each request its path, the status of its answer and the seconds it took.
        """
        self._app, self._limits, self._hosts, self._observe = app, limits, frozenset(hosts), observe

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status = time.perf_counter(), None

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        try:
            if refused := self._refused(scope):
                await respond(send_on, *refused)
                return
            async with asyncio.timeout(self._limits.seconds):
                await self._app(scope, _counted(receive, self._most_bytes), send_on)
        except ClientDisconnect:
            status = GONE
        except (TooLarge, TimeoutError) as error:
            if status is not None:
                raise
            late = isinstance(error, TimeoutError)
            refused = (408, f"took longer than {self._limits.seconds:g} s") if late else (413, self._too_large)
            await respond(send_on, *refused)
        finally:
            self._observe(scope["path"], status or 500, time.perf_counter() - begin)

    def _refused(self, scope: Message) -> tuple[int, str] | None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        host = headers.get(b"host", b"").decode("latin-1")
        if self._hosts and _name(host) not in self._hosts:
            return (
                421,
                f"this server is not called {host[:100]!r}: it is started with --allow-host=NAME for other names",
            )
        origin = headers.get(b"origin", b"").decode("latin-1")
        own = (f"http://{host}", f"https://{host}")
        if scope["method"] not in ("GET", "HEAD") and origin and origin not in own:
            return 403, "a page of another origin may not ask"
        if headers.get(b"content-encoding", b"identity") != b"identity":
            return 415, "bodies that are compressed are not taken"
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > MOST_DIGITS:
            return 400, "a length that is no number"
        return (413, self._too_large) if int(length) > self._most_bytes else None

    @property
    def _most_bytes(self) -> int:
        return int(self._limits.megabytes * 1e6)

    @property
    def _too_large(self) -> str:
        return f"the body is larger than {self._limits.megabytes:g} MB"


class TooLarge(Exception):
    """A body has more bytes than it may."""


def _counted(receive: Receive, most: int) -> Receive:
    count = 0

    async def receive_on() -> Message:
        nonlocal count
        message = await receive()
        count += len(message.get("body", b""))
        if count > most:
            raise TooLarge
        return message

    return receive_on


def _name(host: str) -> str:
    """A host without its port."""
    name, _, port = host.rpartition(":")
    return (name if port.isdigit() else host).strip("[]").lower()


async def respond(send: Send, status: int, reason: str) -> None:
    """An error in one line; the connection ends, since the rest of the body may still come."""
    body = json.dumps({"error": reason}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
