import jax
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.preprocess.raw_rows import TEXT, keys, preprocess
from umemma_jax.errors import UserError


@pytest.mark.parametrize("train", [False, True])
def test_text_is_the_encoders_to_embed(train):
    raw = {"tokens": np.array([[101, 7, 102], [0, 0, 0]], np.int32), "length": np.array([3, 0], np.int32)}
    got = jax.jit(preprocess(TEXT), static_argnames="train")(raw, keys(2), train=train)
    assert got.keys() == raw.keys()
    for name, array in raw.items():
        assert got[name].dtype == array.dtype
        assert_array_equal(got[name], array)


def test_words_are_dropped_in_training_and_the_rest_stays_in_order():
    tokens = np.tile(np.r_[101, 1:19, 102, np.zeros(4)].astype(np.int32), (500, 1))
    raw = {"tokens": tokens, "length": np.full(500, 20, np.int32)}
    p = preprocess(TEXT, drop=0.3)
    assert p(raw) is raw
    found = jax.jit(lambda raw, keys: p(raw, keys, train=True))(raw, keys(500))
    lengths = np.asarray(found["length"])
    assert abs(lengths.mean() - (2 + 18 * 0.7)) < 0.3 and lengths.min() < lengths.max()
    for row, length in zip(np.asarray(found["tokens"]), lengths, strict=True):
        assert row[0] == 101 and row[length - 1] == 102
        assert (np.diff(row[1 : length - 1]) > 0).all()


@pytest.mark.parametrize("length", [0, 1, 2])
def test_texts_without_words_stay_as_they_are(length):
    raw = {"tokens": np.array([[101, 102, 0, 0]], np.int32), "length": np.array([length], np.int32)}
    found = preprocess(TEXT, drop=0.9)(raw, keys(1), train=True)
    assert found["length"] == length
    assert_array_equal(found["tokens"][0, :length], raw["tokens"][0, :length])


def test_a_share_of_words_that_cannot_be():
    with pytest.raises(UserError, match=r"drop: must be in \[0, 1\)"):
        preprocess(TEXT, drop=1.0)
