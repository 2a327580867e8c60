"""--mode=compare: every method over seeds on small data, and what is done with runs that are finished."""

import dataclasses
import importlib.resources
import itertools
import json
import shutil

import jax
import jsonschema
import numpy as np
import pytest
from scipy import stats

from tests import small_run
from umemma_jax import cli, compare, experiment
from umemma_jax.comparison import plan
from umemma_jax.config import tower_config
from umemma_jax.data.dataset import DatasetWriter, Modality
from umemma_jax.errors import UserError
from umemma_jax.evaluation import decisions, evaluate
from umemma_jax.methods import METHODS, has_loss
from umemma_jax.reporting.results import ABSENT
from umemma_jax.training import train

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
    assert evaluated == [1]
    assert (finished / "ume_mma" / "seed1" / "metrics.jsonl").read_text().count('"loss"') == trained > 0
    assert again["paired"] == finished_comparison[1]["paired"]


def test_a_method_begins_with_the_ensemble_as_if_it_had_trained_it_itself(finished, dataset, tmp_path):
    folder = finished / "ume_mma" / "seed1"
    assert not (folder / "checkpoints" / "unimodal").exists()
    built = experiment.build(plan.recipe(get_config(dataset), "ume_mma", 1))
    shared, alone = train.load(built, folder), train.train(built, tmp_path / "alone")
    for found, expected in ((shared.unimodal, alone.unimodal), (shared.fusion, alone.fusion)):
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    shutil.rmtree(finished / "ume")
    with pytest.raises(
        UserError, match=r"unimodal_stage_of\.json: .*seed1, whose uni-modal stage is this run's, is gone"
    ):
        train.load(built, folder)


def test_what_each_method_was_given_is_told(finished_comparison):
    workdir, comparison = finished_comparison
    given = comparison["budget"]["late_fusion"]
    assert (given["trials"], given["settings"], given["epochs"]) == (0, {}, {"unimodal": 0, "fusion": 2})
    assert given["seconds"] > 0 and given["flops"] > 64 * 2 * CLASSES
    assert comparison["budget"]["ume"]["epochs"] == {"unimodal": 1, "fusion": 0}
    text = (workdir / "report" / "comparison.md").read_text()
    table = text.split("What each method was given")[1].split("##")[0]
    [row] = [line for line in table.splitlines() if "late fusion" in line]
    assert [cell.strip() for cell in row.split("|")][4:6] == [ABSENT, "2"]


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
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("run ")]
    assert lines[0] == "run 3 of 4: simultaneous, seed 0" and lines[1].startswith("run 4 of 4: tests.own_method, ")
    assert (finished / "tests.own_method" / "seed0" / "report" / "report.json").exists()


def test_all_leaves_out_what_the_recipe_cannot_have_and_a_name_that_asks_for_it_is_told(dataset, capsys):
    config = get_config(dataset)
    assert "ogm" not in plan.chosen_methods(config, ("all",))
    assert "ogm is left out: config.fusion.optimizer: 'adamw', but OGM needs 'sgd'" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"^config\.fusion\.optimizer: 'adamw', but OGM needs 'sgd'"):
        compare.compare(config, dataset / "never", 1, ("ogm",))


def test_a_comparison_starts_from_a_recipe_that_all_methods_follow_from(dataset):
    config = get_config(dataset)
    config.missing.augment = False
    with pytest.raises(UserError, match="starts from a recipe with both stages and augmentation"):
        compare.compare(config, dataset / "never", 1)


# Trials.


def with_validation(dataset):
    config = get_config(dataset)
    config.data.validation_share = 0.3
    return config


@pytest.fixture(scope="module")
def tried(dataset, tmp_path_factory):
    """The workdir of a comparison with trials that was killed among them and went on, and what the first part left."""
    workdir, calls = tmp_path_factory.mktemp("tried") / "run", []
    over_all_patterns = compare.validation.over_all_patterns

    def killed(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return over_all_patterns(*arguments)

    arguments = (with_validation(dataset), workdir, 1, ("cml",), 3)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(compare.validation, "over_all_patterns", killed)
        with pytest.raises(KeyboardInterrupt):
            compare.compare(*arguments)
    before = json.loads((workdir / "cml" / "trials.json").read_text())["trials"]
    return workdir, before, compare.compare(*arguments)


def test_trials_go_on_where_they_were_and_the_best_becomes_the_run(tried, dataset):
    workdir, before, comparison = tried
    found = json.loads((workdir / "cml" / "trials.json").read_text())["trials"]
    assert len(before) == 1 and found[0] == before[0]
    assert [trial["settings"] for trial in found] == plan.drawn("cml", 3)
    best = max(range(3), key=lambda number: found[number]["score"])
    assert comparison["budget"]["cml"] | {"seconds": 0, "flops": 0, "epochs": 0} == {
        "trials": 3,
        "settings": found[best]["settings"],
        "seconds": 0,
        "flops": 0,
        "epochs": 0,
    }
    assert [(workdir / "cml" / f"trial{number}").exists() for number in range(3)] == [n != best for n in range(3)]
    config = json.loads((workdir / "cml" / "seed0" / "config.json").read_text())["config"]
    assert config["method"]["settings"] == found[best]["settings"]
    assert not (workdir / "ume_mma" / "trials.json").exists()  # it has nothing to search


def test_runs_and_trials_are_counted_as_many_as_there_are(dataset, tmp_path, capsys):
    compare.compare(with_validation(dataset), tmp_path, 1, ("cml",), 2)
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("run ")]
    assert [line.split(":")[0] for line in told] == [f"run {number} of 5" for number in (1, 2, 3, 4, 5)]
    assert ["trial" in line for line in told] == [False, True, True, False, False]


def test_the_score_is_the_mean_over_patterns_on_validation(tried, dataset):
    workdir, _, comparison = tried
    trials = json.loads((workdir / "cml" / "trials.json").read_text())["trials"]
    built = experiment.build(plan.recipe(with_validation(dataset), "cml", 0, comparison["budget"]["cml"]["settings"]))
    variables = train.load(built, workdir / "cml" / "seed0").fusion
    label, right = [], []
    for batch in built.batches(*built.validation):
        rows = batch["weight"] > 0
        for keep in ([True, True], [True, False], [False, True]):
            present = batch["present"] & keep
            logits = built.model.apply(variables, batch["inputs"], present, train=False)["logits"]
            right.append(np.where(present.any(1) & rows, np.argmax(logits, axis=1) == batch["label"], np.nan))
        label.append(rows.sum())
    rows = np.reshape(np.concatenate(right).reshape(len(label), 3, -1).swapaxes(0, 1), (3, -1))
    assert max(trial["score"] for trial in trials) == pytest.approx(np.nanmean(rows, axis=1).mean())


def test_another_plan_is_refused(tried, dataset):
    workdir, _, _ = tried
    with pytest.raises(UserError, match=r"^--workdir=.* holds another comparison \(--trials=3 -> 2\): use another"):
        compare.compare(with_validation(dataset), workdir, 1, ("cml",), 2)
    config = with_validation(dataset)
    config.fusion.learning_rate = 0.5
    with pytest.raises(UserError, match=r"holds another comparison \(fusion.learning_rate: .* -> 0.5\)"):
        compare.compare(config, workdir, 1, ("cml",), 3)


def test_trials_need_validation_examples(dataset, tmp_path):
    config = get_config(dataset)
    config.data.validation_share = 0.0
    with pytest.raises(UserError, match=r"^--trials=3: validation examples choose among them, and there are none"):
        compare.compare(config, tmp_path, 1, ("cml",), 3)
    assert not list(tmp_path.iterdir())


def test_settings_are_drawn_evenly_over_their_range_or_its_logarithm(monkeypatch):
    weights = np.array([settings["weight"] for settings in plan.drawn("cml", 2001)])
    assert weights[0] == 0.1  # its own
    assert stats.kstest(np.log(weights[1:]), stats.uniform(np.log(0.01), np.log(100)).cdf).pvalue > 0.01
    assert plan.drawn("cml", 5) == plan.drawn("cml", 2001)[:5] and plan.drawn("simultaneous", 5) == [{}]
    monkeypatch.setattr(METHODS["cml"], "SEARCHED", {"weight": (-1.0, 1.0)})
    weights = np.array([settings["weight"] for settings in plan.drawn("cml", 2001)[1:]])
    assert stats.kstest(weights, stats.uniform(-1, 2).cdf).pvalue > 0.01


@pytest.mark.parametrize(
    ("searched", "message"),
    [
        ({"weight": (1.0, 0.1)}, r"SEARCHED\['weight'\] is \(1.0, 0.1\): give it \(least, largest\)"),
        ({"weight": 0.1}, r"SEARCHED\['weight'\] is 0.1: give it"),
        ({"weight": (0.1, np.inf)}, r"SEARCHED\['weight'\] is \(0.1, inf\): give it"),
        ({"height": (0.1, 1.0)}, r"SEARCHED\['height'\], but DEFAULTS has no 'height'"),
    ],
)
def test_ranges_that_are_none_end_in_one_line(monkeypatch, searched, message):
    monkeypatch.setattr(METHODS["cml"], "SEARCHED", searched)
    with pytest.raises(UserError, match=rf"^method 'cml': {message}"):
        plan.drawn("cml", 2)
