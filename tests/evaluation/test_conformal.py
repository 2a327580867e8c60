import numpy as np
import pytest

from umemma_jax.evaluation import conformal


def single_label(rows, seed=0, classes=6):
    rng = np.random.default_rng(seed)
    found = rng.dirichlet(np.ones(classes) / 2, size=rows)
    return found, np.array([rng.choice(classes, p=p) for p in found])


def multi_label(rows, seed=0, classes=8):
    rng = np.random.default_rng(seed)
    found = rng.beta(0.4, 1.2, size=(rows, classes))
    return found, rng.random((rows, classes)) < found


def fitted(probabilities, label, alpha=0.1):
    return conformal.quantile(conformal.scores(probabilities, label), alpha)


@pytest.mark.parametrize("rows", [1, 8, 9, 10, 29, 99, 100, 1234])
@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.25])
def test_single_label_quantile_is_split_conformal_prediction_s(rows, alpha):
    found, label = single_label(rows)
    score = np.sort(1 - found[np.arange(rows), label])
    rank = int(np.ceil(round((rows + 1) * (1 - alpha), 9)))
    assert fitted(found, label, alpha) == (score[rank - 1] if rank <= rows else np.inf)


@pytest.mark.parametrize("rows", [5, 40, 301])
def test_multi_label_quantile_is_the_lowest_that_controls_the_risk(rows):
    found, label = multi_label(rows)
    found, label = found[label.any(axis=1)], label[label.any(axis=1)]

    def bound(q):
        lacking = [np.mean(1 - p[true] > q) for p, true in zip(found, label, strict=True)]
        return (sum(lacking) + 1) / (len(lacking) + 1)

    allowed = [q for q in (1 - found)[label] if bound(q) <= 0.1 + 1e-9]
    assert fitted(found, label) == (min(allowed) if allowed else np.inf)


def test_one_true_class_each_makes_both_rules_the_same():
    found, label = single_label(200)
    indicators = label[:, None] == np.arange(6)
    q = fitted(found, label)
    assert fitted(found, indicators) == q
    assert conformal.coverage_and_size(found, indicators, q) == conformal.coverage_and_size(found, label, q)


def test_examples_without_a_class_do_not_count():
    found, label = multi_label(50)
    more = np.concatenate([found, found]), np.concatenate([label, np.zeros_like(label)])
    q = fitted(found, label)
    assert fitted(*more) == q
    assert conformal.coverage_and_size(*more, q) == conformal.coverage_and_size(found, label, q)


def test_coverage_and_size_count_what_the_sets_hold():
    found = np.array([[0.7, 0.2, 0.1], [0.4, 0.4, 0.2]])
    np.testing.assert_array_equal(conformal.sets(found, 0.65), [[True, False, False], [True, True, False]])
    assert conformal.coverage_and_size(found, np.array([0, 2]), 0.65) == (0.5, 1.5)
    label = np.array([[True, True, False], [True, True, False]])
    assert conformal.coverage_and_size(found, label, 0.65) == (0.75, 1.5)
    assert conformal.coverage_and_size(found, label, np.inf) == (1, 3)


def test_nothing_to_cover_is_undefined():
    found = np.full((2, 3), 1 / 3)
    assert np.isnan(conformal.coverage_and_size(found, np.zeros((2, 3), bool), 0.5)).all()
    assert fitted(found[:0], np.empty(0, int)) == np.inf


@pytest.mark.parametrize("make", [single_label, multi_label])
def test_coverage_is_what_was_promised(make):
    coverage = []
    for seed in range(200):
        found, label = make(1100, seed)
        q = fitted(found[:100], label[:100])
        coverage.append(conformal.coverage_and_size(found[100:], label[100:], q)[0])
    assert 0.9 - 3 * np.std(coverage) / np.sqrt(200) <= np.mean(coverage) <= 0.91 + 3 * np.std(coverage) / np.sqrt(200)
