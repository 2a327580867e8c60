"""Requests that come together are computed together, by one thread, from a queue that does not grow without bound."""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from umemma_jax.by_pattern import Said
from umemma_jax.data.kinds import Stored

Example = Mapping[str, Stored]


class Full(Exception):
    """There is no room in the queue."""


class _Request(NamedTuple):
    examples: Sequence[Example]
    answer: asyncio.Future
    loop: asyncio.AbstractEventLoop


class Batcher:
    """One thread that runs a model.

    Attributes:
      waiting: requests in the queue.
      works: whether the thread is there.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Example]], Said],
        rows: int,
        milliseconds: float,
        most_waiting: int,
        observe: Callable[[int, float], Any] = lambda rows, seconds: None,
    ) -> None:
        """Starts the thread.

        Args:
          run: the model.
          rows: most that are computed together, but for a request that has more by itself; 1: no request waits for
            others.
          milliseconds: that the first of them waits for others.
          most_waiting: requests in the queue.
          observe: is told the rows of each batch, and the seconds it took.
        """
        self._run, self._rows, self._patience = run, rows, milliseconds / 1000
        self._observe = observe
        self._queue: queue.Queue[_Request | None] = queue.Queue(most_waiting)
        self._left_over: _Request | None = None
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._queue.qsize()

    @property
    def works(self) -> bool:
        """Whether the thread is there."""
        return self._thread.is_alive()

    async def __call__(self, examples: Sequence[Example]) -> Said:
        """What the model says of N examples. Raises Full, and whatever the model does."""
        loop = asyncio.get_running_loop()
        request = _Request(examples, loop.create_future(), loop)
        try:
            self._queue.put_nowait(request)
        except queue.Full as error:
            raise Full from error
        return await request.answer

    def close(self) -> None:
        """Ends the thread when all that waits is answered."""
        self._queue.put(None)
        self._thread.join()

    # --- in the thread --------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while requests := self._together():
            requests = [request for request in requests if not request.answer.done()]  # whoever asked may have gone
            if not requests:
                continue
            examples = [example for request in requests for example in request.examples]
            begin = time.perf_counter()
            try:
                said, error = self._run(examples), None
            except Exception as failure:  # goes to those who have asked
                said, error = None, failure
            self._observe(len(examples), time.perf_counter() - begin)
            start = 0
            for request in requests:
                stop = start + len(request.examples)
                _tell(request, None if said is None else _rows(said, slice(start, stop)), error)
                start = stop

    def _together(self) -> list[_Request]:
        """Requests to compute in one batch; none when the thread is to end."""
        first = self._left_over or self._queue.get()
        self._left_over = None
        if first is None:
            return []
        requests, rows = [first], len(first.examples)
        until = time.monotonic() + self._patience
        while rows < self._rows:
            try:
                request = self._queue.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if request is None:
                self._queue.put(None)  # for the next time
                break
            if rows + len(request.examples) > self._rows:
                self._left_over = request
                break
            requests.append(request)
            rows += len(request.examples)
        return requests


def _rows(said: Said, rows: slice) -> Said:
    def cut(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: x[rows] for name, x in arrays.items()}

    return Said(said.present[rows], cut(said.features), cut(said.unimodal), said.logits[rows])


def _tell(request: _Request, said: Said | None, error: Exception | None) -> None:
    def tell() -> None:
        if request.answer.done():
            return
        if error is None:
            request.answer.set_result(said)
        else:
            request.answer.set_exception(error)

    request.loop.call_soon_threadsafe(tell)
