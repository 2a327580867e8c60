import itertools

import numpy as np
import pytest

from umemma_jax.evaluation import contributions


def subsets(modalities):
    sizes = range(len(modalities) + 1)
    return [frozenset(chosen) for size in sizes for chosen in itertools.combinations(modalities, size)]


@pytest.mark.parametrize("modalities", ["a", "ab", "abcde"])
def test_shapley_value_is_the_mean_over_all_orders(modalities):
    rng = np.random.default_rng(0)
    values = {kept: rng.random() for kept in subsets(modalities)}
    gains = {name: [] for name in modalities}
    for order in itertools.permutations(modalities):
        for position, name in enumerate(order):
            before = frozenset(order[:position])
            gains[name].append(values[before | {name}] - values[before])
    found = contributions.shapley(values, modalities)
    assert found == pytest.approx({name: np.mean(gain) for name, gain in gains.items()}, abs=1e-12)
    assert sum(found.values()) == pytest.approx(values[frozenset(modalities)] - values[frozenset()])


def test_shapley_value_of_twelve_modalities_that_add_up():
    worth = dict(zip("abcdefghijkl", range(12), strict=True))
    values = {kept: 5 + sum(worth[name] for name in kept) for kept in subsets(worth)}
    assert contributions.shapley(values, list(worth)) == pytest.approx(worth)


def test_shapley_value_is_undefined_where_a_pattern_s_is():
    values = {kept: float(len(kept)) for kept in subsets("ab")} | {frozenset("b"): np.nan}
    assert np.isnan(list(contributions.shapley(values, "ab").values())).all()


PATTERNS = np.array([[True, True], [True, False], [False, True]])


def test_counter_intuitive_rows_are_right_with_fewer_and_wrong_with_more():
    correct = np.array([[1, 0, 0, 0, 0], [1, 1, 1, 0, 1], [0, 1, 0, 0, 0]], bool)
    available = np.array([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 0]], bool)
    rate, pairs = contributions.counter_intuitive(correct, PATTERNS, available)
    assert rate == 2 / 4, "rows 1 and 2 of the four that have both"
    assert pairs == {(1, 0): 2 / 4, (2, 0): 1 / 4}


def test_counter_intuitive_rate_is_that_of_any_two_nested_patterns():
    rng = np.random.default_rng(0)
    patterns = np.array([p for p in itertools.product([True, False], repeat=4) if any(p)])
    present = rng.random((200, 4)) < 0.8
    available = (present | ~patterns[:, None]).all(axis=-1)
    correct = rng.random((15, 200)) < 0.7
    harmed = [
        any(
            available[more, row] and correct[fewer, row] and not correct[more, row]
            for fewer, more in itertools.permutations(range(15), 2)
            if (patterns[fewer] <= patterns[more]).all()
        )
        for row in range(200)
    ]
    rate, pairs = contributions.counter_intuitive(correct, patterns, available)
    assert rate == sum(harmed) / (present.sum(axis=1) > 1).sum()
    assert len(pairs) == 4 * (2**3 - 1)


def test_counter_intuitive_rate_is_undefined_where_nobody_has_two_modalities():
    rate, pairs = contributions.counter_intuitive(np.ones((3, 2), bool), PATTERNS, np.zeros((3, 2), bool))
    assert np.isnan([rate, *pairs.values()]).all()
