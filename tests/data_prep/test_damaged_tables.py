"""The small form of `python -m benchmarks.faults tables`."""

import collections

import numpy as np
import pytest

from benchmarks.faults import tables
from benchmarks.faults.trial import REFUSED, SAME, SILENT
from umemma_jax.data_prep.build import delimited


def test_no_row_gets_what_belongs_to_another(tmp_path):
    pytest.importorskip("pyarrow")
    counts = collections.Counter()
    for kind, outcome, said in tables.run(np.random.default_rng(1), 36, tmp_path):
        assert outcome in (SAME, REFUSED), (kind, said)
        counts[outcome] += 1
    assert sum(counts.values()) == 36 and counts[SAME] > 9


def test_the_trial_finds_rows_that_are_swallowed(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "_check_closed", lambda *arguments: None)
    monkeypatch.setattr(tables, "TEXTS", {name: tables.TEXTS[name] for name in list(tables.TEXTS)[:1]})
    monkeypatch.setattr(tables, "VALUES", {})
    monkeypatch.setattr(tables, "PARQUET", {})
    assert SILENT in {outcome for _, outcome, _ in tables.run(np.random.default_rng(0), 8, tmp_path)}
