import numpy as np

from umemma_jax.evaluation.bootstrap import Resamples
from umemma_jax.evaluation.ceilings import ENSEMBLE, ceilings
from umemma_jax.evaluation.headline import Headline
from umemma_jax.evaluation.judgement import Judgement

LABEL = np.zeros(10, int)
PATTERNS = ("a+b", "a", "b")


def judged(right, counted=None):
    """Of each pattern how many of ten examples are right, the first ones."""
    predicted = np.stack([(np.arange(10) >= count).astype(int) for count in right])
    counted = np.ones((3, 10), bool) if counted is None else counted
    return Judgement(LABEL, 2, counted, predicted, None, np.zeros((3, 10)), None)


def found(model, ensemble):
    ceilings_of = ceilings(model, ensemble, ("a", "b"), Headline(LABEL, 2, Resamples(10, 2)))
    return {
        name: (ceiling.model, ceiling.value, ceiling.pattern_value)
        for name, ceiling in zip(PATTERNS, ceilings_of, strict=True)
    }


def test_the_ceiling_is_the_best_of_the_models_of_what_is_left_and_their_ensemble():
    assert found(judged([8, 6, 5]), judged([7, 4, 6])) == {
        "a+b": (ENSEMBLE, 0.7, 0.8),
        "a": ("a", 0.4, 0.6),
        "b": ("b", 0.6, 0.5),
    }
    assert found(judged([8, 6, 5]), judged([5, 9, 6]))["a+b"] == ("a", 0.9, 0.8)


def test_they_are_compared_over_the_examples_that_both_count():
    """Only the last two examples have b: where the pattern is wrong, and the uni-modal model of b is right on both."""
    counted = np.array([[True] * 10, [True] * 10, [False] * 8 + [True] * 2])
    alone = judged([7, 7, 10], counted)
    assert found(judged([8, 8, 8], counted), alone)["a+b"] == ("b", 1.0, 0.0)


def test_where_no_example_counts_there_is_no_value():
    counted = np.array([[True] * 10, [True] * 10, [False] * 10])
    model, value, pattern_value = found(judged([8, 6, 5], counted), judged([7, 4, 6], counted))["b"]
    assert model == "b" and np.isnan([value, pattern_value]).all()
