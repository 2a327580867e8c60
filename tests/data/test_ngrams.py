"""N-grams against those of scikit-learn, hashed one by one in Python's integers."""

import re
from collections import Counter

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.feature_extraction.text import CountVectorizer

from umemma_jax.data.ngrams import NGrams

TEXTS = ("A red shoe, a RED shoe!", "", "?!", "b", "Résumé 日本語 x_1", "an shoe", "concatenate the cat, cat")
BASE, MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1


def expected(text):
    """Each n-gram with its kind, 0 of words and 1 of letters, and how often the text has it, in order."""
    words = " ".join(re.findall(r"\w+", text.lower()))
    if not words:
        return Counter()
    of_words = CountVectorizer(ngram_range=(1, 2), token_pattern=r"\w+").build_analyzer()
    of_letters = CountVectorizer(analyzer="char_wb", ngram_range=(3, 5)).build_analyzer()
    return Counter([*((ngram, 0) for ngram in of_words(words)), *((ngram, 1) for ngram in sized(of_letters(words)))])


def sized(ngrams):
    """scikit-learn goes word by word."""
    return sorted(ngrams, key=len)


def identify(ngram, kind, vocabulary):
    polynomial = sum(ord(letter) * pow(BASE, place, 1 << 64) for place, letter in enumerate(ngram))
    x = (2 * polynomial + kind) & MASK
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> shift)) * factor & MASK
    return ((x ^ (x >> 31)) >> 32) * vocabulary >> 32


@pytest.mark.parametrize("vocabulary", [1 << 15, 1000, 3])
def test_ids_and_weights_are_those_of_each_n_gram(vocabulary):
    found = NGrams(vocabulary).encode(TEXTS, 200)
    for row, text in enumerate(TEXTS):
        ids = Counter()  # in the order of first occurrence
        for (ngram, kind), count in expected(text).items():
            ids[identify(ngram, kind, vocabulary)] += count
        length = found["length"][row]
        assert_array_equal(found["tokens"][row, :length], list(ids))
        np.testing.assert_allclose(found["weights"][row, :length], 1 + np.log(list(ids.values())), rtol=1e-6)
        assert not found["tokens"][row, length:].any() and not found["weights"][row, length:].any()


def test_a_text_is_the_same_in_any_company():
    together = NGrams().encode(TEXTS, 50)
    for row, text in enumerate(TEXTS):
        alone = NGrams().encode([text], 50)
        for name, array in alone.items():
            assert_array_equal(array[0], together[name][row])


def test_what_is_too_long_loses_its_longest_n_grams_of_letters():
    whole, cut = NGrams().encode(TEXTS, 100), NGrams().encode(TEXTS, 4)
    assert_array_equal(cut["tokens"], whole["tokens"][:, :4])
    assert_array_equal(cut["length"], np.minimum(whole["length"], 4))
    assert_array_equal(NGrams().count(TEXTS), whole["length"])


def test_no_texts():
    found = NGrams().encode([], 4)
    assert {name: array.shape for name, array in found.items()} == {"tokens": (0, 4), "weights": (0, 4), "length": (0,)}


def test_a_word_is_not_its_letters():
    whole, part = (set(NGrams().encode([text], 50)["tokens"][0]) for text in ("cat", "concatenate"))
    assert identify("cat", 0, 1 << 15) in whole - part
    assert identify("cat", 1, 1 << 15) in whole & part


def test_a_length_of_none():
    with pytest.raises(ValueError, match="use 1 or more"):
        NGrams().encode(["a"], 0)
