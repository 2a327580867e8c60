import numpy as np
import pytest
from sklearn import metrics as sk

from umemma_jax.evaluation import metrics


@pytest.mark.parametrize("seed", range(3))
def test_accuracy_and_macro_f1_are_scikit_learn_s(seed):
    label, predicted = np.random.default_rng(seed).integers(7, size=(2, 50))
    predicted[:20] = label[:20]
    label[label == 6] = 5  # a class that is predicted, never there
    found = metrics.scores(predicted, label, 8)  # class 7: neither
    expected_f1 = sk.f1_score(label, predicted, labels=range(8), average="macro", zero_division=0)
    assert found == pytest.approx({"accuracy": sk.accuracy_score(label, predicted), "macro_f1": expected_f1}, rel=1e-6)


def test_nothing_counted_is_nan_not_zero():
    nothing = np.zeros(0, int)
    assert np.isnan(list(metrics.scores(nothing, nothing, 3).values())).all()


def test_undefined_is_none_at_any_depth():
    found = metrics.undefined_as_none({"a": [{"b": float("nan"), "c": 0.5}], "d": "nan", "e": 3})
    assert found == {"a": [{"b": None, "c": 0.5}], "d": "nan", "e": 3}


def test_scores_of_logits_are_of_the_most_probable_class():
    logits, label = np.array([[0.1, 2, 1], [5, 1, 1], [0, 0, 1.0]]), np.array([1, 0, 0])
    assert metrics.of_logits(logits, label) == metrics.scores(np.array([1, 0, 2]), label, 3)


# Multi-label.


def multi_label_rows(rows=60, classes=6, seed=0):
    """Logits with ties, labels: class 0 is never there, class 1 nor predicted either, row 0 has none."""
    rng = np.random.default_rng(seed)
    logits = np.round(rng.normal(size=(rows, classes)), 1).astype(np.float32)
    label = rng.random((rows, classes)) < 0.3
    label[:, :2] = False
    logits[:, 1] = -9
    label[0], logits[0] = False, -9
    return logits, label


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("cut", [0, -0.8])
def test_multi_label_f1_is_scikit_learn_s(seed, cut):
    logits, label = multi_label_rows(seed=seed)
    averages = ("macro", "micro", "weighted", "samples")
    expected = {f"{a}_f1": sk.f1_score(label, logits > cut, average=a, zero_division=0) for a in averages}
    assert metrics.scores(logits > cut, label, 6) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_mean_average_precision_is_scikit_learn_s(seed):
    logits, label = multi_label_rows(seed=seed)
    there = label.any(axis=0)
    assert not there.all(), "a class without positives has no average precision, and is left out of the mean"
    expected = sk.average_precision_score(label[:, there], logits[:, there], average="macro")
    assert metrics.mean_average_precision(logits, label) == pytest.approx(expected, rel=1e-6)
    scores = {**metrics.scores(logits > 0, label, 6), "mAP": expected}
    assert metrics.of_logits(logits, label.astype(np.float32)) == pytest.approx(scores, rel=1e-6)


@pytest.mark.parametrize("rows", [0, 4])
def test_rows_without_any_class_define_no_score(rows):
    logits, label = np.zeros((rows, 3)), np.zeros((rows, 3), bool)
    assert np.isnan(list(metrics.of_logits(logits, label).values())).all()
