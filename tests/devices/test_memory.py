"""Freed memory is kept: the kernel need not hand out fresh pages again."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from umemma_jax.devices import memory, sharding
from umemma_jax.errors import UserError

PROGRAM = """
import resource, sys, threading
import numpy as np
from umemma_jax.devices.memory import keep_freed_memory

if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit("no glibc")

def faults_of_ten_large_blocks():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones(64 << 20, np.uint8)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

np.ones(64 << 20, np.uint8)
thread = threading.Thread(target=faults_of_ten_large_blocks)  # XLA allocates on threads of its own
thread.start()
thread.join()
"""


def page_faults(what):
    done = subprocess.run([sys.executable, "-c", PROGRAM, what], capture_output=True, text=True)
    if "no glibc" in done.stderr:
        pytest.skip("the C library is not glibc")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="page faults are counted as on Linux")
def test_large_blocks_are_handed_out_again_without_page_faults():
    assert page_faults("keep") < 0.1 * page_faults("plain")


# How much may be taken.


def test_what_is_more_than_there_is(monkeypatch):
    monkeypatch.delenv(memory.LIMIT, raising=False)
    assert memory.excess(1e6) == ""
    assert memory.excess(memory.total()).startswith(
        f"this takes {memory.total() / 1e9:,.1f} GB, which is more than 80% of"
    )
    assert memory.excess(10**15).startswith("this takes 1,000,000.0 GB")


def test_the_limit_is_the_users(monkeypatch):
    monkeypatch.setenv(memory.LIMIT, "2")
    assert memory.excess(2e9) == ""
    assert "2.1 GB, which is more than UMEMMA_MEMORY_GB=2 allows" in memory.excess(2.1e9)
    monkeypatch.setenv(memory.LIMIT, "inf")
    assert memory.excess(1e18) == ""


@pytest.mark.parametrize("text", ["plenty", "0", "-1", "nan"])
def test_a_limit_that_is_none(monkeypatch, text):
    monkeypatch.setenv(memory.LIMIT, text)
    with pytest.raises(UserError, match=f"{memory.LIMIT}={text} in the environment: is no number of gigabytes above 0"):
        memory.excess(1)


def test_the_memory_of_a_container_counts(monkeypatch, tmp_path):
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "unlimited").write_text("max\n")
    monkeypatch.setattr(memory, "_OF_CONTAINER", (str(tmp_path / "absent"), str(tmp_path / "unlimited")))
    whole = memory.total.__wrapped__()
    monkeypatch.setattr(memory, "_OF_CONTAINER", (str(tmp_path / "memory.max"),))
    assert memory.total.__wrapped__() == 1000000 < whole


def test_a_step_that_does_not_fit_is_not_run(monkeypatch):
    step = sharding.CompiledStep(jax.jit(lambda state, batch: (state + batch.sum(), batch)))
    state, batch = jnp.zeros(()), jnp.ones((1000, 1000))
    monkeypatch.setenv(memory.LIMIT, "0.001")
    with pytest.raises(UserError, match=r"config\.data\.batch_size: a training step: this takes .* GB, .*accumulate"):
        step(state, batch)
    monkeypatch.delenv(memory.LIMIT)
    assert step(state, batch)[0] == 1e6
