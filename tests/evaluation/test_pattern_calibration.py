import dataclasses
import json

import numpy as np
import pytest

from tests.evaluation.said import split
from umemma_jax import checksums
from umemma_jax.errors import UserError
from umemma_jax.evaluation import calibration, conformal, pattern_calibration, robustness

OPTIONS = robustness.Options(rates=(0.5,), seeds=1, resamples=5)


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_pattern_is_fitted_on_the_examples_that_have_all_of_it(multi_label):
    validation = split(multi_label=multi_label, complete=False)
    found = pattern_calibration.fit(validation, alpha=0.2)
    for number, (name, pattern) in enumerate({"a+b": [0, 1], "a": [0], "b": [1]}.items()):
        rows = validation.available[:, pattern].all(axis=1)
        rows &= validation.label.any(axis=1) if multi_label else True
        logits, label = validation.patterns[name][rows], validation.label[rows]
        temperature = calibration.temperature(logits, label, rows[rows])
        assert found.temperatures[number] == temperature
        scores = conformal.scores(calibration.probabilities(logits / temperature, multi_label), label)
        assert found.quantiles[number] == pytest.approx(conformal.quantile(scores, 0.2))
        if multi_label:
            expected = calibration.class_thresholds(logits / temperature, label)
            np.testing.assert_array_equal(found.thresholds[number], expected)
    assert found.examples == 200 and (found.thresholds is not None) == multi_label


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_pattern_that_no_validation_example_has_stays_as_it_is(multi_label):
    validation = split(multi_label=multi_label)
    validation.available[:, 1] = False
    found = pattern_calibration.fit(validation, alpha=0.1)
    np.testing.assert_array_equal(np.isnan(found.temperatures), [True, False, True])
    np.testing.assert_array_equal(np.isnan(found.quantiles), [True, False, True])
    left, logits = np.array([0, 1, 2]), np.array([[2.0, -1, 0, 0]] * 3)
    scaled = found.scaled(logits, left)
    np.testing.assert_array_equal(scaled[[0, 2]], logits[[0, 2]])
    np.testing.assert_allclose(scaled[1], logits[1] / found.temperatures[1])
    sets = found.sets(found.probabilities(logits, left, multi_label), left)
    assert sets[1].any() and not sets[[0, 2]].any()
    if multi_label:
        assert (found.thresholds[[0, 2]] == 0.5).all()


def test_few_validation_examples_make_sets_of_every_class():
    found = pattern_calibration.fit(split(examples=5), alpha=0.1)
    assert (found.quantiles == 1).all()
    assert found.sets(np.array([[1.0, 0, 0, 0]]), np.array([0])).all()


@pytest.mark.parametrize("multi_label", [False, True])
def test_what_is_written_is_read(tmp_path, multi_label):
    validation = split(seed=1, multi_label=multi_label, complete=False)
    results = robustness.report(split(multi_label=multi_label), validation, OPTIONS).results
    pattern_calibration.write(results, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["calibration.json"]
    found = pattern_calibration.read(tmp_path, ("a", "b"))
    for name, value in dataclasses.asdict(pattern_calibration.fit(validation, 0.1)).items():
        np.testing.assert_array_equal(getattr(found, name), value)


def test_without_validation_nothing_is_written(tmp_path):
    pattern_calibration.write(robustness.report(split(), None, OPTIONS).results, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert pattern_calibration.read(tmp_path, ("a", "b")) is None


def written(folder):
    pattern_calibration.write(robustness.report(split(), split(seed=1), OPTIONS).results, folder)
    return json.loads((folder / "calibration.json").read_text())


def test_a_file_that_was_edited_or_damaged_is_refused_in_one_line(tmp_path):
    content = written(tmp_path)
    path = tmp_path / "calibration.json"
    content["temperatures"]["a"] *= 2
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="does not match its checksum"):
        pattern_calibration.read(tmp_path, ("a", "b"))
    for key in ("temperatures", "quantiles", "alpha", "examples"):
        for value in (..., None, [], "x", {"a": "x"}):
            other = {name: x for name, x in content.items() if name not in (key, checksums.FIELD)}
            if value is not ...:
                other[key] = value
            path.write_text(json.dumps(other))
            with pytest.raises(UserError, match=r"^[^\n]*calibration\.json is damaged[^\n]*evaluate the run again"):
                pattern_calibration.read(tmp_path, ("a", "b"))
    for text in ("", "[]", "null", "[" * 100_000, "{"):
        path.write_text(text)
        with pytest.raises(UserError, match=r"calibration\.json is damaged"):
            pattern_calibration.read(tmp_path, ("a", "b"))


def test_a_file_of_other_modalities_is_refused(tmp_path):
    written(tmp_path)
    with pytest.raises(UserError, match="it is of other patterns"):
        pattern_calibration.read(tmp_path, ("a", "c"))
