import jax
import numpy as np
import pytest

from umemma_jax.encoders.word_embeddings import Model
from umemma_jax.errors import UserError

TOKENS = np.array([[1, 5, 6, 7, 2, 0], [1, 6, 2, 9, 9, 9], [1, 2, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]], np.int32)
LENGTH = np.array([5, 3, 2, 0], np.int32)


def features(tokens=TOKENS, length=LENGTH):
    model, x = Model(vocabulary=10, width=4), {"tokens": tokens, "length": length}
    variables = model.init(jax.random.key(0), x)
    return variables["params"]["words"], np.asarray(model.apply(variables, x))


def test_words_are_summed_and_divided_by_the_root_of_their_number():
    table, found = features()
    np.testing.assert_allclose(found[0], (table[5] + table[6] + table[7]) / np.sqrt(3), rtol=1e-6)
    np.testing.assert_allclose(found[1], table[6], rtol=1e-6)
    np.testing.assert_array_equal(found[2:], 0)


def test_padding_does_not_count():
    changed = TOKENS.copy()
    changed[1, 3:], changed[2, 2:] = 4, 8
    np.testing.assert_array_equal(features(changed)[1], features()[1])


def test_gradients_of_absent_texts_are_finite():
    model, x = Model(vocabulary=10, width=4), {"tokens": TOKENS, "length": LENGTH}
    variables = model.init(jax.random.key(0), x)
    gradient = jax.grad(lambda v: model.apply(v, x).sum())(variables)["params"]["words"]
    assert np.isfinite(gradient).all() and np.any(gradient[6]) and not np.any(gradient[9])


def test_what_is_no_text_is_refused():
    with pytest.raises(UserError, match="the input is no text"):
        Model().init(jax.random.key(0), np.zeros((2, 8, 8, 1)))
