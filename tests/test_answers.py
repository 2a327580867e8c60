"""What is said of one example: class, probability, set, inputs, quality, and whether it is sure enough."""

import numpy as np
import pytest

from umemma_jax.answers import NOTHING, Answer, answers
from umemma_jax.errors import UserError
from umemma_jax.predict import Predictions
from umemma_jax.target_predictions import TargetPredictions

QUALITY = {"image+text": 0.9, "image": 0.8, "text": 0.6}


def predictions(probabilities, present, multi_label=False, sets=None, thresholds=0.5):
    probabilities = np.array(probabilities, np.float32)
    ids = [f"row {number}" for number in range(len(probabilities))]
    sets = None if sets is None else np.array(sets, bool)
    present = np.array(present, bool)
    return Predictions(ids, ("image", "text"), present, ("a", "b", "c"), multi_label, probabilities, thresholds, sets)


def test_an_answer_states_its_inputs_and_how_good_such_answers_are():
    said = predictions([[0.1, 0.7, 0.2]], [[False, True]], sets=[[False, True, True]])
    assert answers(said, QUALITY) == [
        Answer("b", pytest.approx(0.7), ("b", "c"), None, used=("text",), quality=0.6, abstain=False)
    ]


def test_what_is_less_sure_than_the_floor_abstains():
    said = predictions([[0.1, 0.7, 0.2], [0.1, 0.9, 0.0]], [[True, True], [True, False]])
    assert [answer.abstain for answer in answers(said, QUALITY, floor=0.8)] == [True, False]


@pytest.mark.parametrize("floor", ["x", None, np.nan, True])
def test_a_floor_is_a_number(floor):
    with pytest.raises(UserError, match=f"floor={floor!r}: is no number"):
        answers(predictions([[0.1, 0.7, 0.2]], [[True, True]]), QUALITY, floor)


def test_a_row_without_inputs_has_no_answer():
    said = predictions([[np.nan] * 3], [[False, False]], sets=[[False] * 3])
    assert answers(said, QUALITY) == [NOTHING]


def test_several_labels_are_those_above_their_thresholds():
    said = predictions([[0.9, 0.4, 0.1]], [[True, True]], multi_label=True, thresholds=np.array([[0.5, 0.3, 0.3]]))
    (answer,) = answers(said, QUALITY, floor=0.5)
    assert answer.prediction == ("a", "b")
    assert answer.probability == pytest.approx((0.9, 0.4))
    assert answer.abstain  # of b it is 0.4 sure


def test_several_labels_may_be_none():
    said = predictions([[0.2, 0.1, 0.1]], [[True, False]], multi_label=True)
    (answer,) = answers(said, QUALITY, floor=0.7)
    assert (answer.prediction, answer.probability, answer.abstain) == ((), (), False)


def targets(names, values, low=None, high=None):
    arrays = [None if x is None else np.array(x, np.float32) for x in (values, np.ones_like(values), low, high)]
    present = np.ones((len(values), 2), bool)
    return TargetPredictions(["row"] * len(values), ("image", "text"), present, names, *arrays)


def test_of_a_target_it_is_the_value_with_an_interval():
    (answer,) = answers(targets(("price",), [[2.0]], [[1.5]], [[2.5]]), QUALITY)
    assert (answer.prediction, answer.interval, answer.probability) == (2.0, (1.5, 2.5), None)
    (answer,) = answers(targets(("price",), [[2.0]], [[np.nan]], [[np.nan]]), QUALITY)
    assert answer.interval is None


def test_several_targets_go_by_name():
    (answer,) = answers(targets(("price", "size"), [[2.0, 40.0]], [[1.5, 38.0]], [[2.5, 42.0]]), QUALITY)
    assert answer.prediction == {"price": 2.0, "size": 40.0}
    assert answer.interval == {"price": (1.5, 2.5), "size": (38.0, 42.0)}


def test_a_floor_is_for_classes():
    with pytest.raises(UserError, match="predicts numbers: leave it out"):
        answers(targets(("price",), [[2.0]]), QUALITY, floor=0.5)
