"""Training the fusion head on stored features, against the frozen encoders that run at every step."""

import shutil
import signal

import jax
import numpy as np
import pytest

from benchmarks.faults.trial import flipped
from tests import small_run, test_multi_label
from tests.evaluation import said
from tests.processes import assert_same_figures, figures, finish, start_together, wait_for
from umemma_jax import config as config_lib
from umemma_jax import experiment
from umemma_jax.devices import sharding
from umemma_jax.errors import UserError
from umemma_jax.evaluation import evaluate
from umemma_jax.training import features, stages, train
from umemma_jax.training.ending import TimeLimit

RECIPE = """
from tests import small_run

def get_config():
    config = small_run.get_config({path!r}, unimodal__epochs=1, fusion__only=True, dropout=0.2)
    config.evaluation.rates = (0.0, 0.5)
    return config
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "incomplete"
    small_run.write_dataset(path, missing_share=0.3)
    return path


@pytest.fixture(autouse=True)
def devices(request, monkeypatch):
    """One device, since simulated ones share two cores; `@pytest.mark.parametrize("devices", [4], indirect=True)`."""
    chosen = jax.devices()[: getattr(request, "param", 1)]
    monkeypatch.setattr(experiment, "make_mesh", lambda fsdp: sharding.make_mesh(fsdp, chosen))


def recipe(dataset, **changes):
    """Fusion only, on encoders that nobody trained. `small_run` asks for no augmentation.

    By SGD, since Adam makes steps out of rounding noise.
    """
    few = {"unimodal__epochs": 0, "fusion__epochs": 2, "fusion__optimizer": "sgd", "fusion__only": True}
    return small_run.get_config(dataset, **{**few, **changes})


def at_every_step(config):
    """The same recipe with frozen encoders that run at every step."""
    config.fusion.only = False
    for m in config.modalities:
        config.inputs[m].frozen = True
    return config


def trained(config, workdir):
    built = experiment.build(config)
    return built, train.train(built, workdir)


def assert_close(actual, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), actual, expected)


CASES = {
    "random layout, mean as stand-in, feature dropout": {
        "missing__layout": "random",
        "missing__stand_in": "mean",
        "dropout": 0.3,
    },
    "mlp, moving average, lost modalities, no cache of batches": {
        "fusion__head": "mlp",
        "fusion__ema": 0.9,
        "missing__eta__rate": 0.4,
        "data__cache_megabytes": 0,
    },
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_learns_what_frozen_encoders_teach_it(dataset, tmp_path, changes):
    _, expected = trained(at_every_step(recipe(dataset, **changes)), tmp_path / "steps")
    _, actual = trained(recipe(dataset, **changes), tmp_path / "features")
    assert_close(actual.fusion, expected.fusion)
    assert actual.compilations == expected.compilations == {"fusion": 1}


@pytest.mark.parametrize("devices", [4], indirect=True)
@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_learns_the_same_on_4_devices(dataset, tmp_path, parallel):
    changes = {"parallel": parallel, "fusion__epochs": 1}
    _, expected = trained(at_every_step(recipe(dataset, **changes)), tmp_path / "steps")
    _, actual = trained(recipe(dataset, **changes), tmp_path / "features")
    assert_close(actual.fusion, expected.fusion)


def test_after_a_unimodal_stage_report_and_encoders_are_those_of_the_frozen_run(dataset, tmp_path):
    found = {}
    for name, config in {
        "steps": at_every_step(recipe(dataset, unimodal__epochs=1)),
        "features": recipe(dataset, unimodal__epochs=1),
    }.items():
        built, result = trained(config, tmp_path / name)
        results = evaluate.evaluate(built, result.unimodal, result.fusion).results
        reloaded = train.load(built, tmp_path / name).fusion
        jax.tree.map(np.testing.assert_array_equal, reloaded, result.fusion)
        found[name] = result, results
    (expected, expected_results), (actual, actual_results) = found["steps"], found["features"]
    assert_close(actual.fusion, expected.fusion)
    for key in ("patterns", "ceilings"):
        assert actual_results[key] == expected_results[key]
    said.assert_close(actual_results["missing_rates"], expected_results["missing_rates"])
    for m in ("image", "audio"):
        group = f"encoders_{m}"
        jax.tree.map(np.testing.assert_array_equal, actual.fusion["params"][group], actual.unimodal["params"][group])
    kernel, head = actual.fusion["params"]["fusion"]["kernel_image"], actual.unimodal["params"]["heads_image"]["kernel"]
    assert (kernel != head).any()


def nothing():
    """Interrupts nothing."""


def forbidden(*args):
    raise AssertionError("the encoders ran")


def test_features_are_those_of_evaluation_and_zero_where_absent(dataset, tmp_path):
    built = experiment.build(recipe(dataset))
    variables = train.initial_variables(built)
    arrays = features.compute(built, variables, tmp_path, nothing)
    split, rows = built.config.data.train_split, built.train_rows
    encoded = evaluate.Evaluator(built.model, built.mesh, built.means).encode(variables, built.batches(split, rows))
    count = len(rows)
    np.testing.assert_array_equal(arrays["label"], encoded.label[:count])
    np.testing.assert_array_equal(arrays["present"], encoded.available[:count])
    for index, m in enumerate(built.modalities):
        np.testing.assert_allclose(arrays[f"features/{m}"], encoded.features[m][:count], rtol=0, atol=1e-6)
        has = arrays["present"][:, index]
        assert 0 < has.sum() < count and not arrays[f"features/{m}"][~has].any()


def test_stored_features_are_used_by_the_same_encoders_only(dataset, tmp_path, monkeypatch):
    built = experiment.build(recipe(dataset))
    variables = train.initial_variables(built)
    first = features.on_features(built, variables, tmp_path, nothing)
    monkeypatch.setattr(features, "compute", forbidden)
    again = features.on_features(built, variables, tmp_path, nothing)
    batches = [next(stages.training_batches(x, "fusion")) for x in (first, again)]
    jax.tree.map(np.testing.assert_array_equal, *batches)
    others = {**variables, "params": jax.tree.map(lambda x: x + 1, variables["params"])}
    with pytest.raises(AssertionError, match="the encoders ran"):
        features.on_features(built, others, tmp_path, nothing)
    head = variables["params"] | {"fusion": jax.tree.map(lambda x: x + 1, variables["params"]["fusion"])}
    features.on_features(built, {**variables, "params": head}, tmp_path, nothing)


def test_damaged_features_are_named(dataset, tmp_path):
    built = experiment.build(recipe(dataset))
    variables = train.initial_variables(built)
    features.on_features(built, variables, tmp_path, nothing)
    (folder,) = (tmp_path / "features").iterdir()
    file, rng = folder / "features.npz", np.random.default_rng(0)
    for _ in range(20):
        with (
            flipped(file, rng),
            pytest.raises(
                UserError, match=rf"{folder}: features\.npz: does not match its checksum: remove this folder"
            ),
        ):
            features.on_features(built, variables, tmp_path, nothing)
    (folder / "checksums.json").unlink()
    file.unlink()
    with pytest.raises(UserError, match=r": is damaged \(.*No such file.*\): remove this folder"):
        features.on_features(built, variables, tmp_path, nothing)


def test_features_that_cannot_be_written_are_named(dataset, tmp_path):
    (tmp_path / "features").write_text("mine")
    built = experiment.build(recipe(dataset))
    with pytest.raises(UserError, match=r"/features/\w+: cannot be written \(.*\): make room, or name another"):
        features.on_features(built, train.initial_variables(built), tmp_path, nothing)
    assert (tmp_path / "features").read_text() == "mine"


def test_ends_between_two_batches_when_asked_to(dataset, tmp_path):
    """SIGTERM during the pass of the encoders, as `train` sees it."""
    built = experiment.build(recipe(dataset))
    with pytest.raises(train.Preempted, match="stage fusion"):
        train._run_stage(
            built, "fusion", train.initial_variables(built), tmp_path, lambda: signal.SIGTERM, TimeLimit(0, {})
        )
    assert not (tmp_path / "features").exists()


@pytest.mark.parametrize("layout", ["random", "stratified"])
def test_batches_are_the_same_rows_in_the_same_order(dataset, tmp_path, layout):
    assert_same_rows(experiment.build(recipe(dataset, missing__layout=layout)), tmp_path)


def test_batches_of_several_classes_are_the_same_rows_in_the_same_order(tmp_path):
    test_multi_label.write_dataset(tmp_path / "data")
    assert_same_rows(experiment.build(test_multi_label.get_config(tmp_path / "data", fusion__only=True)), tmp_path)


def assert_same_rows(built, workdir):
    on_features = features.on_features(built, train.initial_variables(built), workdir, nothing)
    expected, actual = (stages.training_batches(x, "fusion") for x in (built, on_features))
    for _ in range(12):  # two epochs
        rows, found = next(expected), next(actual)
        for key in ("index", "label", "present", "weight"):
            np.testing.assert_array_equal(found[key], rows[key])
            assert found[key].dtype == rows[key].dtype


# main.py in processes of its own.


@pytest.fixture(scope="module")
def recipe_file(dataset, tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "recipe.py"
    path.write_text(RECIPE.format(path=str(dataset)))
    return path


def run_together(recipe_file, workdir, count, devices):
    return start_together(count, devices, f"--config={recipe_file}", f"--workdir={workdir}")


@pytest.fixture(scope="module")
def whole(recipe_file, tmp_path_factory):
    """Workdir of a run of one process with four devices that nobody disturbed."""
    workdir = tmp_path_factory.mktemp("run") / "whole"
    finish(run_together(recipe_file, workdir, 1, 4))
    return workdir


@pytest.mark.slow
def test_killed_and_resumed_ends_bit_for_bit_the_same(dataset, recipe_file, whole, tmp_path):
    killed = tmp_path / "killed"
    (process,) = run_together(recipe_file, killed, 1, 4)
    wait_for(process, killed, "fusion", 7)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    (stored,) = (killed / "features").iterdir()
    written = stored.stat().st_mtime_ns
    finish(run_together(recipe_file, killed, 1, 4))
    assert stored.stat().st_mtime_ns == written
    built = experiment.build(config_lib.load(str(recipe_file)))
    jax.tree.map(np.testing.assert_array_equal, train.load(built, killed).fusion, train.load(built, whole).fusion)
    assert figures(killed) == figures(whole)


@pytest.mark.slow
def test_two_processes_of_two_devices_report_what_one_of_four_does(recipe_file, whole, tmp_path):
    """One of them writes the features, which both have; the second run finds them on both."""
    workdir = tmp_path / "two"
    finish(run_together(recipe_file, workdir, 2, 2))
    assert_same_figures(workdir, whole)
    (stored,) = (workdir / "features").iterdir()
    written = stored.stat().st_mtime_ns
    shutil.rmtree(workdir / "checkpoints" / "fusion")
    finish(run_together(recipe_file, workdir, 2, 2))
    assert stored.stat().st_mtime_ns == written
    assert_same_figures(workdir, whole)
