"""--mode=compare: every method over seeds on small data, and what is done with runs that are finished."""

import dataclasses
import importlib.resources
import itertools
import json
import shutil

import jsonschema
import numpy as np
import pytest

from tests import small_run
from umemma_jax import cli, compare
from umemma_jax.config import tower_config
from umemma_jax.data.dataset import DatasetWriter, Modality
from umemma_jax.errors import UserError
from umemma_jax.evaluation import decisions, evaluate
from umemma_jax.methods import METHODS, has_loss

pytestmark = pytest.mark.usefixtures("one_device")

NAMES, CLASSES, SEEDS = ("a", "b"), 3, 2
COMPARED = [name for name in METHODS if not has_loss(METHODS[name])]  # unless told otherwise


def get_config(path):
    config = small_run.get_config(path, modalities=NAMES, evaluation__resamples=200, evaluation__rates=(0.0, 1.0))
    for name in NAMES:
        config.inputs[name] = tower_config({"name": "mlp", "widths": (4,)})
    config.unimodal.epochs = config.fusion.epochs = 1
    config.checkpoint_every = 1000
    return config


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Two noisy vectors by class, of which one example in five lacks one."""
    path, rng = tmp_path_factory.mktemp("data") / "small", np.random.default_rng(0)
    modalities = {name: Modality(kind="tabular", encoding="float32", shape=(CLASSES,)) for name in NAMES}
    with DatasetWriter(path, name="s", description="For tests.", classes=list("xyz"), modalities=modalities) as writer:
        for split, count in {"train": 64, "test": 60}.items():
            for number in range(count):
                values = {name: np.eye(CLASSES)[number % CLASSES] + rng.normal(size=CLASSES) for name in NAMES}
                if number % 5 == 0:
                    del values[NAMES[number % 2]]
                values = {name: value.astype(np.float32) for name, value in values.items()}
                writer.write(split, id=f"{split}{number}", label=number % CLASSES, **values)
    return path


@pytest.fixture(scope="module")
def finished_comparison(dataset, tmp_path_factory):
    """The workdir, and what `compare` has returned."""
    workdir = tmp_path_factory.mktemp("comparison") / "run"
    return workdir, compare.compare(get_config(dataset), workdir, SEEDS)


@pytest.fixture
def finished(finished_comparison, tmp_path):
    """A copy of the workdir to do harm to."""
    return shutil.copytree(finished_comparison[0], tmp_path / "run")


@pytest.fixture
def evaluated(monkeypatch):
    """Counts what is evaluated, by seed."""
    calls, evaluate_once = [], evaluate.evaluate

    def count(built, *variables):
        calls.append(built.config.seed)
        return evaluate_once(built, *variables)

    monkeypatch.setattr(evaluate, "evaluate", count)
    return calls


def test_differences_are_those_of_the_reports(finished_comparison):
    workdir, comparison = finished_comparison
    paired = comparison["paired"]
    assert paired["metric"] == "accuracy" and paired["resamples"] == 200
    patterns, pairs = 3, len(COMPARED) * (len(COMPARED) - 1) // 2
    assert len(paired["differences"]) == patterns * pairs

    def accuracy(method, pattern):
        folders = [workdir / method / f"seed{seed}" / "report" for seed in range(SEEDS)]
        return np.mean([json.loads((f / "report.json").read_text())["patterns"][pattern]["accuracy"] for f in folders])

    for one in paired["differences"]:
        first, second = (accuracy(method, one["pattern"]) for method in one["methods"])
        assert one["difference"] == pytest.approx(first - second)
        assert one["interval"][0] <= one["difference"] <= one["interval"][1]
    assert json.loads((workdir / "report" / "comparison.json").read_text()) == json.loads(json.dumps(comparison))


def test_the_verdict_is_of_the_reports_numbers(finished_comparison):
    workdir, comparison = finished_comparison
    verdict = comparison["paired"]["verdict"]
    assert verdict["references"] == ["ume", "ume_mma"]
    others = [name for name in COMPARED if name not in verdict["references"]]
    pairs = {(one["method"], one["reference"]) for one in verdict["patterns"]}
    assert pairs == {("ume_mma", "ume"), *itertools.product(others, verdict["references"])}
    for method in COMPARED:
        for seed in range(SEEDS):
            report = json.loads((workdir / method / f"seed{seed}" / "report" / "report.json").read_text())
            said = report["robustness"]
            scores = [one["before"] for one in report["calibration"]["patterns"].values()]
            expected = {
                "complete": report["patterns"]["a+b"]["accuracy"],
                "mean_over_patterns": said["uniform_mean"],
                "worst_pattern": said["worst_pattern"]["value"],
                "area": said["area"]["mixed"],
                **{name: np.mean([one[name] for one in scores]) for name in ("nll", "ece")},
            }
            found = {name: one["methods"][method][seed] for name, one in verdict["measures"].items()}
            assert found == pytest.approx(expected)


def test_a_comparison_is_as_its_schema_describes_it(finished_comparison):
    workdir, _ = finished_comparison
    path = importlib.resources.files("umemma_jax.reporting") / "comparison.schema.json"
    validator = jsonschema.Draft202012Validator(json.loads(path.read_text()))
    comparison = json.loads((workdir / "report" / "comparison.json").read_text())
    validator.check_schema(validator.schema)
    validator.validate(comparison)
    comparison["paired"]["verdict"]["patterns"][0]["finding"] = "best"
    assert not validator.is_valid(comparison)


def test_decisions_are_kept_beside_each_report(finished_comparison):
    workdir, _ = finished_comparison
    for method in COMPARED:
        folder = workdir / method / "seed1" / "report"
        results = json.loads((folder / "report.json").read_text())
        found = decisions.read(folder, list(results["patterns"]), results["examples"])
        for p, scores in enumerate(results["patterns"].values()):
            rows = found.counted[p]
            assert rows.sum() == scores["examples"]
            assert (found.decided[p] == found.label)[rows].mean() == pytest.approx(scores["accuracy"])


def test_finished_runs_are_not_repeated(finished_comparison, finished, dataset, evaluated):
    again = compare.compare(get_config(dataset), finished, SEEDS)
    assert again == finished_comparison[1]
    assert evaluated == []


def test_a_finished_run_without_decisions_is_evaluated_again(finished_comparison, finished, dataset, evaluated):
    (finished / "ume" / "seed1" / "report" / "decisions.npz").unlink()
    trained = (finished / "ume_mma" / "seed1" / "metrics.jsonl").read_text().count('"loss"')
    again = compare.compare(get_config(dataset), finished, SEEDS)
    assert evaluated == [1, 1]  # ume, and ume_mma of which it is a part
    assert (finished / "ume_mma" / "seed1" / "metrics.jsonl").read_text().count('"loss"') == trained > 0
    assert again["paired"] == finished_comparison[1]["paired"]


def test_damaged_decisions_end_in_one_line(finished, dataset):
    path = finished / "late_fusion" / "seed0" / "report" / "decisions.npz"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"^[^\n]*late_fusion/seed0/report/decisions\.npz is damaged[^\n]*remove it"):
        compare.compare(get_config(dataset), finished, SEEDS)


def test_decisions_of_another_run_end_in_one_line(finished, dataset):
    folder = finished / "late_fusion" / "seed1" / "report"
    results = json.loads((folder / "report.json").read_text())
    found = decisions.read(folder, list(results["patterns"]), results["examples"])
    turned = (found.label + 1) % CLASSES, (found.decided + 1) % CLASSES
    for others, how in (
        (dataclasses.replace(found, decided=turned[1]), "not of the report beside it"),
        (dataclasses.replace(found, label=turned[0], decided=turned[1]), "of other examples than the first run"),
    ):
        (folder / decisions.FILE_NAME).write_bytes(decisions.encode(others))
        with pytest.raises(UserError, match=rf"late_fusion/seed1/report/decisions\.npz is {how}: remove it"):
            compare.compare(get_config(dataset), finished, SEEDS)


def test_the_command_ends_with_what_the_data_support(finished, dataset, tmp_path, capsys):
    recipe = tmp_path / "recipe.py"
    recipe.write_text(
        f"from tests.test_compare import get_config as of\n\ndef get_config(): return of({str(dataset)!r})"
    )
    command = ["main.py", f"--config={recipe}", f"--workdir={finished}", "--mode=compare", f"--seeds={SEEDS}"]
    assert cli.run(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"Comparison: {finished / 'report'}"
    told = [line for line in lines if line.startswith(("Complete, ", "Without "))]
    assert len(told) == 3 * (len(COMPARED) - 1)
    assert lines[-3].startswith("Differences are of accuracy") and "the 2 training seeds" in lines[-3]


def test_methods_join_a_comparison_whose_runs_stay(finished, dataset, evaluated, capsys):
    """Those with a loss of their own, one of them the user's; the references come of themselves."""
    config = get_config(dataset)
    chosen = compare.compare(config, finished, 1, ("simultaneous", "tests.own_method"))
    assert list(chosen["methods"]) == ["ume", "ume_mma", "simultaneous", "tests.own_method"]
    assert evaluated == [0, 0]  # the two that are new
    assert (finished / "tests.own_method" / "seed0" / "report" / "report.json").exists()


def test_all_leaves_out_what_the_recipe_cannot_have_and_a_name_that_asks_for_it_is_told(dataset, capsys):
    config = get_config(dataset)
    assert "ogm" not in compare._chosen(config, ("all",))
    assert "ogm is left out: config.fusion.optimizer: 'adamw', but OGM needs 'sgd'" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"^config\.fusion\.optimizer: 'adamw', but OGM needs 'sgd'"):
        compare.compare(config, dataset / "never", 1, ("ogm",))


def test_a_comparison_starts_from_a_recipe_that_all_methods_follow_from(dataset):
    config = get_config(dataset)
    config.missing.augment = False
    with pytest.raises(UserError, match="starts from a recipe with both stages and augmentation"):
        compare.compare(config, dataset / "never", 1)
