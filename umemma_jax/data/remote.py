"""Files behind URLs, as paths: the part of `pathlib.Path` that reading a dataset takes, and byte ranges.

fsspec knows how to speak to web servers and object stores; the packages that it takes are the extra `cloud`. What a
store has to be told besides the URL is told to fsspec: in the environment, such as `FSSPEC_S3_ANON=true`, or in files
in `~/.config/fsspec`.
"""

import logging
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from umemma_jax.addresses import redacted
from umemma_jax.data import bounds
from umemma_jax.errors import UserError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # of two slashes pathlib leaves one
_PAUSES = (1.0, 4.0)  # s before HTTP is asked again for what failed; other back ends see to that themselves
_S3_CONNECTIONS = 100  # at most; by default they are 10, and a batch's records stand in line
_FINAL = (FileNotFoundError, PermissionError, ValueError)  # which asking again would not mend
_PATIENCE, _SLOWEST, _LONGEST = 60.0, 50_000, 1800  # s for an answer, and for its bytes per second; s in all


class RemotePath:
    """A file behind a URL, or the folder that it is in; made by `locate`.

    A file is read whole only once: paths made from one another share what they have read. As a string it is `redacted`.
    """

    def __init__(self, url: str, store: "_Store") -> None:
        self._url = url
        self._store = store

    def __truediv__(self, name: str) -> "RemotePath":
        return RemotePath(f"{self._url}/{name}", self._store)

    def __str__(self) -> str:
        return redacted(self._url)

    def __repr__(self) -> str:
        return f"RemotePath({self})"

    @property
    def name(self) -> str:
        """What follows the last slash."""
        return self._url.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The ending of the name, with its dot."""
        return os.path.splitext(self.name)[1]

    def with_name(self, name: str) -> "RemotePath":
        """The path of a file beside this one."""
        return RemotePath(f"{self._url.rpartition('/')[0]}/{name}", self._store)

    def exists(self) -> bool:
        """Whether there is such a file. Reads it: meant for small ones."""
        return self._store.whole([self._url], [bounds.FILE_BYTES], optional=True)[0] is not None

    is_file = exists

    def is_dir(self) -> bool:
        """Whether this may be a folder, of which stores know nothing: whether there is no such file."""
        return not self.exists()

    def read_bytes(self, bound: int = bounds.FILE_BYTES) -> bytes:
        """The whole file. Raises UserError if it cannot be read, or has more bytes than the bound."""
        return self._store.whole([self._url], [bound])[0]

    def read_text(self, encoding: str) -> str:
        """The whole file. Raises UserError if it cannot be read, ValueError if it is not of that encoding."""
        return self.read_bytes().decode(encoding)

    @staticmethod
    def read_all(paths: "Sequence[RemotePath]", bounds: Sequence[int]) -> list[bytes]:
        """Whole files of one folder, all asked for at the same time. Raises UserError as `read_bytes`."""
        return paths[0]._store.whole([path._url for path in paths], bounds) if paths else []

    @staticmethod
    def read_ranges(paths: "Sequence[RemotePath]", starts: Sequence[int], ends: Sequence[int]) -> list[bytes]:
        """Bytes `start` to `end` of files of one folder, all asked for at the same time.

        Returns:
          What was asked for, or less of it where a file ends before.

        Raises:
          UserError: a file cannot be read, or its server sends the whole instead of a part.
        """
        return paths[0]._store.ranges([path._url for path in paths], starts, ends) if paths else []


Location = Path | RemotePath


def locate(place: str | os.PathLike | RemotePath) -> Location:
    """Where to read from: a `Path` on this machine (of file:// too), or a `RemotePath` for any other URL.

    Raises UserError if fsspec does not know that kind of URL, or lacks a package for it.
    """
    if isinstance(place, RemotePath):
        return place
    text = os.fspath(place)
    if text.startswith("file://"):
        return Path(url2pathname(urlsplit(text).path))
    if not (is_url(text) and "://" in text):
        return Path(text)
    url, _, query = text.partition("?") if text.startswith("http") else (text, "", "")
    return RemotePath(url.rstrip("/"), _Store(url, query))


def is_url(place: str | os.PathLike) -> bool:
    """Whether it begins like a URL, or like what pathlib leaves of one."""
    return bool(_URL.match(os.fspath(place)))


class _Store:
    """A file system of fsspec, and the whole files that were read from it."""

    def __init__(self, url: str, query: str = "") -> None:
        """Takes the address of a folder, and what follows that of each of its files, such as a signature.

        Raises UserError if fsspec cannot make it.
        """
        self._files = _file_system(url)
        self._query = f"?{query}" if query else ""
        self._pauses = (0.0, *_PAUSES) if url.startswith("http") else (0.0,)
        self._whole: dict[str, bytes] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_whole": {}}

    def whole(self, urls: Sequence[str], most: Sequence[int], optional: bool = False) -> list[bytes | None]:
        """The files' content, of so many bytes at most; with `optional`, None of a file that does not exist."""
        new = {url: bound for url, bound in zip(urls, most, strict=True) if url not in self._whole}
        _check_size(urls[0], sum(new.values()), bounds.FILE_BYTES)
        ends = [bounds.most(bound) + 1 for bound in new.values()]  # one more tells that there is more
        for url, answer in zip(new, self._ask(list(new), [None] * len(new), ends), strict=True):
            if not (optional and isinstance(answer, FileNotFoundError)):
                _check_size(url, len(_bytes(url, answer)), new[url])
                self._whole[url] = answer
        return [self._whole.get(url) for url in urls]

    def ranges(self, urls: Sequence[str], starts: Sequence[int], ends: Sequence[int]) -> list[bytes]:
        """As `RemotePath.read_ranges`."""
        answers = self._ask(urls, starts, ends)
        for url, start, end, answer in zip(urls, starts, ends, answers, strict=True):
            if len(_bytes(url, answer)) > end - start:
                raise UserError(
                    f"{redacted(url)}: the server sends more than the {end - start} bytes asked for: use one "
                    "that answers range requests (python -m http.server does not)"
                )
        return answers

    def _ask(
        self, urls: Sequence[str], starts: Sequence[int | None], ends: Sequence[int | None]
    ) -> list[bytes | Exception]:
        """Each range, or why it could not be had; what may have been bad luck is asked for again, while there is time.

        A range that starts at None is a whole file, and its end the most that is read of it.
        """
        answers: list[bytes | Exception] = [b""] * len(urls)
        missing = list(range(len(urls)))
        size = sum(end - (start or 0) for start, end in zip(starts, ends, strict=True))
        deadline = time.monotonic() + min(_PATIENCE + size / _SLOWEST, bounds.most(_LONGEST))
        for pause in self._pauses:
            if not missing or time.monotonic() + pause >= deadline:
                break
            if pause:
                again = missing[0]
                print(f"{redacted(_why(urls[again], answers[again]))}: asked for again", file=sys.stderr, flush=True)
                time.sleep(pause)
            asked = [[values[i] for i in missing] for values in (urls, starts, ends)]
            for i, answer in zip(missing, self._ask_once(*asked, deadline - time.monotonic()), strict=True):
                answers[i] = answer
            missing = [i for i in missing if isinstance(answers[i], Exception) and not isinstance(answers[i], _FINAL)]
        return answers

    def _ask_once(
        self, urls: list[str], starts: list[int | None], ends: list[int | None], seconds: float
    ) -> Sequence[bytes | Exception]:
        try:
            if self._files.async_impl:
                return _within(self._files, seconds, [url + self._query for url in urls], starts, ends)
            return self._files.cat_ranges([url + self._query for url in urls], starts, ends, on_error="return")
        except Exception as error:  # of the back end's own kind, such as one of credentials
            return [error] * len(urls)


def _file_system(url: str) -> Any:
    import fsspec  # here, since datasets on this machine do without

    for back_end in ("fsspec", "gcsfs", "s3fs"):  # which log, with tracebacks, what they also raise
        logger = logging.getLogger(back_end)
        logger.setLevel(logger.level or logging.CRITICAL)
    options = {}
    if url.startswith("s3://"):
        given = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
        options["config_kwargs"] = {"max_pool_connections": _S3_CONNECTIONS, **given}
    try:
        if url.startswith(("http://", "https://")):
            from umemma_jax.data.http import WebServer

            return WebServer()
        return fsspec.url_to_fs(url, **options)[0]
    except ImportError as error:
        raise UserError(
            f"{redacted(url)}: a package that this kind of URL takes is not installed ({error}): "
            "pip install 'umemma_jax[cloud]' brings those of gs, s3 and https"
        ) from error
    except Exception as error:  # each back end has its own
        raise UserError(redacted(f"{url}: cannot be opened ({_line(error)}): check the address")) from error


def _bytes(url: str, answer: bytes | Exception) -> bytes:
    """The answer; raises UserError if it is that there is none."""
    if not isinstance(answer, Exception):
        return answer
    if isinstance(answer, FileNotFoundError):
        raise UserError(f"{redacted(url)}: not found: check the address, and that the whole folder was copied there")
    raise UserError(
        redacted(f"{_why(url, answer)}: check the network, and the credentials if the store asks for any")
    ) from answer


def _check_size(url: str, size: int, bound: int) -> None:
    try:
        bounds.check("bytes", size, bound)
    except ValueError as error:
        raise UserError(f"{redacted(url)}: {error}") from error


def _why(url: str, error: Exception) -> str:
    return f"{url}: cannot be read ({_line(error)})"


def _within(files: Any, seconds: float, *ranges: Sequence[Any]) -> Sequence[bytes | Exception]:
    """What `cat_ranges` of an asynchronous file system gives. Raises TimeoutError after so many seconds."""
    import asyncio

    from fsspec.asyn import sync

    async def ask() -> Sequence[bytes | Exception]:
        try:
            return await asyncio.wait_for(files._cat_ranges(*ranges, on_error="return"), seconds)
        except TimeoutError as error:
            raise TimeoutError(f"no whole answer in {seconds:.0f} s") from error

    return sync(files.loop, ask)


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
