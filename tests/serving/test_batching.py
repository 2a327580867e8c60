"""Requests that come together are computed together, and each gets its own rows."""

import asyncio
import threading

import numpy as np
import pytest

from umemma_jax.by_pattern import Said
from umemma_jax.serving.batching import Batcher, Full


class Model:
    """Says of each example the number that it is; waits where it is told to.

    Attributes:
      batches: how many rows each had.
    """

    def __init__(self):
        self.batches, self.may_run = [], threading.Event()
        self.may_run.set()

    def __call__(self, examples):
        self.may_run.wait()
        self.batches.append(len(examples))
        numbers = np.array([example["n"] for example in examples], float)
        if (numbers < 0).any():
            raise ZeroDivisionError("a bug")
        return Said(np.ones((len(numbers), 1), bool), {"n": numbers[:, None]}, {}, numbers[:, None])


def ask_all(batcher, model, *requests):
    """What each request gets, all of them asked before the model runs."""

    async def ask():
        model.may_run.clear()
        asked = [asyncio.ensure_future(batcher([{"n": n} for n in request])) for request in requests]
        await asyncio.sleep(0.05)
        model.may_run.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    return asyncio.run(ask())


@pytest.mark.parametrize("rows", [1, 4, 100])
def test_everybody_gets_the_own_rows(rows):
    model = Model()
    batcher = Batcher(model, rows, 1.0, 100)
    requests = [[1], [2, 3], [4], [5, 6, 7], [8]]
    for request, said in zip(requests, ask_all(batcher, model, *requests), strict=True):
        assert said.logits[:, 0].tolist() == request
        assert said.features["n"][:, 0].tolist() == request
        assert len(said.present) == len(request)
    batcher.close()
    assert sum(model.batches) == 8
    assert len(model.batches) == 5 if rows == 1 else len(model.batches) < 5
    assert max(model.batches) <= max(rows, 3)


def test_a_full_queue_turns_away_and_loses_nothing():
    model = Model()
    batcher = Batcher(model, 1, 0.0, 2)
    found = ask_all(batcher, model, *([n] for n in range(6)))
    answered = [said.logits[0, 0] for said in found if isinstance(said, Said)]
    assert answered == list(range(len(answered))) and len(answered) in (2, 3)  # one may be at work
    assert all(isinstance(said, Full) for said in found[len(answered) :])
    batcher.close()


def test_what_goes_wrong_is_told_to_those_who_asked_and_the_thread_lives():
    model = Model()
    batcher = Batcher(model, 1, 0.0, 10)
    wrong, right = ask_all(batcher, model, [-1], [5])
    assert isinstance(wrong, ZeroDivisionError)
    assert right.logits[0, 0] == 5
    batcher.close()


def test_whoever_has_gone_is_not_computed_for():
    model = Model()
    batcher = Batcher(model, 1, 0.0, 10)

    async def ask():
        model.may_run.clear()
        first, gone = (asyncio.ensure_future(batcher([{"n": n}])) for n in (1, 2))
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.sleep(0)
        model.may_run.set()
        return await first

    assert asyncio.run(ask()).logits[0, 0] == 1
    batcher.close()
    assert model.batches == [1]
