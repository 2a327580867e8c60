"""Scores that no example defines: the last epoch is kept where validation cannot judge, and reports say a dash."""

import json

import jax
import numpy as np
import pytest

from tests import small_run
from umemma_jax import experiment
from umemma_jax.config import tower_config
from umemma_jax.data.dataset import DatasetWriter, Modality
from umemma_jax.errors import UserError
from umemma_jax.evaluation import evaluate
from umemma_jax.reporting import report
from umemma_jax.reporting.markdown import summary
from umemma_jax.reporting.results import ABSENT, compare
from umemma_jax.training import stages, train

pytestmark = pytest.mark.usefixtures("one_device")

NAMES, CLASSES = ("a", "b"), 3


def write_dataset(path, multi_label):
    """Vectors by class. No example of `val` and `bare` has b; of multi-label data, none of `bare` has a class."""
    rng = np.random.default_rng(0)
    modalities = {name: Modality(kind="tabular", encoding="float32", shape=(CLASSES,)) for name in (*NAMES, "c")}
    with DatasetWriter(
        path, name="u", description="For tests.", classes=list("xyz"), modalities=modalities, multi_label=multi_label
    ) as writer:
        for split, (count, names) in {
            "train": (96, "abc"),
            "val": (20, "a"),
            "test": (30, "ab"),
            "bare": (20, "a"),
            "foreign": (4, "c"),
        }.items():
            for number in range(count):
                label = number % CLASSES
                values = {m: (np.eye(CLASSES)[label] + 0.2 * rng.normal(size=CLASSES)) for m in names}
                values = {m: value.astype(np.float32) for m, value in values.items()}
                if multi_label:
                    label = [] if split == "bare" else [label]
                writer.write(split, id=f"{split}{number}", label=label, **values)


def get_config(path, **changes):
    encoder = {"name": "mlp", "widths": (8,)}
    config = small_run.get_config(path, modalities=NAMES, data__validation_split="val", **changes)
    config.inputs.a = tower_config(encoder)
    config.inputs.b = tower_config(encoder)
    config.inputs.c = tower_config(encoder)
    config.unimodal.learning_rate = 3e-2
    config.checkpoint_every = 1000
    return config


@pytest.fixture(scope="module", params=[False, True], ids=["single-label", "multi-label"])
def finished(request, tmp_path_factory):
    """The dataset, what was trained on it, the workdir, and whether it is multi-label."""
    path, workdir = tmp_path_factory.mktemp("data") / "u", tmp_path_factory.mktemp("run")
    write_dataset(path, request.param)
    return path, train.train(experiment.build(get_config(path)), workdir), workdir, request.param


def evaluated(finished, **changes):
    path, trained, _, _ = finished
    results = evaluate.evaluate(experiment.build(get_config(path, **changes)), trained.unimodal, trained.fusion).results
    return results


def test_a_modality_that_no_validation_example_has_is_kept_as_of_its_last_epoch(finished):
    path, trained, workdir, multi_label = finished
    built = experiment.build(get_config(path))
    state, _ = train._load_stage(built, "unimodal", train.initial_variables(built), workdir)
    jax.tree.map(np.testing.assert_array_equal, trained.unimodal["params"]["encoders_b"], state.params["encoders_b"])
    assert int(state.best["b"]["epoch"]) == built.config.unimodal.epochs
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    (note,) = [record for record in records if record.get("event") == "note"]
    assert note["text"] == "no validation example can judge b: the last epoch is kept, not the best"
    events = [record for record in records if record.get("event") == "validation"]
    metrics = (
        {"unimodal": "macro_f1", "fusion": "tuned_macro_f1"}
        if multi_label
        else dict.fromkeys(stages.STAGES, "accuracy")
    )
    assert all(event[f"{metrics[event['stage']]}/b"] is None for event in events)
    judged = [event["stage"] for event in events]
    epochs = built.config.unimodal.epochs, built.config.fusion.epochs
    assert judged == ["unimodal"] * epochs[0] + ["fusion"] * (epochs[1] + 1)  # one before its first step


def test_the_report_says_what_validation_could_not_judge(finished):
    results = evaluated(finished)
    multi_label = finished[-1]
    assert results["not_validated"]["ceilings"] == ["b"]
    assert results["not_validated"].get("thresholds") == (["a+b", "b"] if multi_label else None)
    assert results["ceilings"]["b"][results["metric"]] > 0.8
    assert "No validation example can judge b alone" in summary(results)


@pytest.mark.parametrize("split", ["bare", "foreign"])
def test_numbers_that_no_test_example_defines_are_null_and_dashes(finished, split, tmp_path):
    results = evaluated(finished, data__test_split=split)
    multi_label = finished[-1]
    metric, patterns = results["metric"], results["patterns"]
    assert patterns["b"]["examples"] == 0
    assert patterns["b"][metric] is results["ceilings"]["b"][metric] is None
    defined = split == "bare" and not multi_label
    assert (patterns["a"][metric] is not None) == defined
    assert all((cell["mean"][metric] is not None) == defined for cell in results["missing_rates"])
    assert f"| b alone (a missing) |        0 |           {ABSENT} |" in summary(results)
    report.write_report(results, tmp_path / "report")
    written = json.loads((tmp_path / "report" / "report.json").read_text())
    assert written["patterns"] == patterns
    report.write_comparison(compare([results, {**results, "seed": 1}]), tmp_path / "comparison")
    comparison = json.loads((tmp_path / "comparison" / "comparison.json").read_text())
    assert comparison["methods"]["ume_mma"]["patterns"]["b"][metric] == {"mean": None, "std": None}


def test_a_modality_that_no_training_example_has_is_named(finished):
    with pytest.raises(UserError, match=r"config\.modalities: no training example of .*/u has 'b', leave it out"):
        experiment.build(get_config(finished[0], data__train_split="bare"))
