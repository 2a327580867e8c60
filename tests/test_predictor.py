"""Three lines of Python: a table in, a model that answers for whatever is left of a row out."""

import doctest
import shutil
import subprocess
import sys

import numpy as np
import pytest

import umemma_jax as um
from umemma_jax import cli, fitting, predictor, serving
from umemma_jax.errors import UserError

pytestmark = pytest.mark.usefixtures("one_device")

WORDS = {"shoe": "sole lace heel walk", "shirt": "sleeve collar button cotton", "watch": "dial strap hour steel"}
QUICK = {"unimodal.epochs": 6, "fusion.epochs": 2, "evaluation.resamples": 50, "evaluation.seeds": 1}


def rows(count, seed):
    """Titles of a few words and two numbers, by class; every fifth row lacks one of both."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        label = list(WORDS)[number % 3]
        words = rng.choice([*WORDS[label].split(), "nice", "new", "blue", "old"], 4)
        row = {"kind": label, "title": " ".join(words), "price": 10 * (number % 3) + rng.normal(0, 6)}
        row["weight"] = rng.normal(number % 3, 1.5)
        if number % 5 == 0:
            row |= {"title": ""} if number % 2 else {"price": None, "weight": None}
        found.append(row)
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit") / "run"
    return um.fit(rows(150, 0), "kind", folder, validation=rows(60, 1), test=rows(60, 2), config=QUICK)


@pytest.fixture(scope="module")
def workdir(model):
    return model.folder.parent


def test_it_learns(model):
    assert model.modalities == ("tabular", "title")
    assert model.classes == ("shirt", "shoe", "watch")
    assert model.quality["tabular+title"] > 0.8
    assert min(model.quality.values()) > 0.5


def test_an_answer_for_one_row_with_whatever_it_has(model):
    answer = model.predict({"title": "sole lace heel", "price": None})
    assert (answer.prediction, answer.used, answer.quality) == ("shoe", ("title",), model.quality["title"])
    assert answer.probability == pytest.approx(model.predict_proba({"title": "sole lace heel"})[1])
    assert not answer.abstain
    assert model.predict({"title": "sole lace heel"}, floor=1.1).abstain
    assert model.predict({"title": None}).prediction is None


def test_an_answer_does_not_depend_on_the_rows_beside_it_nor_on_the_order_of_columns(model):
    some = rows(20, 3)
    together = model.predict_proba(some)
    for row, probabilities in zip(some, together, strict=True):
        turned = dict(reversed(row.items()))
        np.testing.assert_allclose(model.predict_proba(turned), probabilities, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(together.sum(axis=1), 1, rtol=1e-5)


def test_features_are_of_what_a_row_has(model):
    features = model.features([{"title": "sole"}, {"price": 3.0}])
    for name, row in (("title", 0), ("tabular", 1)):
        assert np.isfinite(features[name][row]).all()
        assert np.isnan(features[name][1 - row]).all()


def test_the_report_on_given_rows_is_the_one_that_fit_made_of_them(model):
    again, made = model.evaluate(rows(60, 2)).results, model.report().results
    for key in ("patterns", "ceilings", "ensembles", "calibration", "conformal", "information"):
        assert flat(again[key]) == pytest.approx(flat(made[key]), rel=1e-4, abs=1e-5), key
    assert "tabular + title" in str(model.report())
    assert "<iframe" in model.report()._repr_html_()


def flat(tree):
    if isinstance(tree, dict):
        return [x for value in tree.values() for x in flat(value)]
    return [x for value in tree for x in flat(value)] if isinstance(tree, list) else [np.nan if tree is None else tree]


def test_the_same_call_does_not_train_again(model, workdir, capsys):
    steps = (workdir / "metrics.jsonl").read_text()
    again = um.fit(rows(150, 0), "kind", workdir, validation=rows(60, 1), test=rows(60, 2), config=QUICK)
    assert (workdir / "metrics.jsonl").read_text() == steps
    np.testing.assert_array_equal(again.predict_proba(rows(5, 4)), model.predict_proba(rows(5, 4)))


def test_a_saved_model_needs_neither_data_nor_run(model, tmp_path):
    model.save(tmp_path / "saved")
    shutil.move(tmp_path / "saved", tmp_path / "moved")
    moved = um.load(tmp_path / "moved")
    np.testing.assert_array_equal(moved.predict_proba(rows(9, 5)), model.predict_proba(rows(9, 5)))
    assert moved.report().results == model.report().results


def test_the_command_line_goes_on_with_the_run(model, workdir):
    assert cli.run(["main.py", f"--workdir={workdir}", "--mode=predict"]) == 0
    (written,) = (workdir / "predictions").glob("*.npz")
    with np.load(written) as arrays:
        np.testing.assert_allclose(arrays["probabilities"], model.predict_proba(rows(60, 2)), rtol=1e-4, atol=1e-5)


def test_the_command_line_exports_the_model(model, workdir, capsys):
    """It says the same of titles, which its file can read; JAX and NumPy are enough for it."""
    assert cli.run(["main.py", f"--workdir={workdir}", "--mode=export", "--format=stablehlo"]) == 0
    path = workdir / "export" / "model.stablehlo"
    assert f"Exported: {path}" in capsys.readouterr().out
    titles = [row["title"] for row in rows(40, 6) if row["title"]]
    said = serving.load(path).predict({"title": titles})
    wanted = model.predict_proba([{"title": title} for title in titles])
    np.testing.assert_allclose(said["probabilities"], wanted, rtol=1e-5, atol=1e-6)


def test_the_examples_of_the_documentation(model, workdir):
    given = {"train": rows(150, 0), "validation": rows(60, 1), "test": rows(60, 2), "config": QUICK}
    found = doctest.testmod(predictor, extraglobs={**given, "model": model, "workdir": workdir})
    assert found.attempted >= 9
    assert not found.failed


def test_the_examples_of_fitting_and_a_fold_is_a_model(workdir):
    """The model is trained already, so that `fit` only reports."""
    given = {"train": rows(150, 0), "validation": rows(60, 1), "test": rows(60, 2), "config": QUICK}
    found = doctest.testmod(fitting, extraglobs={**given, "workdir": workdir})
    assert found.attempted >= 4
    assert not found.failed
    folds = um.cross_validate(given["train"], "kind", workdir / "folds", folds=2, config=QUICK)  # trains nothing
    assert "all folds" in str(folds)
    assert um.load(folds.folders[1]).classes == ("shirt", "shoe", "watch")
    with pytest.raises(UserError, match="holds a run of other data"):
        um.cross_validate(rows(150, 9), "kind", workdir / "folds", folds=2, config=QUICK)
    with pytest.raises(UserError, match="folds=1: is no whole number from 2 on"):
        um.cross_validate(given["train"], "kind", folds=1)


def test_programs_are_not_made_anew(model):
    model.predict({"title": "dial"})
    made = model.traces
    for title in ("strap", "steel hour"):
        model.predict({"title": title})
    assert model.traces == made


def test_the_package_loads_quickly_and_without_jax():
    code = "import sys, umemma_jax; print('jax' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


# Bad input.


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"titel": "sole"}, r"no column that the model knows, which are price, weight, title.*is 'titel' meant"),
        ({"price": "cheap"}, r"data\[0\]: 'cheap' in column 'price' is no"),
        ({"price": float("inf")}, r"data\[0\].*'price'"),
    ],
)
def test_a_row_that_cannot_be_understood(model, row, message):
    with pytest.raises(UserError, match=message):
        model.predict(row)


def test_a_class_that_training_never_saw(model):
    row = {**rows(1, 0)[0], "kind": "hat"}
    with pytest.raises(UserError, match=r"data\[0\]: class 'hat' is never seen in training"):
        model.evaluate([row])


def test_rows_without_labels_are_no_test(model):
    with pytest.raises(UserError, match="--label=kind: none of the 1 rows has a label"):
        model.evaluate([{"title": "sole"}])


def test_other_data_need_another_workdir(model, workdir):
    with pytest.raises(UserError, match="holds a run of other data"):
        um.fit(rows(150, 9), "kind", workdir, validation=rows(60, 1), test=rows(60, 2), config=QUICK)


def test_a_column_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"no column 'kinds'.*is 'kind' meant"):
        um.fit(rows(9, 0), "kinds", tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "base", "checkpoints": "nowhere"}, "checkpoints='nowhere': no such folder"),
        ({"seed": -1}, "seed=-1: is no whole number from 0 on"),
        ({"time_limit": "soon"}, "config.time_limit: 'soon' does not fit"),
        ({"modalities": {"a+b": ["price"]}}, r"modality 'a\+b': up to 100 letters"),
        ({"preset": "huge"}, "preset='huge': unknown, use small or base"),
        ({"preset": "base"}, "checkpoints='': none for tabular, title"),
        ({"checkpoints": "x"}, "are for preset='base'"),
        ({"na_value": ["-"]}, "no option 'na_value' .is 'na_values' meant"),
        ({"folds": 5}, "use cross_validate"),
        ({"required": ("title",), "optional": ("title",)}, "'title' is both"),
        ({"required": ("sound",)}, "required='sound': no modality, there are tabular, title"),
        ({"config": {"fusion.epoch": 1}}, "config.fusion.epoch: unknown field"),
        ({"config": {"fusion.epochs": "many"}}, "config.fusion.epochs: 'many' does not fit"),
        ({"split": "0.8,0.1,0.1", "test": rows(3, 0)}, "leave it out"),
        ({"method": "magic"}, "unknown method"),
    ],
)
def test_an_option_that_cannot_be(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        um.fit(rows(60, 0), "kind", tmp_path / "run", **options)


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        um.load(tmp_path / "nothing")
    with pytest.raises(UserError, match="no saved model here"):
        um.load(tmp_path)


def test_a_required_input(tmp_path):
    titled = [row for row in rows(80, 0) if row["title"]]
    quick = {**QUICK, "unimodal.epochs": 1, "fusion.epochs": 1}
    fitted = um.fit(titled, "kind", tmp_path / "run", optional=("tabular",), config=quick)
    assert fitted.predict({"title": "sole"}).used == ("title",)
    with pytest.raises(UserError, match=r"data\[0\]: lacks 'title', which this model requires"):
        fitted.predict({"price": 3})


def test_rows_that_lack_a_required_input_are_counted(tmp_path):
    with pytest.raises(UserError, match="required='title': 6 rows lack it"):
        um.fit(rows(60, 0), "kind", tmp_path / "run", required=("title",))


def test_what_was_prepared_but_not_trained_on_is_prepared_anew(tmp_path):
    with pytest.raises(UserError, match="required='sound'"):
        um.fit(rows(60, 0), "kind", tmp_path / "run", required=("sound",))
    with pytest.raises(UserError, match="required='noise'"):
        um.fit(rows(60, 1), "kind", tmp_path / "run", required=("noise",))
