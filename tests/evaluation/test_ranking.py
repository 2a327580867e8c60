import numpy as np

from umemma_jax.evaluation.ranking import ranked


def test_values_of_equal_confidence_are_averaged():
    confidence, values = ranked(np.array([0.9, 0.2, 0.9, 0.5]), np.array([1, 0, 0, 1]))
    np.testing.assert_array_equal(confidence, [0.2, 0.5, 0.9, 0.9])
    np.testing.assert_array_equal(values, [0, 1, 0.5, 0.5])


def test_nothing_is_ranked_as_nothing():
    assert [len(part) for part in ranked(np.empty(0), np.empty(0))] == [0, 0]
