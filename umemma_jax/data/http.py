"""Web servers, read within bounds: fsspec alone takes whatever comes, unpacked, for as long as it comes."""

import sys
import time
from typing import Any

import aiohttp
from fsspec.implementations.http import HTTPFileSystem

from umemma_jax.addresses import redacted

_SILENCE = 30.0  # s without a byte, or without a connection
_GRACE = 60.0  # s after which an answer must have come at `_SLOWEST` bytes per second
_SLOWEST = 5_000
_TOLD = 10.0  # s between two messages about the progress


async def _client(**options: Any) -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_SILENCE, sock_read=_SILENCE)
    return aiohttp.ClientSession(**{"timeout": timeout, **options, "auto_decompress": False})


class WebServer(HTTPFileSystem):
    """fsspec's file system of web servers, with bounds."""

    def __init__(self, **options: Any) -> None:
        super().__init__(get_client=_client, **options)

    async def _cat_file(self, url: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        """Bytes `start` to `end` of a file, or its first `end` where `start` is None; some more if there are too many.

        Raises:
          FileNotFoundError: there is none.
          ValueError: what comes is not what was asked for.
          TimeoutError: it comes too slowly.
          aiohttp.ClientError: it does not come, or not to its end.
        """
        options = {**self.kwargs, **options}
        options["headers"] = {"Accept-Encoding": "identity", **options.get("headers", {})}
        if start is not None:
            options["headers"]["Range"] = f"bytes={start}-{end - 1}"
        session = await self.set_session()
        async with session.get(self.encode_url(url), **options) as answer:
            self._raise_not_found_for_status(answer, url)
            _check(answer, start)
            return await _body(answer, end - (start or 0))


def _check(answer: aiohttp.ClientResponse, start: int | None) -> None:
    packed = answer.headers.get("Content-Encoding", "identity")
    if packed != "identity":
        raise ValueError(f"the server sends it packed as {packed}, though asked not to")
    part = answer.headers.get("Content-Range", "")
    if answer.status == 206 and not part.startswith(f"bytes {start}-"):
        raise ValueError(f"the server sends {part or 'a part'} instead of what was asked for")


async def _body(answer: aiohttp.ClientResponse, most: int) -> bytes:
    """The body, or not much more than `most` bytes of it."""
    body, start = bytearray(), time.monotonic()
    told = start
    async for part in answer.content.iter_any():
        body += part
        now = time.monotonic()
        if len(body) > most:
            break
        if now - start > _GRACE and len(body) < (now - start) * _SLOWEST:
            raise TimeoutError(f"only {len(body)} bytes in {now - start:.0f} s")
        if now - told > _TOLD:
            told = now
            of = f" of {answer.content_length}" if answer.content_length else ""
            print(f"{redacted(str(answer.url))}: {len(body)}{of} bytes so far", file=sys.stderr, flush=True)
    return bytes(body)
