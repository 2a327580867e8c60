"""Stages that end before their last step: by patience, or by a time limit whose clock the tests set."""

import json

import jax
import numpy as np
import pytest

from tests import small_run
from umemma_jax import experiment, runs
from umemma_jax.devices import sharding
from umemma_jax.errors import UserError
from umemma_jax.reporting.reading import read_report
from umemma_jax.reporting.results import ended_early
from umemma_jax.training import ending, train
from umemma_jax.training.checkpoint import Checkpoints
from umemma_jax.training.ending import NO_BETTER, REPORT_SHARE, TIME_IS_UP, End, TimeLimit
from umemma_jax.training.validation import Validation

STEPS = 5  # of an epoch


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "small"
    small_run.write_dataset(path)
    return path


def on_one_device_with_equal_epochs(monkeypatch):
    """No epoch of the fusion stage is better than what it starts from."""
    monkeypatch.setattr(experiment, "make_mesh", lambda fsdp: sharding.make_mesh(fsdp, jax.devices()[:1]))
    monkeypatch.setattr(Validation, "_over_patterns", lambda self, values: 0.5)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    on_one_device_with_equal_epochs(monkeypatch)


def build(dataset, **changes):
    changes = {"unimodal__epochs": 1, "fusion__epochs": 6, **changes}
    return experiment.build(small_run.get_config(dataset, **changes))


def assert_same(first, second):
    trees = [jax.device_get((trained.unimodal, trained.fusion)) for trained in (first, second)]
    jax.tree.map(np.testing.assert_array_equal, *trees)


@pytest.fixture(scope="module")
def patient(dataset, tmp_path_factory):
    """A run that patience has ended."""
    workdir = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        on_one_device_with_equal_epochs(patch)
        return workdir, train.train(build(dataset, fusion__patience=2), workdir)


def test_a_stage_without_better_epochs_ends_and_is_finished(dataset, patient):
    workdir, trained = patient
    assert trained.ends == {"fusion": End(2 * STEPS, 6 * STEPS, NO_BETTER)}
    built = build(dataset, fusion__patience=2)
    assert_same(train.load(built, workdir), trained)
    again = train.train(built, workdir)
    assert again.compilations == {"unimodal": 0, "fusion": 0}
    assert_same(again, trained)


@pytest.mark.parametrize("step", [STEPS + 1, 2 * STEPS])
def test_a_run_that_is_killed_ends_at_the_same_step_with_the_same_parameters(
    dataset, patient, tmp_path, monkeypatch, step
):
    """Before the end, or between the end's record and its checkpoint."""
    save = Checkpoints.save

    def killed(self, at, state, batches):
        if "fusion" in str(self._folder) and at >= step:
            raise KeyboardInterrupt
        save(self, at, state, batches)

    built = build(dataset, fusion__patience=2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoints, "save", killed)
        train.train(built, tmp_path)
    trained = train.train(built, tmp_path)
    assert trained.ends == patient[1].ends
    assert_same(trained, patient[1])


def test_the_time_limit_ends_stages_at_checkpoints_and_the_report_says_so(dataset, tmp_path, monkeypatch):
    """Each after 3 steps, within an epoch: it is judged all the same."""
    asked = []
    monkeypatch.setattr(TimeLimit, "is_over", lambda self: asked.append(self) or len(asked) % 3 == 0)
    built = build(dataset, unimodal__epochs=4, time_limit=60.0, evaluation__resamples=10)
    trained = train.train(built, tmp_path)
    assert trained.ends == {
        "unimodal": End(3, 4 * STEPS, TIME_IS_UP),
        "fusion": End(3, 6 * STEPS, TIME_IS_UP),
    }
    initial = train.initial_variables(built)["params"]["encoders_image"]
    assert not np.allclose(
        *(jax.tree.leaves(tree)[0] for tree in (initial, trained.unimodal["params"]["encoders_image"]))
    )
    monkeypatch.setattr(TimeLimit, "is_over", lambda self: False)
    assert_same(train.train(built, tmp_path), trained)  # what has ended stays so
    runs.conclude(built, trained, tmp_path, "python main.py")
    results = read_report(tmp_path / "report" / "report.json")
    assert ended_early(results) == [
        "Stage unimodal ended after 3 of 20 steps (time limit).",
        "Stage fusion ended after 3 of 30 steps (time limit).",
    ]
    assert ended_early(results)[0] in (tmp_path / "report" / "report.md").read_text()


def test_stages_share_the_time_by_their_steps(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(ending.time, "monotonic", lambda: clock[0])
    seconds = 1000 * (1 - REPORT_SHARE)
    limit = TimeLimit(1000, {"unimodal": 30, "fusion": 10})
    limit.begin("unimodal", 30)
    clock[0] = 100 + 0.74 * seconds
    assert not limit.is_over()
    clock[0] = 100 + 0.75 * seconds
    assert limit.is_over()
    limit.begin("fusion", 10)
    clock[0] = 99 + seconds
    assert not limit.is_over()
    clock[0] = 100 + seconds
    assert limit.is_over()


def test_what_a_finished_stage_does_not_need_is_the_next_ones(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(ending.time, "monotonic", lambda: clock[0])
    limit = TimeLimit(10, {"unimodal": 30, "fusion": 10})
    limit.begin("fusion", 5)
    clock[0] = 7.9
    assert not limit.is_over()
    assert not TimeLimit(0, {"unimodal": 1}).limited


def test_a_damaged_record_is_named(tmp_path):
    assert ending.read_end(tmp_path, "fusion") is None
    ending.write_end(tmp_path, "fusion", End(3, 9, NO_BETTER))
    assert ending.read_end(tmp_path, "fusion") == End(3, 9, NO_BETTER)
    path = tmp_path / "fusion_end.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"step": 4}))
    with pytest.raises(UserError, match=r"fusion_end\.json is damaged .*: remove it"):
        ending.read_end(tmp_path, "fusion")


def test_patience_takes_validation_examples(dataset):
    with pytest.raises(UserError, match=r"config.fusion.patience: no example validates epochs"):
        build(dataset, fusion__patience=1, data__validation_share=0.0)
