import jax
import numpy as np
import pytest
from sklearn import metrics as sk

from umemma_jax import metrics


@pytest.mark.parametrize("seed", range(3))
def test_accuracy_and_macro_f1_are_scikit_learn_s(seed):
    rng = np.random.default_rng(seed)
    label, predicted = rng.integers(7, size=(2, 50)).astype(np.int32)
    predicted[:20] = label[:20]
    label[label == 6] = 5  # a class that is predicted, never there
    weight = (rng.random(50) < 0.7).astype(np.float32)
    sums = jax.device_get(metrics.class_sums(predicted, label, weight, 8))  # class 7: neither
    found = metrics.classification(sums)
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
    assert np.isnan(metrics.classification(jax.device_get(sums))["accuracy"])
