"""Freed memory is kept: the kernel need not hand out fresh pages again."""

import subprocess
import sys

import pytest

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
