import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from umemma_jax.evaluation import bootstrap
from umemma_jax.evaluation.bootstrap import Resamples, interval


def drawn(resamples, num_examples):
    """The rows of each resample: what `means` of one-hot values finds, spelled out."""
    counts = np.rint(num_examples * resamples.means(np.eye(num_examples), np.ones(num_examples, bool))).astype(int).T
    return [np.repeat(np.arange(num_examples), row) for row in counts]


def test_each_resample_has_as_many_examples_as_there_are():
    rows = drawn(Resamples(50, resamples=20), 50)
    assert [len(row) for row in rows] == [50] * 20
    assert len({tuple(row) for row in rows}) == 20


def test_counts_are_multinomial():
    values = np.random.default_rng(1).normal(size=400)
    means = Resamples(400, resamples=4000).means(values, np.ones(400, bool))
    assert means.mean() == pytest.approx(values.mean(), abs=4 * values.std() / np.sqrt(400 * 4000))
    assert means.std() == pytest.approx(values.std() / 20, rel=0.05)


def test_the_same_seed_draws_the_same():
    values, counted = np.arange(30.0), np.ones(30, bool)
    first, second, other = (Resamples(30, resamples=9, seed=s).means(values, counted) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


@pytest.mark.parametrize("block_bytes", [2**26, 1000])
def test_means_are_over_the_rows_that_count(monkeypatch, block_bytes):
    monkeypatch.setattr(bootstrap, "BLOCK_BYTES", block_bytes)
    rng = np.random.default_rng(0)
    resamples = Resamples(40, resamples=30)
    values, counted = rng.random((2, 3, 40)), rng.random((2, 3, 40)) < 0.7
    values[~counted] = np.nan
    means = resamples.means(values, counted)
    assert means.shape == (2, 3, 30)
    for r, rows in enumerate(drawn(resamples, 40)):
        np.testing.assert_allclose(means[..., r], np.nanmean(values[..., rows], axis=-1), rtol=1e-6)


def test_counts_of_right_answers_are_exact():
    resamples = Resamples(3000, resamples=50)
    right = np.random.default_rng(0).random(3000) < 0.9
    whole = resamples.means(right, np.ones(3000, bool)) * 3000
    np.testing.assert_allclose(whole, np.rint(whole), atol=1e-9)


@pytest.mark.parametrize("classes", [2, 6])
def test_macro_f1_is_scikit_learn_s_of_each_resample(classes):
    rng = np.random.default_rng(0)
    resamples = Resamples(25, resamples=40)
    label, predicted = rng.random((25, classes)) < 0.15, rng.random((3, 25, classes)) < 0.2
    counted = rng.random((3, 25)) < 0.8
    found = resamples.macro_f1(predicted, label, counted)
    assert found.shape == (3, 40)
    for r, rows in enumerate(drawn(resamples, 25)):
        for v in range(3):
            kept = rows[counted[v][rows]]
            expected = sk.f1_score(label[kept], predicted[v][kept], average="macro", zero_division=0)
            assert found[v, r] == pytest.approx(expected if label[kept].any() else np.nan, abs=1e-9, nan_ok=True)


def test_macro_f1_of_classes():
    rng = np.random.default_rng(0)
    resamples = Resamples(60, resamples=20)
    label, predicted = rng.integers(4, size=(2, 60))
    one_hot = np.eye(5, dtype=bool)
    found = resamples.macro_f1(one_hot[predicted], one_hot[label], np.ones(60, bool))
    for r, rows in enumerate(drawn(resamples, 60)):
        expected = sk.f1_score(label[rows], predicted[rows], labels=range(5), average="macro", zero_division=0)
        assert found[r] == pytest.approx(expected, abs=1e-9)


def test_a_model_does_not_differ_from_itself():
    resamples = Resamples(100, resamples=50)
    right = np.random.default_rng(0).random((2, 100)) < 0.6
    right[1] = right[0]
    means = resamples.means(right, np.ones(100, bool))
    assert interval(means[0] - means[1]) == (0, 0)


def test_interval_is_scipy_s():
    values = np.random.default_rng(0).random(80) < 0.7
    low, high = interval(Resamples(80, resamples=20000).means(values, np.ones(80, bool)), level=0.9)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=20000, confidence_level=0.9, method="percentile", rng=1
    ).confidence_interval
    np.testing.assert_allclose((low, high), expected, atol=0.0126)  # a row more or less


def test_what_nothing_counts_for_is_undefined():
    resamples = Resamples(10, resamples=20)
    means = resamples.means(np.ones((2, 10)), np.arange(10) < [[0], [1]])
    assert np.isnan(means[0]).all()
    assert np.isnan(means[1]).any()
    low, high = interval(means)
    np.testing.assert_array_equal(low, [np.nan, 1])
    np.testing.assert_array_equal(high, [np.nan, 1])
    none = np.zeros((10, 3), bool)
    assert np.isnan(resamples.macro_f1(none, none, np.ones(10, bool))).all()
