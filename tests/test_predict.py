"""What a trained model says of examples of its own dataset, and of others that lack labels or modalities."""

import csv
import types

import jax
import numpy as np
import pytest
from sklearn import metrics as sk

from tests import small_run, test_multi_label
from umemma_jax import config, experiment, predict
from umemma_jax.data.dataset import DatasetWriter, Modality, open_dataset
from umemma_jax.data.pipeline import eval_batches
from umemma_jax.errors import UserError
from umemma_jax.evaluation import evaluate, pattern_calibration
from umemma_jax.evaluation.pattern_calibration import PatternCalibration
from umemma_jax.patterns import pattern_name
from umemma_jax.training import train

pytestmark = pytest.mark.usefixtures("one_device")

IMAGE = Modality(kind="image", encoding="raw", shape=(8, 8, 1))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An experiment whose data are incomplete, and the variables that were trained."""
    path = tmp_path_factory.mktemp("data") / "small"
    small_run.write_dataset(path, missing_share=0.3)
    built = experiment.build(small_run.get_config(path, unimodal__epochs=2, fusion__epochs=2))
    return built, train.train(built, tmp_path_factory.mktemp("run"))


def test_a_split_without_examples_is_named():
    nothing = types.SimpleNamespace(path="folder", info=None, source=lambda split: ())
    with pytest.raises(UserError, match="folder: split 'test' has no examples"):
        predict.predict(types.SimpleNamespace(dataset=nothing), {}, nothing, "test")


def all_rows(dataset, split, built):
    """A split as one batch."""
    rows = len(dataset.source(split))
    return next(eval_batches(dataset, split, built.modalities, rows, lengths=built.lengths))


def softmax(logits):
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def write_images(path, images, **changes):
    """A dataset without labels, of images alone."""
    options = {"name": "new", "description": "For tests.", "classes": [], "modalities": {"image": IMAGE}} | changes
    with DatasetWriter(path, **options) as writer:
        for number, image in enumerate(images):
            writer.write("test", id=f"photo {number}, ä", **dict.fromkeys(options["modalities"], image))
    return open_dataset(path)


def test_probabilities_are_the_model_s_on_what_each_example_has(finished):
    built, trained = finished
    found = predict.predict(built, trained.fusion, built.dataset, "test")
    batch = all_rows(built.dataset, "test", built)
    logits = jax.jit(built.model.apply)(trained.fusion, batch["inputs"], batch["present"])["logits"]
    np.testing.assert_allclose(found.probabilities, softmax(np.asarray(logits, np.float64)), rtol=1e-4)
    np.testing.assert_array_equal(found.present, batch["present"])
    assert not found.present.all() and found.ids == [f"test{number}" for number in range(41)]

    results = evaluate.evaluate(built, trained.unimodal, trained.fusion).results
    accuracy = np.mean(found.predicted.argmax(axis=1) == batch["label"])
    assert results["patterns"]["image+audio"]["accuracy"] == pytest.approx(accuracy)


def test_probabilities_are_at_the_temperature_of_what_each_example_has(finished, tmp_path):
    built, trained = finished
    results = evaluate.evaluate(built, trained.unimodal, trained.fusion).results
    pattern_calibration.write(results, tmp_path)
    calibration = pattern_calibration.read(tmp_path, built.modalities)
    plain = predict.predict(built, trained.fusion, built.dataset, "test")
    found = predict.predict(built, trained.fusion, built.dataset, "test", calibration)
    names = [pattern_name(present, built.modalities) for present in found.present]
    temperature = [results["calibration"]["patterns"][name]["temperature"] for name in names]
    assert len(set(temperature)) == 3, "otherwise nothing is tested"
    expected = softmax(np.log(plain.probabilities.astype(np.float64)) / np.array(temperature)[:, None])
    np.testing.assert_allclose(found.probabilities, expected, rtol=1e-4)
    quantiles = np.array([results["conformal"]["patterns"][name]["quantile"] for name in names])[:, None]
    np.testing.assert_array_equal(found.sets, 1 - found.probabilities <= quantiles)

    predict.write(found, tmp_path / "predictions", "test")
    rows = list(csv.DictReader((tmp_path / "predictions" / "test.csv").read_text().splitlines()))
    classes = np.array(found.classes)
    assert [row["set"] for row in rows] == ["|".join(classes[chosen]) for chosen in found.sets]
    with np.load(tmp_path / "predictions" / "test.npz") as saved:
        np.testing.assert_array_equal(saved["sets"], found.sets)


def test_several_labels_are_those_above_the_tuned_thresholds(tmp_path):
    test_multi_label.write_dataset(tmp_path / "labels")
    built = experiment.build(test_multi_label.get_config(tmp_path / "labels", unimodal__epochs=2, fusion__epochs=1))
    variables = train.initial_variables(built)
    results = evaluate.evaluate(built, None, variables).results
    calibration = PatternCalibration.from_dict(pattern_calibration.of_results(results))
    found = predict.predict(built, variables, built.dataset, "test", calibration)
    names = [pattern_name(present, built.modalities) for present in found.present]
    thresholds = np.array([results["thresholds"]["patterns"][name] for name in names])
    np.testing.assert_array_equal(found.predicted, found.probabilities > thresholds)
    source = built.dataset.source("test")
    expected = sk.f1_score(source.labels(), found.predicted, average="macro", zero_division=0)
    assert results["patterns"]["image+vector"]["tuned_macro_f1"] == pytest.approx(expected)


def test_another_dataset_needs_no_labels_and_not_all_modalities(finished, tmp_path):
    built, trained = finished
    batch = all_rows(built.dataset, "train", built)
    has_image = batch["present"][:, 0]
    dataset = write_images(tmp_path / "new", batch["inputs"]["image"][has_image][:20])

    found = predict.predict(built, trained.fusion, dataset, "test")
    alone = np.tile([True, False], (20, 1))
    inputs = jax.tree.map(lambda x: x[has_image][:20], batch["inputs"])
    logits = jax.jit(built.model.apply)(trained.fusion, inputs, alone)["logits"]
    np.testing.assert_allclose(found.probabilities, softmax(np.asarray(logits, np.float64)), rtol=1e-4)
    np.testing.assert_array_equal(found.present, alone)
    assert found.classes == ("a", "b", "c")  # the model's

    with pytest.raises(UserError, match=r"no split 'val'; it has: test"):
        predict.predict(built, trained.fusion, dataset, "val")
    config.load(f"configs/own_data.py:{tmp_path / 'new'}")
    with pytest.raises(UserError, match=r"has no labels: --mode=predict"):
        experiment.build(small_run.get_config(tmp_path / "new", data__train_split="test"))


@pytest.mark.parametrize(
    ("modality", "value", "message"),
    [
        ({"scan": IMAGE}, np.zeros((8, 8, 1), np.uint8), r"none of the model's modalities, image, audio"),
        (
            {"image": Modality(kind="image", encoding="raw", shape=(9, 8, 1))},
            np.zeros((9, 8, 1), np.uint8),
            r"modality 'image': shape is \(9, 8, 1\), the model was trained on \(8, 8, 1\)",
        ),
        (
            {"audio": Modality(kind="audio", encoding="pcm_s16le", sample_rate=16000)},
            np.ones(700, np.int16),
            r"modality 'audio': sample_rate is 16000, the model was trained on 8000",
        ),
    ],
)
def test_dataset_of_another_form_is_refused(finished, tmp_path, modality, value, message):
    built, trained = finished
    dataset = write_images(tmp_path / "new", [value], modalities=modality)
    with pytest.raises(UserError, match=message):
        predict.predict(built, trained.fusion, dataset, "test")


def test_example_without_any_of_the_model_s_modalities_is_not_predicted(finished, tmp_path):
    built, trained = finished
    other = Modality(kind="tabular", encoding="float32", shape=(2,))
    with DatasetWriter(
        tmp_path / "new", name="new", description="", classes=[], modalities={"image": IMAGE, "other": other}
    ) as writer:
        writer.write("test", id="nothing", other=np.ones(2, np.float32))
        writer.write("test", id="image", image=np.full((8, 8, 1), 9, np.uint8))
    found = predict.predict(built, trained.fusion, open_dataset(tmp_path / "new"), "test")
    assert np.isnan(found.probabilities[0]).all() and np.isfinite(found.probabilities[1]).all()
    nothing, image = list(csv.DictReader(predict.to_csv(found).splitlines()))
    assert nothing == {"id": "nothing", "present": "", "prediction": "", "probability": ""}
    assert image["prediction"] in ("a", "b", "c")


def test_several_labels_are_those_above_one_half(tmp_path):
    test_multi_label.write_dataset(tmp_path / "labels")
    built = experiment.build(test_multi_label.get_config(tmp_path / "labels", unimodal__epochs=2, fusion__epochs=1))
    found = predict.predict(built, train.initial_variables(built), built.dataset, "test")
    np.testing.assert_array_equal(found.predicted, found.probabilities > 0.5)
    rows = csv.DictReader(predict.to_csv(found).splitlines())
    chosen = [[name for name, k in zip("wxyz", row, strict=True) if k] for row in found.predicted]
    assert [row["prediction"].split("|") if row["prediction"] else [] for row in rows] == chosen
    assert 0 < found.predicted.mean() < 1


def test_files_hold_the_same_for_people_and_programs(finished, tmp_path):
    built, trained = finished
    found = predict.predict(built, trained.fusion, built.dataset, "test")
    predict.write(found, tmp_path / "predictions", "small_test")
    arrays = np.load(tmp_path / "predictions" / "small_test.npz")
    rows = list(csv.DictReader((tmp_path / "predictions" / "small_test.csv").read_text().splitlines()))
    assert [row["id"] for row in rows] == arrays["ids"].tolist() == found.ids
    best = arrays["probabilities"].argmax(axis=1)
    assert [row["prediction"] for row in rows] == arrays["classes"][best].tolist()
    assert [row["probability"] for row in rows] == [f"{p:.4f}" for p in arrays["probabilities"].max(axis=1)]
    names = np.array(["", "image", "audio", "image+audio"])
    assert [row["present"] for row in rows] == names[arrays["present"] @ [1, 2]].tolist()


def test_files_are_named_after_the_dataset_whatever_its_name(tmp_path):
    """Another one than that of the training has its fingerprint in the name, so that none replaces another's file."""
    image, black = np.full((8, 8, 1), 9, np.uint8), np.zeros((8, 8, 1), np.uint8)
    dataset = write_images(tmp_path / "new", [black], name="food été 1.0")
    assert predict.file_name(dataset, "test", dataset) == "food_été_1.0_test"
    others = [write_images(tmp_path / str(n), n * [image], name="food été 1.0") for n in (2, 3)]
    names = [predict.file_name(other, "test", dataset) for other in others]
    assert names == [f"food_été_1.0_test_{other.fingerprint[:8]}" for other in others]
    assert len({*names, predict.file_name(dataset, "test", dataset)}) == 3
    long = write_images(tmp_path / "long", [image], name="x" * 120)
    assert len(predict.file_name(long, "test", dataset)) < 130


def test_no_text_is_a_formula_or_a_command():
    ids = [
        "=1+1",
        "+cmd|' /C calc'!A0",
        "@SUM(A1)",
        "-2+3",
        " =1",
        "\uff1d1",
        "\x1b[31mred",
        "\ttab",
        "two\nlines",
        "-12",
        "ok",
    ]
    found = predict.Predictions(
        ids,
        ("image",),
        np.ones((len(ids), 1), bool),
        ("=A1", "b"),
        False,
        np.tile(np.float32([0.75, 0.25]), (len(ids), 1)),
    )
    rows = list(csv.DictReader(predict.to_csv(found).splitlines()))
    assert [row["id"] for row in rows] == [
        *("'=1+1", "'+cmd|' /C calc'!A0", "'@SUM(A1)", "'-2+3", "' =1", "'\uff1d1"),
        *(r"\x1b[31mred", r"\ttab", r"two\nlines", "-12", "ok"),
    ]
    assert {row["prediction"] for row in rows} == {"'=A1"}


def test_columns_in_another_order_give_the_same_predictions(tmp_path):
    """Rows with holes, of a model that was trained on such; what is not as in training is told."""
    names, draw = ("a", "b", "c"), np.random.default_rng(0)
    values = draw.normal(size=(60, 3)).astype(np.float32)
    values[draw.random(values.shape) < 0.2] = np.nan
    values[np.isnan(values).all(axis=1)] = 0

    def write(path, columns, split, classes):
        table = Modality(kind="tabular", encoding="float32", shape=(len(columns),), columns=columns)
        modalities = {"table": table, "note": Modality(kind="tabular", encoding="float32", shape=(1,))}
        with DatasetWriter(path, name="t", description="", classes=classes, modalities=modalities) as writer:
            for number, row in enumerate(values):
                chosen = np.array([row[names.index(name)] if name in names else 7 for name in columns], np.float32)
                label = int(number % 2) if classes else None
                writer.write(split or "test", id=str(number), label=label, table=chosen, note=np.ones(1, np.float32))
                if split:
                    writer.write("test", id=str(number), label=label, table=chosen, note=np.ones(1, np.float32))
        return open_dataset(path)

    write(tmp_path / "trained", names, "train", ["x", "y"])
    built = experiment.build(config.load(f"configs/own_data.py:{tmp_path / 'trained'}"))
    variables = jax.tree.map(lambda x: x + 0.1 * draw.normal(size=x.shape), train.initial_variables(built))
    expected = predict.predict(built, variables, built.dataset, "test")
    other = write(tmp_path / "other", ("c", "d", "a", "b"), None, [])
    found = predict.predict(built, variables, other, "test")
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)
    assert np.isfinite(found.probabilities).all() and np.ptp(found.probabilities[:, 0]) > 0.01
    assert expected.notes == ()
    assert found.notes == (f"{tmp_path}/other: modality 'table': d ignored, the model was not trained on them",)
