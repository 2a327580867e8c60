"""Regression from a dataset to its report, on a target of which the best possible prediction is known."""

import json

import numpy as np
import pytest

from umemma_jax import experiment, presets, runs
from umemma_jax.data.dataset import DatasetWriter, Modality, open_dataset
from umemma_jax.errors import UserError
from umemma_jax.evaluation import pattern_calibration
from umemma_jax.patterns import all_patterns
from umemma_jax.predict import predict
from umemma_jax.training import train

READINGS = 4  # of the target in each modality, of which the noise is
NOISE = {"a": 1.2, "b": 2.0}
CENTRE, SPREAD = 50.0, 10.0
SPLITS = {"train": 3000, "val": 1200, "test": 3000}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A target of N(50, 10^2), and modalities that read it with noise, independent given it."""
    path, rng = tmp_path_factory.mktemp("regression") / "data", np.random.default_rng(0)
    modalities = {name: Modality("tabular", "float32", shape=(READINGS,)) for name in NOISE}
    with DatasetWriter(path, name="known", description="", classes=(), targets=["y"], modalities=modalities) as writer:
        for split, count in SPLITS.items():
            for number in range(count):
                y = rng.normal()
                values = {m: np.float32(y + s * rng.normal(size=READINGS)) for m, s in NOISE.items()}
                writer.write(split, id=str(number), label=[CENTRE + SPREAD * y], **values)
    return path


def recipe(folder, **changes):
    config = presets.small(str(folder))
    config.unimodal.epochs, config.fusion.epochs, config.dropout = 8, 4, 0.0
    config.unimodal.learning_rate, config.fusion.learning_rate = 4e-3, 2e-3
    config.evaluation.rates, config.evaluation.seeds, config.evaluation.resamples = (0.0, 1.0), 1, 20
    config.update(changes)
    return config


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """What was trained, where, and its results."""
    built, workdir = experiment.build(recipe(folder)), tmp_path_factory.mktemp("run")
    trained = train.train(built, workdir)
    return built, trained, workdir, runs.conclude(built, trained, workdir, "a test")


def best_possible(built, split):
    """The posterior mean of each example under each pattern, from the readings themselves: [P, N]."""
    batches = list(built.batches(split))
    readings = {
        m: np.concatenate([batch["inputs"][m] for batch in batches])[: SPLITS[split]].sum(axis=1) for m in NOISE
    }
    found = []
    for pattern in all_patterns(len(NOISE)):
        kept = [m for m, keep in zip(NOISE, pattern, strict=True) if keep]
        eta = sum(readings[m] / NOISE[m] ** 2 for m in kept)
        found.append(CENTRE + SPREAD * eta / (1 + sum(READINGS / NOISE[m] ** 2 for m in kept)))
    return np.array(found)


def test_errors_are_near_the_least_possible_under_every_pattern(run):
    built, _, _, results = run
    label = built.dataset.source("test").labels()[:, 0]
    for pattern, best in zip(results["patterns"], best_possible(built, "test"), strict=True):
        least = np.sqrt(np.mean((best - label) ** 2))
        assert results["patterns"][pattern]["rmse"] < 1.05 * least, pattern


def test_intervals_hold_what_they_promise_under_every_pattern(run):
    for pattern, entry in run[3]["conformal"]["patterns"].items():
        assert entry["coverage"] == pytest.approx(0.9, abs=0.02), pattern


def test_predictions_are_those_of_the_report(run):
    built, trained, workdir, results = run
    calibration = pattern_calibration.read(workdir, built.modalities)
    found = predict(built, trained.fusion, built.dataset, "test", calibration)
    label = built.dataset.source("test").labels()
    rmse = np.sqrt(np.mean((found.values - label) ** 2))
    assert rmse == pytest.approx(results["patterns"]["a+b"]["rmse"], rel=1e-4)
    inside = ((found.low <= label) & (label <= found.high)).mean()
    assert inside == pytest.approx(results["conformal"]["patterns"]["a+b"]["coverage"], abs=1e-3)
    report = json.loads((workdir / "report" / "report.json").read_text())
    assert report["targets"][0]["name"] == "y"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"loss": "focal"}, "config.loss: focal is for classes, this dataset has targets"),
        ({"balance_classes": True}, "config.balance_classes: True is for classes"),
        ({"evaluation": {"label_free_bias": True}}, "config.evaluation.label_free_bias: True is for classes"),
    ],
)
def test_losses_of_classes_are_refused(folder, changes, complaint):
    with pytest.raises(UserError, match=complaint):
        experiment.build(recipe(folder, **changes))


def test_the_mean_can_be_trained_by_hubers_loss(folder, tmp_path):
    config = recipe(folder, loss="huber")
    config.unimodal.epochs, config.fusion.epochs = 2, 1
    built = experiment.build(config)
    results = runs.conclude(built, train.train(built, tmp_path), tmp_path, "a test")
    assert results["patterns"]["a+b"]["r2"] > 0.5
    assert open_dataset(folder).info.targets[0].name in json.dumps(results)
