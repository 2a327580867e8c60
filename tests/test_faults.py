"""Some of each trial of `python -m benchmarks.faults`."""

import collections

import numpy as np

from benchmarks.faults import media
from benchmarks.faults.trial import REFUSED, SAME


def test_damaged_media_files(tmp_path):
    """Of every kind some are still read, or all refused; nothing ends in a traceback or gives more than asked for."""
    counts = collections.defaultdict(collections.Counter)
    for kind, outcome, said in media.run(np.random.default_rng(1), 12, tmp_path):
        counts[kind][outcome] += 1
        assert outcome in (SAME, REFUSED), said
    assert counts.keys() == media.KINDS.keys()
    assert all(outcomes.total() == 12 for outcomes in counts.values())
    assert sum(outcomes[SAME] for outcomes in counts.values()) > 60


def test_undamaged_media_files_are_read(tmp_path):
    for kind, (make, conversion) in media.KINDS.items():
        path = tmp_path / f"whole.{kind}"
        path.write_bytes(make())
        assert media.judged(media.FileTask(conversion, path), conversion(path)) == (SAME, "")
