"""The workdir: it belongs to one run, which is told by its config and files, and is freed of what was half-written."""

import json

import numpy as np
import pytest

from benchmarks.faults.trial import REFUSED, SAME, flipped, outcome
from tests import small_run
from umemma_jax.errors import UserError
from umemma_jax.training.workdir import claim_workdir, hold_workdir, run_digest

FINGERPRINTS = {"dataset": "5" * 64, "tokenizer": {}}


def test_config_json_is_that_of_the_first_run(tmp_path):
    config = small_run.get_config("data")
    claim_workdir(config, FINGERPRINTS, tmp_path)
    written = (tmp_path / "config.json").read_bytes()
    claim_workdir(small_run.get_config("elsewhere"), FINGERPRINTS, tmp_path)  # data may move
    with pytest.raises(UserError, match=r"holds a run of another config \(seed: 0 -> 1\)"):
        claim_workdir(small_run.get_config("data", seed=1), FINGERPRINTS, tmp_path)
    with pytest.raises(UserError, match=r"holds a run of another config \(the dataset's files\)"):
        claim_workdir(config, {**FINGERPRINTS, "dataset": "6" * 64}, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert (tmp_path / "config.json").read_bytes() == written


def test_every_flipped_bit_of_config_json_is_harmless_or_named(tmp_path):
    config, rng = small_run.get_config("data"), np.random.default_rng(0)
    claim_workdir(config, FINGERPRINTS, tmp_path)
    found = set()
    for _ in range(200):
        with flipped(tmp_path / "config.json", rng):
            result, said = outcome(lambda: claim_workdir(config, FINGERPRINTS, tmp_path), lambda _: True)
        assert result in (SAME, REFUSED), said
        assert result == SAME or said.startswith(f"{tmp_path}/config.json is damaged (")
        found.add(result)
    assert REFUSED in found


def test_a_workdir_from_before_there_were_checksums_goes_on(tmp_path):
    config = small_run.get_config("data")
    claim_workdir(config, FINGERPRINTS, tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    del content["crc32c"]
    (tmp_path / "config.json").write_text(json.dumps(content))
    claim_workdir(config, FINGERPRINTS, tmp_path)


def test_runs_are_told_apart_by_what_touches_their_parameters():
    def digest(path="data", fingerprints=FINGERPRINTS, **changes):
        return run_digest(small_run.get_config(path, **changes), fingerprints)

    assert digest() == digest("elsewhere", keep_checkpoints=7, evaluation__seeds=9)
    assert len({digest(), digest(seed=1), digest(fusion__epochs=9), digest(fingerprints={"dataset": "6"})}) == 4


def test_what_a_killed_run_left_half_written_goes_and_nothing_else(tmp_path):
    left = (".config.json.partial", ".metrics.jsonl.partial", ".report.partial/report.json", "features/a.partial-0f/x")
    kept = ("config.json", "notes.partial", "report/report.json", "features/a/features.npz", "predictions/x.csv")
    for name in (*left, *kept):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    with hold_workdir(tmp_path):
        pass
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()) == sorted(kept)
