"""The command line of the server."""

import sys

import pytest

from umemma_jax.errors import UserError
from umemma_jax.serving.__main__ import main

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")


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


def test_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(UserError, match=r"umemma serve: needs uvicorn, .*pip install 'umemma_jax\[serve\]'"):
        main(["--model=x"])
