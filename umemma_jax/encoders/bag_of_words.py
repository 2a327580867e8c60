"""TF-IDF with one linear layer: a text encoder that learns from a few hundred texts."""

from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from umemma_jax.errors import UserError

# Of all weights of a text: with Adam, and vectors that start at zero, it is a factor on their learning rate, which so
# is that of other encoders.
NORM = 4.0


class Model(nn.Module):
    """A text's n-grams, weighted by TF-IDF and of one Euclidean norm, times a table of vectors.

    The weight of an n-gram is (1 + ln tf) idf, tf how often the text has it, idf = 1 + ln((1 + n) / (1 + df)), df how
    many of the n training texts have it: Salton and Buckley (1988), smoothed as in scikit-learn's TfidfTransformer.
    Vectors start at zero, so that an n-gram of no training text says nothing.

    Attributes:
      vocabulary: V, number of ids.
      width: D.
    """

    vocabulary: int = 1 << 15
    width: int = 128

    @nn.compact
    def __call__(self, x: Mapping[str, jax.Array], mask: jax.Array | None = None, train: bool = False) -> jax.Array:
        """Texts -> features [B, D], float32.

        Args:
          x: `tokens` int32 [B, T], `weights` float32 [B, T], both padded on the right, and `length` int32 [B].
          mask: bool [B], not used: no statistics are taken over the batch.
          train: not used.

        Raises:
          UserError: the input is no text, or its tokens have no weights.
        """
        if not isinstance(x, Mapping) or not {"tokens", "weights", "length"} <= set(x):
            raise UserError("encoder bag_of_words: takes weighted n-grams, give it a text, with tokenizer = 'ngrams'")
        idf = self.variable("batch_stats", "idf", jnp.ones, (self.vocabulary,)).value
        table = self.param("ngrams", nn.initializers.zeros, (self.vocabulary, self.width))
        counts = jnp.arange(x["tokens"].shape[1])[None] < x["length"][:, None]
        weights = jnp.where(counts, x["weights"] * idf[x["tokens"]], 0)
        norm = jnp.sqrt(jnp.maximum(jnp.square(weights).sum(axis=1, keepdims=True), jnp.finfo(weights.dtype).tiny))
        return jnp.einsum("bt,btd->bd", NORM * weights / norm, table[x["tokens"]])

    def fit(self, variables: Mapping[str, Any], batches: Iterable[Mapping[str, np.ndarray]]) -> dict[str, Any]:
        """Variables with the inverse document frequencies of texts.

        Args:
          variables: of this encoder, by collection.
          batches: the training texts, as `__call__` takes them; the length of those that are absent is 0.
        """
        texts, frequency = 0, np.zeros(self.vocabulary, np.int64)
        for x in batches:
            counts = np.arange(x["tokens"].shape[1]) < x["length"][:, None]
            texts += np.count_nonzero(x["length"])
            frequency += np.bincount(x["tokens"][counts], minlength=self.vocabulary)
        idf = 1 + np.log((1 + texts) / (1 + frequency))
        return {**variables, "batch_stats": {"idf": idf.astype(np.float32)}}
