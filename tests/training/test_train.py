"""Training from end to end on a small dataset: stages, methods, resume after real kills."""

import json
import shutil
import signal

import jax
import numpy as np
import pytest

from tests import processes, small_run
from tests.processes import wait_for
from umemma_jax import experiment
from umemma_jax.config import apply_method, tower_config
from umemma_jax.devices import sharding
from umemma_jax.errors import UserError
from umemma_jax.evaluation import evaluate
from umemma_jax.training import train

RECIPE = """
from tests import small_run

def get_config():
    return small_run.get_config({path!r})
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "small"
    small_run.write_dataset(path)
    return path


@pytest.fixture(scope="module")
def recipe(dataset, tmp_path_factory):
    """A config file, as a user would write one."""
    path = tmp_path_factory.mktemp("recipe") / "small.py"
    path.write_text(RECIPE.format(path=str(dataset)))
    return path


@pytest.fixture(autouse=True)
def devices(request, monkeypatch):
    """One device, since simulated ones share two cores; `@pytest.mark.parametrize("devices", [4], indirect=True)`."""
    chosen = jax.devices()[: getattr(request, "param", 1)]
    monkeypatch.setattr(experiment, "make_mesh", lambda fsdp: sharding.make_mesh(fsdp, chosen))


def start(recipe, workdir, *flags):
    return processes.start(f"--config={recipe}", f"--workdir={workdir}", *flags)


def parameters(dataset, workdir):
    built = experiment.build(small_run.get_config(dataset))
    trained = train.load(built, workdir)
    return jax.device_get((trained.unimodal, trained.fusion))


def run(built, workdir):
    """Results of training and evaluating in this process."""
    trained = train.train(built, workdir)
    results = evaluate.evaluate(built, trained.unimodal, trained.fusion).results
    return {**results, "compilations": trained.compilations | results["timing"]["compilations"]}


@pytest.fixture(scope="module")
def uninterrupted(recipe, dataset, tmp_path_factory):
    """Final variables of every stage of a run that nobody disturbed."""
    workdir = tmp_path_factory.mktemp("run") / "whole"
    process = start(recipe, workdir)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return workdir, parameters(dataset, workdir), output


@pytest.mark.slow
def test_killed_at_several_moments_of_both_stages_ends_bit_for_bit_the_same(recipe, dataset, uninterrupted, tmp_path):
    workdir = tmp_path / "killed"
    for stage, step in (
        ("unimodal", 1),
        ("unimodal", 7),
        ("unimodal", 20),
        ("fusion", 2),
        ("fusion", 9),
        ("fusion", 18),
    ):
        process = start(recipe, workdir)
        wait_for(process, workdir, stage, step)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    process = start(recipe, workdir)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    whole, expected, _ = uninterrupted
    jax.tree.map(np.testing.assert_array_equal, parameters(dataset, workdir), expected)
    reports = [json.loads((path / "report" / "report.json").read_text()) for path in (workdir, whole)]
    assert reports[0]["patterns"] == reports[1]["patterns"]
    logged = [
        [
            (r["stage"], r["step"], r.get("loss"))
            for r in map(json.loads, (path / "metrics.jsonl").read_text().splitlines())
            if r.get("event") != "compiled"  # by each process
        ]
        for path in (workdir, whole)
    ]
    assert logged[0] == logged[1]


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "step"), [("unimodal", 5), ("fusion", 5)])
def test_sigterm_saves_exits_0_and_the_same_command_continues(recipe, dataset, uninterrupted, tmp_path, stage, step):
    workdir = tmp_path / "stopped"
    process = start(recipe, workdir)
    wait_for(process, workdir, stage, step)
    process.terminate()
    output, _ = process.communicate()
    assert process.returncode == 0
    assert f"stage {stage}: saved at step" in output
    saved = int(output.split("saved at step ")[1].split()[0])
    assert (workdir / "checkpoints" / stage / str(saved)).is_dir()
    output, errors = start(recipe, workdir).communicate()
    assert f"{stage} {saved + 1}/" in output, errors  # it went on where it had stopped
    jax.tree.map(np.testing.assert_array_equal, parameters(dataset, workdir), uninterrupted[1])


@pytest.mark.slow
def test_eval_mode_repeats_the_report_from_the_checkpoint(recipe, uninterrupted):
    workdir, _, _ = uninterrupted
    report = workdir / "report" / "report.json"
    before = json.loads(report.read_text())
    report.unlink()
    process = start(recipe, workdir, "--mode=eval")
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    after = json.loads(report.read_text())
    for key in ("patterns", "ceilings", "missing_rates", "dataset", "split", "metric"):
        assert after[key] == before[key]


def test_every_stage_learns_and_compiles_once(dataset, tmp_path):
    built = experiment.build(small_run.get_config(dataset, unimodal__epochs=10, fusion__epochs=6))
    results = run(built, tmp_path)
    assert results["patterns"]["image+audio"]["accuracy"] > 0.9
    assert min(results["ceilings"][m]["accuracy"] for m in ("image", "audio")) > 0.8
    assert results["examples"] == results["patterns"]["image+audio"]["examples"] == 41
    assert results["compilations"] == {"unimodal": 1, "fusion": 1, "encode": 1}


def test_ume_is_the_average_of_the_unimodal_models(dataset, tmp_path):
    """Without a fusion stage every pattern with one modality scores exactly its ceiling."""
    config = small_run.get_config(dataset)
    apply_method(config, "ume")
    built = experiment.build(config)
    results = run(built, tmp_path)
    assert results["method"] == "ume"
    for name in ("image", "audio"):
        assert results["patterns"][name]["accuracy"] == results["ceilings"][name]["accuracy"]


@pytest.mark.parametrize("method", ["late_fusion", "augmentation"])
def test_methods_without_a_unimodal_stage_have_no_ceilings(dataset, tmp_path, method):
    config = small_run.get_config(dataset)
    apply_method(config, method)
    built = experiment.build(config)
    results = run(built, tmp_path)
    assert results["method"] == method and results["ceilings"] == {}
    assert not (tmp_path / "checkpoints" / "unimodal").exists()


def test_best_epoch_of_each_modality_is_kept(dataset, tmp_path):
    """With a rate that ruins what was learned, the last epoch is not the best one."""
    config = small_run.get_config(dataset, unimodal__epochs=8, unimodal__warmup=0.0, fusion__epochs=0)
    built = experiment.build(config)
    train.train(built, tmp_path)
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    scores = [line for line in logged if "accuracy/image" in line]
    assert len(scores) == 8
    loaded = train.load(built, tmp_path).unimodal
    split, rows = built.validation
    evaluator = evaluate.Evaluator(built.model, built.mesh, built.means)
    found = evaluator.unimodal(evaluator.encode(loaded, built.batches(split, rows)))
    for m in ("image", "audio"):
        np.testing.assert_allclose(found[m]["accuracy"], max(line[f"accuracy/{m}"] for line in scores), rtol=1e-6)


def test_same_seed_same_parameters_another_seed_others(dataset, tmp_path):
    def run(name, seed):
        built = experiment.build(small_run.get_config(dataset, seed=seed, unimodal__epochs=1, fusion__epochs=1))
        return jax.device_get(train.train(built, tmp_path / name).fusion)

    first, second, other = run("a", 0), run("b", 0), run("c", 1)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert any((x != y).any() for x, y in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True))


@pytest.mark.parametrize("layout", ["random", "stratified"])
def test_naturally_incomplete_data_is_honoured_in_training_and_evaluation(tmp_path, layout):
    small_run.write_dataset(tmp_path / "data", missing_share=0.5)
    config = small_run.get_config(tmp_path / "data", missing__layout=layout)
    built = experiment.build(config)
    results = run(built, tmp_path / "run")
    lacking = results["naturally_missing"]
    assert lacking["image"] > 0 and lacking["audio"] > 0
    for m in ("image", "audio"):
        assert results["patterns"][m]["examples"] == 41 - lacking[m]
    assert results["patterns"]["image+audio"]["examples"] == 41


def test_three_modalities_and_an_encoder_of_one_s_own(dataset, tmp_path):
    config = small_run.get_config(dataset, modalities=("image", "audio", "vector"))
    config.inputs.vector = tower_config({"name": "tests.own_encoder", "width": 6})
    results = run(experiment.build(config), tmp_path)
    assert len(results["patterns"]) == 7
    assert set(results["ceilings"]) == {"image", "audio", "vector"}
    assert {cell["kind"] for cell in results["missing_rates"]} == {"image", "audio", "vector", "mixed"}
    assert results["patterns"]["image+audio+vector"]["accuracy"] > 0.8


@pytest.mark.parametrize("stand_in", ["zero", "mean"])
def test_every_stand_in_trains(dataset, tmp_path, stand_in):
    results = run(experiment.build(small_run.get_config(dataset, missing__stand_in=stand_in)), tmp_path)
    assert results["stand_in"] == stand_in
    assert results["patterns"]["audio"]["accuracy"] > 0.6


@pytest.mark.parametrize("devices", [4], indirect=True)
def test_pmap_and_split_parameters_end_where_jit_ends(dataset, tmp_path, monkeypatch):
    """Both stages over 4 devices, validation included; by SGD, since Adam makes steps out of rounding noise."""
    monkeypatch.setattr(sharding, "MIN_SPLIT", 16)
    found = {}
    for name, changes in {"jit": {}, "pmap": {"parallel": "pmap"}, "fsdp": {"fsdp": 2}}.items():
        config = small_run.get_config(dataset, unimodal__epochs=1, fusion__epochs=1, **changes)
        config.unimodal.optimizer = config.fusion.optimizer = "sgd"
        built = experiment.build(config)
        trained = train.train(built, tmp_path / name)
        found[name] = np.concatenate([x.ravel() for x in jax.tree.leaves(jax.device_get(trained.fusion))])
        if name == "fsdp":
            assert not trained.fusion["params"]["fusion"]["kernel_image"].is_fully_replicated
            results = evaluate.evaluate(built, trained.unimodal, trained.fusion).results
            assert results["patterns"]["image+audio"]["examples"] == 41
    for name in ("pmap", "fsdp"):
        assert np.linalg.norm(found[name] - found["jit"]) / np.linalg.norm(found["jit"]) < 1e-4


def test_frozen_encoders_stay_those_of_the_unimodal_stage(dataset, tmp_path):
    config = small_run.get_config(dataset)
    for m in ("image", "audio"):
        config.inputs[m].frozen = True
    trained = train.train(experiment.build(config), tmp_path)
    unimodal, fused = jax.device_get((trained.unimodal, trained.fusion))
    for m in ("image", "audio"):
        for kind in ("params", "batch_stats"):
            before, after = unimodal[kind], fused[kind]
            jax.tree.map(np.testing.assert_array_equal, after[f"encoders_{m}"], before[f"encoders_{m}"])
    assert (fused["params"]["fusion"]["kernel_image"] != unimodal["params"]["heads_image"]["kernel"]).any()


def test_workdir_of_another_config_is_refused(dataset, tmp_path):
    config = small_run.get_config(dataset, unimodal__epochs=1, fusion__epochs=0)
    train.train(experiment.build(config), tmp_path)
    config.unimodal.learning_rate = 0.5
    with pytest.raises(UserError, match=r"unimodal\.learning_rate: 0\.005 -> 0\.5"):
        train.train(experiment.build(config), tmp_path)


def test_a_dataset_that_is_replaced_under_a_run_is_not_read_any_further(tmp_path):
    """Another one with the same counts, as the same command with another seed prepares it."""
    small_run.write_dataset(tmp_path / "data", seed=0)
    built = experiment.build(small_run.get_config(tmp_path / "data"))
    shutil.rmtree(tmp_path / "data")
    small_run.write_dataset(tmp_path / "data", seed=1)
    with pytest.raises(UserError, match=rf"{tmp_path}/data: was replaced by another dataset since this command"):
        train.train(built, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()
    again = experiment.build(small_run.get_config(tmp_path / "data"))
    with pytest.raises(UserError, match=r"holds a run of another config \(the dataset's files\)"):
        train.load(again, tmp_path / "run")


def test_a_loss_that_is_not_finite_stops_at_a_logging_step_and_keeps_the_last_checkpoint(dataset, tmp_path):
    config = small_run.get_config(dataset, unimodal__epochs=0, fusion__optimizer="sgd", fusion__clip=1e38)
    config.fusion.learning_rate = 1e30
    with pytest.raises(UserError, match=r"stage fusion, step \d+: .* is (nan|inf).*last good checkpoint") as error:
        train.train(experiment.build(config), tmp_path)
    assert "\n" not in str(error.value)
    kept = [int(path.name) for path in (tmp_path / "checkpoints" / "fusion").glob("[0-9]*")]
    step = int(str(error.value).split("step ")[1].split(":")[0])
    assert all(number < step for number in kept)
