import jax
import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfTransformer

from umemma_jax.encoders.bag_of_words import NORM, Model
from umemma_jax.errors import UserError

COUNTS = np.array([[0, 2, 1, 0, 1], [1, 0, 0, 0, 3], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]])


def inputs(counts=COUNTS, length=6):
    """Rows of counts of 5 ids, as the host gives them."""
    tokens, weights = np.zeros((len(counts), length), np.int32), np.zeros((len(counts), length), np.float32)
    for row, of_text in enumerate(counts):
        ids = np.flatnonzero(of_text)
        tokens[row, : len(ids)], weights[row, : len(ids)] = ids, 1 + np.log(of_text[ids])
    return {"tokens": tokens, "weights": weights, "length": np.count_nonzero(counts, axis=1).astype(np.int32)}


def fitted(train=COUNTS, width=3):
    """A model of a table without zeros, and its variables, which know the training texts."""
    model = Model(vocabulary=5, width=width)
    variables = model.fit(model.init(jax.random.key(0), inputs()), [inputs(train[:2]), inputs(train[2:])])
    table = np.random.default_rng(0).normal(size=(5, width)).astype(np.float32)
    return model, {**variables, "params": {"ngrams": table}}


def test_features_are_tf_idf_times_the_table():
    model, variables = fitted()
    new = np.array([[5, 1, 0, 2, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]])
    reference = TfidfTransformer(sublinear_tf=True).fit(COUNTS[:3])  # a text without n-grams is none
    np.testing.assert_allclose(variables["batch_stats"]["idf"], reference.idf_, rtol=1e-6)
    expected = NORM * reference.transform(new) @ variables["params"]["ngrams"]
    np.testing.assert_allclose(model.apply(variables, inputs(new)), expected, rtol=1e-5, atol=1e-6)


def test_padding_does_not_count():
    model, variables = fitted()
    x = inputs()
    beyond = np.arange(6) >= x["length"][:, None]
    noise = {"tokens": np.where(beyond, 4, x["tokens"]), "weights": np.where(beyond, 9, x["weights"])}
    np.testing.assert_array_equal(model.apply(variables, {**x, **noise}), model.apply(variables, x))


def test_gradients_are_those_of_the_n_grams_that_are_there():
    model, variables = fitted()

    def total(params):
        return model.apply({**variables, "params": params}, inputs()).sum()

    gradient = jax.grad(total)(variables["params"])["ngrams"]
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(np.any(gradient, axis=1), COUNTS.any(axis=0))


def test_an_n_gram_of_no_training_text_says_nothing():
    model = Model(vocabulary=5, width=3)
    variables = model.init(jax.random.key(0), inputs())
    assert not np.any(model.apply(variables, inputs()))


@pytest.mark.parametrize("x", [np.zeros((2, 8, 8, 1)), {"tokens": np.zeros((2, 8), np.int32), "length": np.ones(2)}])
def test_what_has_no_weights_is_refused(x):
    with pytest.raises(UserError, match="tokenizer = 'ngrams'"):
        Model().init(jax.random.key(0), x)
