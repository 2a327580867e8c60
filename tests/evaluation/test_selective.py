import numpy as np

from umemma_jax.evaluation.selective import aurc


def area(confidence, loss):
    """By the definition, for rows without ties: risk at each coverage, one after the other."""
    order = sorted(range(len(loss)), key=lambda row: -confidence[row])
    risks = [sum(loss[row] for row in order[:n]) / n for n in range(1, len(order) + 1)]
    return sum(risks) / len(risks)


def test_area_is_that_of_the_definition():
    rng = np.random.default_rng(0)
    confidence, loss = rng.random(200), rng.integers(2, size=200)
    np.testing.assert_allclose(aurc(confidence, loss), area(confidence, loss), rtol=1e-12)


def test_best_and_worst_order():
    loss = np.array([0, 0, 0, 1])
    assert aurc(np.array([4, 3, 2, 1]), loss) == (0 + 0 + 0 + 1 / 4) / 4
    assert aurc(np.array([1, 2, 3, 4]), loss) == (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4


def test_ties_count_as_the_mean_over_their_orders():
    rng = np.random.default_rng(0)
    confidence, loss = rng.integers(4, size=30) / 4, rng.integers(2, size=30)
    orders = [area(confidence + 1e-6 * rng.random(30), loss) for _ in range(4000)]
    np.testing.assert_allclose(aurc(confidence, loss), np.mean(orders), atol=4 * np.std(orders) / np.sqrt(4000))
    order = rng.permutation(30)
    assert aurc(confidence[order], loss[order]) == aurc(confidence, loss)


def test_area_of_nothing_is_undefined():
    assert np.isnan(aurc(np.empty(0), np.empty(0)))
