"""The fusion stage keeps its best epoch, and what it starts from is one of the candidates."""

import json

import jax
import numpy as np
import pytest
import sklearn.metrics as sk
from scipy import special

from tests import small_run, test_multi_label
from umemma_jax import experiment
from umemma_jax.evaluation import calibration, evaluate
from umemma_jax.training import train
from umemma_jax.training.validation import Validation

pytestmark = pytest.mark.usefixtures("one_device")

PATTERNS = ("image+audio", "image", "audio")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "small"
    small_run.write_dataset(path)
    return path


def validated(workdir):
    """The validation events of stage fusion, in their order."""
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [record for record in records if (record["stage"], record.get("event")) == ("fusion", "validation")]


def test_a_fusion_stage_that_ruins_the_ensemble_ends_as_the_ensemble(dataset, tmp_path):
    config = small_run.get_config(dataset, fusion__optimizer="sgd", fusion__learning_rate=300.0, fusion__warmup=0.0)
    built = experiment.build(config)
    trained = train.train(built, tmp_path)
    events = validated(tmp_path)
    assert [event["step"] for event in events] == [0, 5, 10, 15, 20]
    scores = [np.mean([event[f"accuracy/{name}"] for name in PATTERNS]) for event in events]
    assert max(scores[1:]) < scores[0]
    jax.tree.map(np.testing.assert_array_equal, trained.fusion, trained.ensemble)
    jax.tree.map(np.testing.assert_array_equal, train.load(built, tmp_path).fusion, trained.ensemble)


@pytest.mark.parametrize("keep", [{}, {"image": 3.0, "image+audio": 1.0}])
def test_the_best_epoch_is_that_of_the_patterns_trained_for_by_their_weights(dataset, tmp_path, keep):
    config = small_run.get_config(dataset, unimodal__epochs=1, fusion__learning_rate=2e-3, missing__keep=keep)
    built = experiment.build(config)
    trained = train.train(built, tmp_path)
    weights = keep or dict.fromkeys(PATTERNS, 1.0)
    scores = [
        np.average([event[f"accuracy/{name}"] for name in weights], weights=list(weights.values()))
        for event in validated(tmp_path)
    ]
    assert {key for event in validated(tmp_path) for key in event if key.startswith("accuracy/")} == {
        f"accuracy/{name}" for name in weights
    }
    evaluator = evaluate.Evaluator(built.model, built.mesh, built.means)
    encoded = evaluator.encode(trained.fusion, built.batches(*built.validation))
    logits, label = evaluator.predict_patterns(trained.fusion, encoded), encoded.label[encoded.weight > 0]
    found = [np.mean(logits[name].argmax(axis=1) == label) for name in weights]
    assert np.average(found, weights=list(weights.values())) == pytest.approx(max(scores))


def test_with_several_labels_the_best_epoch_is_that_of_the_headline_at_tuned_thresholds(tmp_path):
    test_multi_label.write_dataset(tmp_path / "data")
    built = experiment.build(test_multi_label.get_config(tmp_path / "data", unimodal__epochs=1, fusion__epochs=2))
    trained = train.train(built, tmp_path / "run")
    events, names = validated(tmp_path / "run"), ("image+vector", "image", "vector")
    assert not any("macro_f1/image" in event for event in events)
    scores = [np.mean([event[f"tuned_macro_f1/{name}"] for name in names]) for event in events]
    evaluator = evaluate.Evaluator(built.model, built.mesh, built.means)
    encoded = evaluator.encode(trained.fusion, built.batches(*built.validation))
    split = evaluator.split_logits(encoded, evaluator.predict_patterns(trained.fusion, encoded), None, "abc")
    found = []
    for number, name in enumerate(split.names):
        rows = split.left[number] >= 0
        logits, label = split.patterns[name][rows], split.label[rows]
        decided = special.expit(logits) > calibration.class_thresholds(logits, label)
        found.append(sk.f1_score(label, decided, average="macro", zero_division=0))
    assert np.mean(found) == pytest.approx(max(scores), rel=1e-5)


def test_without_validation_the_last_epoch_is_kept_and_said_to_be(dataset, tmp_path):
    config = small_run.get_config(dataset, data__validation_share=0.0, unimodal__epochs=1, fusion__epochs=1)
    built = experiment.build(config)
    trained = train.train(built, tmp_path)
    state, _ = train._load_stage(built, "fusion", train.initial_variables(built), tmp_path)
    jax.tree.map(np.testing.assert_array_equal, trained.fusion["params"], state.params)
    notes = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [note["text"] for note in notes if note.get("event") == "note"] == [
        "no validation example can judge image or audio: the last epoch is kept, not the best",
        "no validation example can judge the fusion stage: the last epoch is kept, not the best",
    ]
    assert not validated(tmp_path)


def test_patterns_that_no_validation_example_has_do_not_count(dataset):
    validation = Validation(experiment.build(small_run.get_config(dataset)), "fusion")
    values = {"image+audio": 0.9, "image": 0.5, "audio": float("nan")}
    assert validation._over_patterns(values) == pytest.approx(0.7)
    assert np.isnan(validation._over_patterns(dict.fromkeys(values, float("nan"))))
