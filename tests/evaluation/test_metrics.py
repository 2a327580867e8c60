import jax
import numpy as np
import pytest
from sklearn import metrics as sk

from umemma_jax.evaluation import calibration, metrics


@pytest.mark.parametrize("seed", range(3))
def test_accuracy_and_macro_f1_are_scikit_learn_s(seed):
    rng = np.random.default_rng(seed)
    label, predicted = rng.integers(7, size=(2, 50)).astype(np.int32)
    predicted[:20] = label[:20]
    label[label == 6] = 5  # a class that is predicted, never there
    weight = (rng.random(50) < 0.7).astype(np.float32)
    sums = jax.device_get(metrics.class_sums(predicted, label, weight, 8))  # class 7: neither
    found = metrics.scores(sums)
    kept = weight > 0
    expected_f1 = sk.f1_score(label[kept], predicted[kept], labels=range(8), average="macro", zero_division=0)
    np.testing.assert_allclose(found["accuracy"], sk.accuracy_score(label[kept], predicted[kept]), rtol=1e-6)
    np.testing.assert_allclose(found["macro_f1"], expected_f1, rtol=1e-6)


def test_sums_of_parts_add_up_to_the_whole():
    rng = np.random.default_rng(0)
    label, predicted = rng.integers(3, size=(2, 40))
    weight = np.ones(40, np.float32)
    whole = metrics.class_sums(predicted, label, weight, 3)
    parts = [
        metrics.class_sums(predicted[i : i + 13], label[i : i + 13], weight[i : i + 13], 3) for i in (0, 13, 26, 39)
    ]
    jax.tree.map(lambda total, *each: np.testing.assert_array_equal(total, sum(each)), whole, *parts)


def test_nothing_counted_is_nan_not_zero():
    sums = metrics.class_sums(np.zeros(4, int), np.zeros(4, int), np.zeros(4, np.float32), 3)
    assert np.isnan(metrics.scores(jax.device_get(sums))["accuracy"])


def test_rows_without_any_class_define_no_score():
    label = np.zeros((4, 3), np.float32)
    sums = jax.device_get(metrics.class_sums(label > 0, label, np.ones(4, np.float32), 3))
    assert all(np.isnan(value) for value in metrics.scores(sums).values())
    assert np.isnan(metrics.mean_average_precision(label, label, np.ones(4, np.float32)))


def test_undefined_is_none_at_any_depth():
    found = metrics.undefined_as_none({"a": [{"b": float("nan"), "c": 0.5}], "d": "nan", "e": 3})
    assert found == {"a": [{"b": None, "c": 0.5}], "d": "nan", "e": 3}


def test_counts_are_exact_where_float32_s_are_not():
    rows = 2**24 + 5
    predicted = np.zeros(rows, np.int32)
    count = jax.jit(metrics.class_sums, static_argnums=3)
    sums = jax.device_get(count(predicted, predicted, np.ones(rows, np.float32), 2))
    assert int(np.float32(rows)) != rows
    for name in ("true_positives", "predicted", "actual"):
        np.testing.assert_array_equal(sums[name], [rows, 0])
    assert sums["rows"] == rows


# Multi-label.


def multi_label_rows(rows=60, classes=6, seed=0):
    """Logits with ties, labels, weights: class 0 is never there, class 1 nor predicted either, row 0 has none."""
    rng = np.random.default_rng(seed)
    logits = np.round(rng.normal(size=(rows, classes)), 1).astype(np.float32)
    label = (rng.random((rows, classes)) < 0.3).astype(np.float32)
    label[:, :2] = 0
    logits[:, 1] = -9
    label[0], logits[0] = 0, -9
    weight = (rng.random(rows) < 0.7).astype(np.float32)
    weight[0] = 1
    return logits, label, weight


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("threshold", [0.5, 0.31])
def test_multi_label_f1_is_scikit_learn_s(seed, threshold):
    logits, label, weight = multi_label_rows(seed=seed)
    predicted = logits > metrics.logit(np.array(threshold))
    found = metrics.scores(jax.device_get(metrics.class_sums(predicted, label, weight, 6)))
    assert list(found) == ["macro_f1", "micro_f1", "weighted_f1", "samples_f1"]
    kept = weight > 0
    for name, value in found.items():
        average = name.removesuffix("_f1")
        expected = sk.f1_score(label[kept], predicted[kept], average=average, zero_division=0)
        np.testing.assert_allclose(value, expected, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("seed", range(3))
def test_mean_average_precision_is_scikit_learn_s(seed):
    logits, label, weight = multi_label_rows(seed=seed)
    kept, there = weight > 0, label[weight > 0].any(axis=0)
    assert not there.all(), "a class without positives has no average precision, and is left out of the mean"
    expected = sk.average_precision_score(label[kept][:, there], logits[kept][:, there], average="macro")
    np.testing.assert_allclose(metrics.mean_average_precision(logits, label, weight), expected, rtol=1e-6)


def test_mean_average_precision_of_nothing_is_nan():
    logits, label, weight = multi_label_rows()
    assert np.isnan(metrics.mean_average_precision(logits, label, 0 * weight))


def test_multi_label_sums_of_parts_add_up_to_the_whole():
    logits, label, weight = multi_label_rows()
    whole = metrics.class_sums(logits > 0, label, weight, 6)
    parts = [metrics.class_sums(logits[i::3] > 0, label[i::3], weight[i::3], 6) for i in range(3)]
    jax.tree.map(lambda total, *each: np.testing.assert_allclose(total, sum(each), rtol=1e-6), whole, *parts)


def test_multi_label_metrics_are_the_same_to_the_bit_in_any_order_of_rows():
    logits, label, weight = multi_label_rows(rows=1001)
    orders = [np.random.default_rng(seed).permutation(1001) for seed in range(4)]
    found = []
    for order in (np.arange(1001), *orders):
        sums = jax.device_get(metrics.class_sums(logits[order] > 0, label[order], weight[order], 6))
        precision = metrics.mean_average_precision(logits[order], label[order], weight[order])
        found.append({**metrics.scores(sums), "mAP": float(precision)})
    assert all(scores == found[0] for scores in found)


def test_multi_label_nothing_counted_is_nan_not_zero():
    logits, label, weight = multi_label_rows()
    found = metrics.scores(jax.device_get(metrics.class_sums(logits > 0, label, 0 * weight, 6)))
    assert all(np.isnan(value) for value in found.values())


def test_thresholds_are_the_hundredths_nearest_a_half_first():
    np.testing.assert_array_equal(np.sort(calibration.THRESHOLDS), np.arange(1, 100) / 100)
    assert calibration.THRESHOLDS[0] == 0.5
    assert metrics.logit(calibration.THRESHOLDS[:1]) == 0
