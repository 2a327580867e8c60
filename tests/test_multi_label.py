"""Multi-label data through both stages to a report whose numbers are scikit-learn's on the model's own logits."""

import functools
import json

import jax
import numpy as np
import pytest
from sklearn import metrics as sk

from tests import small_run
from umemma_jax import experiment
from umemma_jax.config import apply_method, tower_config
from umemma_jax.data.dataset import DatasetWriter, Modality
from umemma_jax.data.pipeline import eval_batches
from umemma_jax.evaluation import calibration, evaluate
from umemma_jax.reporting import report
from umemma_jax.training import train

CLASSES, NAMES = 4, ("image", "vector")
F1 = ("macro", "micro", "weighted", "samples")

pytestmark = pytest.mark.usefixtures("one_device")


def write_dataset(path, train=128, test=42, seed=0):
    """Images and noisy vectors that show which of four classes are there: none in one row of ten."""
    rng = np.random.default_rng(seed)
    modalities = {
        "image": Modality(kind="image", encoding="raw", shape=(8, 8, 1)),
        "vector": Modality(kind="tabular", encoding="float32", shape=(CLASSES,)),
    }
    with DatasetWriter(
        path, name="labels", description="For tests.", classes=list("wxyz"), modalities=modalities, multi_label=True
    ) as writer:
        for split, count in {"train": train, "test": test}.items():
            for number in range(count):
                label = (rng.random(CLASSES) < [0.6, 0.4, 0.3, 0.15]) & (number % 10 > 0)
                image = rng.integers(0, 120, (8, 8, 1))
                image[1::2][label] += 110
                vector = label + 0.5 * rng.normal(size=CLASSES)
                values = {"image": image.astype(np.uint8), "vector": vector.astype(np.float32)}
                if number % 7 == 3:
                    del values[NAMES[number % 2]]
                writer.write(split, id=f"{split}{number}", label=np.flatnonzero(label).tolist(), **values)


def get_config(path, **changes):
    config = small_run.get_config(path, modalities=NAMES, **changes)
    config.inputs.vector = tower_config({"name": "tests.own_encoder", "width": 6})
    return config


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "labels"
    write_dataset(path)
    return path


@pytest.fixture(scope="module")
def finished(dataset, tmp_path_factory):
    """An experiment, what was trained, and the folder with its report."""
    built = experiment.build(get_config(dataset, unimodal__epochs=8))
    workdir = tmp_path_factory.mktemp("run")
    trained = train.train(built, workdir)
    results, tables, _ = evaluate.evaluate(built, trained.unimodal, trained.fusion)
    report.write_report(results, workdir / "report", tables)
    return built, trained, workdir


def split_rows(built, split, rows=None):
    """All rows of a split as one batch, straight from the pipeline."""
    rows = np.arange(len(built.dataset.source(split))) if rows is None else rows
    return next(eval_batches(built.dataset, split, NAMES, len(rows), rows=rows, lengths=built.lengths))


def pattern_masks(batch):
    return {
        "image+vector": batch["present"],
        "image": batch["present"] & [True, False],
        "vector": batch["present"] & [False, True],
    }


@functools.cache
def applied(model):
    return jax.jit(model.apply)


def outputs(built, variables, batch, kept):
    found = applied(built.model)(variables, batch["inputs"], kept, means=built.means)
    return {name: np.asarray(values) for name, values in found.items()}


def probabilities(logits):
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def expected_scores(label, logits, temperature, thresholds):
    """By scikit-learn; temperatures and thresholds are of each row, [N, 1] and [N, K]."""
    found = {"mAP": sk.average_precision_score(label, logits, average="macro"), "examples": len(label)}
    tuned = probabilities(logits / temperature) > thresholds
    for prefix, predicted in {"": logits > 0, "tuned_": tuned}.items():
        for average in F1:
            found[f"{prefix}{average}_f1"] = sk.f1_score(label, predicted, average=average, zero_division=0)
    return found


def test_every_pattern_and_ceiling_is_scikit_learn_s(finished):
    built, trained, workdir = finished
    results = json.loads((workdir / "report" / "report.json").read_text())
    assert (results["metric"], results["headline"]) == ("macro_f1", "tuned_macro_f1")
    thresholds, fitted = results["thresholds"], results["calibration"]
    batch = split_rows(built, "test")
    assert not batch["label"].any(axis=1).all() and not batch["present"].all()
    for pattern, kept in pattern_masks(batch).items():
        # What a row lacks by nature leaves it with another pattern, whose thresholds decide it.
        names = ["+".join(np.array(NAMES)[row]) or pattern for row in kept]
        temperature = np.array([fitted["patterns"][name]["temperature"] for name in names])[:, None]
        bounds = np.array([thresholds["patterns"][name] for name in names])
        counted, logits = kept.any(axis=1), outputs(built, trained.fusion, batch, kept)["logits"]
        expected = expected_scores(batch["label"][counted], logits[counted], temperature[counted], bounds[counted])
        assert results["patterns"][pattern] == pytest.approx(expected, rel=1e-5)
    unimodal = outputs(built, trained.unimodal, batch, batch["present"])
    for index, name in enumerate(NAMES):
        has, logits = batch["present"][:, index], unimodal[f"logits/{name}"]
        expected = expected_scores(
            batch["label"][has], logits[has], fitted["ceilings"][name], thresholds["ceilings"][name]
        )
        assert results["ceilings"][name] == pytest.approx(expected, rel=1e-5)
    assert results["patterns"]["image+vector"]["macro_f1"] > 0.7, "it learns"


def test_temperatures_and_thresholds_are_fitted_on_the_validation_rows(finished):
    """On those that have a class, and all of the pattern."""
    built, trained, workdir = finished
    results = json.loads((workdir / "report" / "report.json").read_text())
    batch = split_rows(built, *built.validation)

    def assert_fitted(logits, rows, temperature, thresholds):
        rows = rows & batch["label"].any(axis=1)
        logits, label = logits[rows], batch["label"][rows] > 0
        assert temperature == pytest.approx(calibration.temperature(logits, label, rows[rows]), rel=1e-4)
        assert thresholds == pytest.approx(calibration.class_thresholds(logits / temperature, label), rel=1e-4)

    for pattern, kept in pattern_masks(batch).items():
        has_all = kept.sum(axis=1) == len(pattern.split("+"))
        logits = outputs(built, trained.fusion, batch, kept)["logits"]
        temperature = results["calibration"]["patterns"][pattern]["temperature"]
        assert_fitted(logits, has_all, temperature, results["thresholds"]["patterns"][pattern])
    unimodal = outputs(built, trained.unimodal, batch, batch["present"])
    for index, name in enumerate(NAMES):
        temperature, thresholds = results["calibration"]["ceilings"][name], results["thresholds"]["ceilings"][name]
        assert_fitted(unimodal[f"logits/{name}"], batch["present"][:, index], temperature, thresholds)


def test_every_cell_of_the_grid_is_scikit_learn_s(finished):
    built, trained, workdir = finished
    results = json.loads((workdir / "report" / "report.json").read_text())
    batch = split_rows(built, "test")
    with np.load(workdir / "report" / "missing_tables.npz") as tables:
        for cell in results["missing_rates"]:
            scores = []
            for kept in tables[f"{cell['kind']}@{cell['rate']:g}"]:
                predicted = outputs(built, trained.fusion, batch, kept)["logits"] > 0
                scores.append(
                    {f"{a}_f1": sk.f1_score(batch["label"], predicted, average=a, zero_division=0) for a in F1}
                )
            for name in scores[0]:
                values = [one[name] for one in scores]
                assert cell["mean"][name] == pytest.approx(np.mean(values), rel=1e-5)
                assert cell["std"][name] == pytest.approx(np.std(values), abs=1e-6)


def test_the_best_epoch_of_each_modality_is_that_of_macro_f1(finished):
    built, trained, workdir = finished
    logged = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    epochs = [line for line in logged if line["stage"] == "unimodal" and "macro_f1/image" in line]
    assert len(epochs) == 8 and not any("accuracy" in key for line in logged for key in line)
    batch = split_rows(built, *built.validation)
    found = outputs(built, trained.unimodal, batch, batch["present"])
    for index, name in enumerate(NAMES):
        has = batch["present"][:, index]
        value = sk.f1_score(batch["label"][has], found[f"logits/{name}"][has] > 0, average="macro", zero_division=0)
        assert value == pytest.approx(max(line[f"macro_f1/{name}"] for line in epochs), rel=1e-5)


def test_the_report_shows_all_metrics_and_says_what_they_are(finished):
    markdown = (finished[2] / "report" / "report.md").read_text()
    columns = "macro-F1, % | micro-F1, % | weighted F1, % | samples F1, % | mAP, %"
    every_pattern = markdown[markdown.index("## Every pattern") :]
    header = next(line for line in every_pattern.splitlines() if line.startswith("| pattern"))
    assert columns in " ".join(header.split()) and "ceiling, %" in header
    assert "At the thresholds tuned on the validation examples:" in markdown
    for kind in ("Macro-F1", "Micro-F1", "Weighted F1", "Samples F1"):
        assert f"\n{kind} in %, mean" in markdown
        assert f"\n{kind} at the tuned threshold in %, mean" in markdown
    for word in ("macro-F1", "micro-F1", "weighted F1", "samples F1", "mAP", "threshold", "tuned threshold"):
        assert f"\n- **{word}**: " in markdown
    assert "accuracy" not in markdown.lower()


def test_without_validation_rows_nothing_is_tuned(dataset, tmp_path):
    config = get_config(dataset, data__validation_share=0.0, unimodal__epochs=1, fusion__epochs=0)
    built = experiment.build(config)
    trained = train.train(built, tmp_path)
    results = evaluate.evaluate(built, trained.unimodal, trained.fusion).results
    assert "thresholds" not in results
    assert set(results["patterns"]["image"]) == {*(f"{a}_f1" for a in F1), "mAP", "examples"}


def test_ume_counts_the_prior_once_and_alone_each_model_is_its_ceiling(dataset, tmp_path):
    config = get_config(dataset)
    apply_method(config, "ume")
    built = experiment.build(config)
    trained = train.train(built, tmp_path)
    results = evaluate.evaluate(built, trained.unimodal, trained.fusion).results
    for name in NAMES:
        assert results["patterns"][name] == pytest.approx(results["ceilings"][name], rel=1e-6)
        assert results["thresholds"]["patterns"][name] == pytest.approx(results["thresholds"]["ceilings"][name])
    batch = split_rows(built, "test")
    unimodal = outputs(built, trained.unimodal, batch, batch["present"])
    prior = built.log_prior()
    evidence = [batch["present"][:, [m]] * (unimodal[f"logits/{name}"] - prior) for m, name in enumerate(NAMES)]
    expected = sk.f1_score(batch["label"], prior + sum(evidence) > 0, average="macro", zero_division=0)
    assert results["patterns"]["image+vector"]["macro_f1"] == pytest.approx(expected, rel=1e-6)
