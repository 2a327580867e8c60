"""Texts as hashed n-grams of words and letters: a tokenizer that needs no vocabulary, on the host.

A text in small letters is its words with one space between and around them, ` a red shoe `. Its n-grams are spans of
that: each word, each two neighbours, and all of 3 to 5 letters within a word and the spaces around it, which know the
stem of a word never seen. Words are runs of letters, digits and underscores, as in scikit-learn.
"""

import re
from collections.abc import Sequence

import numpy as np

NGRAMS = "ngrams"  # in place of a tokenizer's path
IDS = 1 << 15
LETTERS = (3, 4, 5)  # of an n-gram within a word
_WORD, _INSIDE = 0, 1  # kinds of n-grams: the word `cat` is another than the letters of `cat` in `concatenate`
_SPACE = ord(" ")
_BASE = 0x9E3779B97F4A7C15  # of the polynomial; odd, so that it has an inverse modulo 2^64
_INVERSE = pow(_BASE, -1, 1 << 64)
_words = re.compile(r"\w+").findall


class NGrams:
    """Makes weighted n-grams of texts; has what `tokenizer.Tokenizer` has.

    Attributes:
      vocabulary: V, of ids; different n-grams may share one.
      path: stands for it in messages.
      files: it is read from, none.
      fingerprint: of the definition above.
    """

    path = NGRAMS
    files = ()
    fingerprint = "ngrams of 1-2 words and 3-5 letters, 1"

    def __init__(self, vocabulary: int = IDS) -> None:
        self.vocabulary = vocabulary

    def check_length(self, length: int) -> None:
        """Raises ValueError if `length` n-grams hold none of the text."""
        if length < 1:
            raise ValueError(f"a length of {length} n-grams: use 1 or more")

    def encode(self, texts: Sequence[str], length: int) -> dict[str, np.ndarray]:
        """Each n-gram of B texts once: first the words, then neighbours, then letters, the shorter before the longer.

        Args:
          texts: any, the empty one too, which has no n-grams.
          length: T. What is longer is cut, what is shorter is padded with zeros.

        Returns:
          {"tokens": int32 [B, T], "weights": float32 [B, T], 1 + ln of how often the text has the n-gram,
          "length": int32 [B], the n-grams that are not padding}.
        """
        self.check_length(length)
        row, token, count, place = self._distinct(texts)
        kept = place < length
        where = row[kept], place[kept]
        tokens = np.zeros((len(texts), length), np.int32)
        weights = np.zeros((len(texts), length), np.float32)
        tokens[where], weights[where] = token[kept], 1 + np.log(count[kept])
        lengths = np.bincount(row[kept], minlength=len(texts)).astype(np.int32)
        return {"tokens": tokens, "weights": weights, "length": lengths}

    def count(self, texts: Sequence[str]) -> np.ndarray:
        """How many n-grams B texts have that are not cut, int64 [B]."""
        return np.bincount(self._distinct(texts)[0], minlength=len(texts))

    def _distinct(self, texts: Sequence[str]) -> tuple[np.ndarray, ...]:
        """The different ids of each text, in order: number of the text, id, how often it has it, place in the text."""
        letters, text = _spaced(texts)
        start, end, kind = _spans(letters, text)
        key = text[start] * self.vocabulary + _identify(letters, start, end, kind, self.vocabulary)
        key, first, count = np.unique(key, return_index=True, return_counts=True)
        row, token = np.divmod(key, self.vocabulary)
        order = np.lexsort((first, row))
        place = np.arange(len(row)) - np.searchsorted(row, row)
        return row, token[order], count[order], place

    def __repr__(self) -> str:
        return f"NGrams({self.vocabulary} ids)"


def _spaced(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Code points of all texts' words, ` a red shoe `, one text after the other, and of which text each is."""
    spaced = [f" {' '.join(_words(text.lower()))} " for text in texts]
    letters = np.frombuffer("".join(spaced).encode("utf-32-le"), np.uint32)
    return letters, np.repeat(np.arange(len(texts)), [len(text) for text in spaced])


def _spans(letters: np.ndarray, text: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Start, end and kind of each n-gram: `letters[start:end]`."""
    edges = np.flatnonzero(np.diff(letters == _SPACE)) + 1
    start, end = edges[::2], edges[1::2]
    neighbours = np.flatnonzero(text[start[:-1]] == text[start[1:]])
    words = [(start, end), (start[neighbours], end[neighbours + 1])]
    inside = []
    for n in LETTERS:
        many = np.maximum(end - start + 3 - n, 0)  # of n letters, in each word with the space before and after it
        first = np.repeat(start - 1 - np.cumsum(many) + many, many) + np.arange(many.sum())
        inside.append((first, first + n))
    starts, ends = (np.concatenate(side) for side in zip(*words, *inside, strict=True))
    kind = np.full(len(starts), _INSIDE)
    kind[: len(start) + len(neighbours)] = _WORD
    return starts, ends, kind


def _identify(letters: np.ndarray, start: np.ndarray, end: np.ndarray, kind: np.ndarray, vocabulary: int) -> np.ndarray:
    """The id of each span, int64: a hash of its letters and its kind alone, wherever it stands.

    A polynomial modulo 2^64, of prefixes, from which that of any span follows (Karp and Rabin, 1987); then the finisher
    of SplitMix64 (Steele et al., 2014), so that every bit depends on all letters.
    """
    powers = np.full(len(letters) + 1, _BASE, np.uint64)
    inverses = np.full(len(letters) + 1, _INVERSE, np.uint64)
    powers[0] = inverses[0] = 1
    powers, inverses = np.multiply.accumulate(powers), np.multiply.accumulate(inverses)
    prefixes = np.concatenate([np.zeros(1, np.uint64), np.add.accumulate(letters * powers[:-1])])
    x = (prefixes[end] - prefixes[start]) * inverses[start] * np.uint64(2) + kind.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    x ^= x >> np.uint64(31)
    return ((x >> np.uint64(32)) * np.uint64(vocabulary) >> np.uint64(32)).astype(np.int64)
