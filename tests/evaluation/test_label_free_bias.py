"""TLP's bias against SciPy's minimiser on its formula written out, and in a case made for it."""

import numpy as np
import pytest
from scipy import optimize
from scipy.spatial.distance import cdist

from tests.evaluation.said import split
from umemma_jax.errors import UserError
from umemma_jax.evaluation import label_free_bias, robustness
from umemma_jax.reporting.details import details


def softmax(x):
    return np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("multi_label", [False, True])
def test_it_is_the_minimum_of_the_formula(multi_label):
    test, reference = (split(60, multi_label=multi_label, complete=False, seed=seed) for seed in (0, 1))
    found, predict = label_free_bias.fit(test, reference), sigmoid if multi_label else softmax
    complete = reference.available.all(axis=1)
    r = predict(reference.patterns["a+b"][complete].astype(float))
    rows = test.left[2] == 2
    logits, others = test.patterns["b"][rows].astype(float), reference.patterns["b"][complete].astype(float)
    nearest = r[cdist(predict(logits), predict(others)).argmin(axis=1)]

    def formula(bias):
        q = predict(logits + bias)
        divergence = nearest * np.log(nearest / q)
        if multi_label:
            divergence = divergence + (1 - nearest) * np.log((1 - nearest) / (1 - q))
        return ((q.mean(axis=0) - r.mean(axis=0)) ** 2).sum() + divergence.sum() / q.size

    expected = optimize.minimize(formula, np.zeros(4), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-12})
    assert formula(found[2]) <= expected.fun + 1e-7
    assert not found[0].any()


@pytest.mark.parametrize("multi_label", [False, True])
def test_neither_labels_nor_what_is_absent_are_looked_at(multi_label):
    test, reference = (split(40, multi_label=multi_label, complete=False, seed=seed) for seed in (0, 1))
    found = label_free_bias.fit(test, reference)
    for one in (test, reference):
        one.label[:] = 0
        for index, m in enumerate(one.modalities):
            one.unimodal[m][~one.available[:, index]] = 1e9
    np.testing.assert_array_equal(label_free_bias.fit(test, reference), found)


def shifted(seed):
    """A modality alone that says the same of every class but the first, which it hardly ever says."""
    made = split(400, seed=seed)
    patterns = {name: made.patterns[name].copy() for name in made.patterns}
    patterns["b"][:, 0] -= 3.0
    return made.__class__(**{**vars(made), "patterns": patterns})


def test_a_threshold_in_the_wrong_place_is_put_right():
    test, validation = shifted(0), shifted(1)
    plain = robustness.report(test, validation, robustness.Options(resamples=100)).results
    results = robustness.report(test, validation, robustness.Options(resamples=100, label_free_bias=True)).results
    found = results.pop("label_free_bias")
    assert results == plain
    assert found["bias"]["b"][0] - np.mean(found["bias"]["b"][1:]) == pytest.approx(3, abs=0.5)
    gained = found["patterns"]["b"]["accuracy"] - results["patterns"]["b"]["accuracy"]
    low, high = found["gained"]["b"]
    assert 0.05 < low < gained < high
    assert found["patterns"]["a+b"] == results["patterns"]["a+b"] and found["gained"]["a+b"] == [0, 0]
    [table] = [part for part in details({**results, "label_free_bias": found}) if "without labels" in part.title]
    assert [row[0] for row in table.rows] == ["everything there", "without b", "without a"]


def test_what_it_needs():
    with pytest.raises(UserError, match="needs validation examples"):
        robustness.report(split(), None, robustness.Options(label_free_bias=True))
