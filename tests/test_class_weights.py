import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from umemma_jax.class_weights import balanced, named
from umemma_jax.errors import UserError

LABELS = np.array([0, 0, 0, 1, 1, 2])


def test_balanced_classes_weigh_as_in_scikit_learn():
    np.testing.assert_allclose(balanced(LABELS, 3), compute_class_weight("balanced", classes=np.arange(3), y=LABELS))


def test_of_several_labels_the_positives_of_a_class_weigh_as_much_as_its_negatives():
    labels = np.array([[1, 0, 1], [0, 0, 1], [0, 1, 1], [0, 0, 1]])
    np.testing.assert_allclose(balanced(labels, 3), [3, 3, 0])


@pytest.mark.parametrize("labels", [LABELS, np.eye(3)[LABELS]])
def test_an_example_of_weight_two_is_two_examples(labels):
    weights = np.array([2, 1, 1, 3, 1, 1])
    np.testing.assert_allclose(balanced(labels, 3, weights), balanced(np.repeat(labels, weights, axis=0), 3))


def test_a_class_that_no_example_has_weighs_a_finite_amount():
    assert np.isfinite(balanced(LABELS, 4)).all()
    assert np.isfinite(balanced(np.eye(4)[LABELS], 4)).all()


def test_weights_are_given_by_the_names_of_classes():
    assert named({"c": 3, "a": 0.5}, ("a", "b", "c")).tolist() == [0.5, 1, 3]


def test_a_weight_of_no_class_is_named_with_the_nearest_one():
    with pytest.raises(UserError, match=r"config.class_weights.dgo: no class of the dataset \(is 'dog' meant\?\)"):
        named({"dgo": 2}, ("cat", "dog"))
