"""Bad input of every kind ends in one line that names what is wrong: a few of what `benchmarks.faults.inputs` tries."""

import numpy as np

from benchmarks.faults import inputs
from benchmarks.faults.trial import REFUSED


def test_each_ends_in_one_line(tmp_path):
    found = list(inputs.run(np.random.default_rng(0), 40, tmp_path))
    assert len(found) == 40
    assert [case for case in found if case[1] != REFUSED] == []
