"""Sum of word embeddings: a text encoder that learns from a few thousand short texts."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from umemma_jax.errors import UserError


class Model(nn.Module):
    """The embeddings of a text's tokens, summed and divided by the square root of their number.

    So a feature's size does not depend on the text's length, as it would in the sum, nor does a word count less in a
    longer text, as much as it would in the mean.

    Attributes:
      vocabulary: V, number of token ids.
      width: D.
    """

    vocabulary: int = 30522
    width: int = 256

    @nn.compact
    def __call__(self, x: Mapping[str, jax.Array], mask: jax.Array | None = None, train: bool = False) -> jax.Array:
        """Texts -> features [B, D], float32; the first and the last token, marks of start and end, do not count.

        Args:
          x: `tokens` int32 [B, T], padded on the right, and `length` int32 [B].
          mask: bool [B], not used: no statistics are taken over the batch.
          train: not used.

        Raises:
          UserError: the input is no text.
        """
        if not isinstance(x, Mapping) or not {"tokens", "length"} <= set(x):
            raise UserError("encoder word_embeddings: the input is no text, give it a modality of kind text")
        scale = nn.initializers.variance_scaling(1.0, "fan_out", "normal")
        table = self.param("words", scale, (self.vocabulary, self.width))
        position, length = jnp.arange(x["tokens"].shape[1])[None], x["length"][:, None]
        counts = (position > 0) & (position < length - 1)
        words = jnp.where(counts[..., None], table[x["tokens"]], 0)
        return words.sum(axis=1) / jnp.sqrt(jnp.maximum(length - 2, 1))
