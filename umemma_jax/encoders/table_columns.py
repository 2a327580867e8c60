"""Embeddings of a table's columns, which the encoders of tables share."""

import statistics
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from umemma_jax.errors import UserError


class Numbers(nn.Module):
    """An affine map per column of a number's piecewise-linear encoding; a learned value where the number is missing.

    The encoding of a number x is T values: how far it has come through each of T bins, (x - low) / (high - low), at
    least 0 but in the first bin, and at most 1 but in the last one. The bins hold equal shares of the standard normal
    distribution.

    Source: Gorishniy, Rubachev and Babenko, 2022, arXiv 2203.05556, equation 1. Without bins it is the feature
    tokenizer of Gorishniy et al., 2021, arXiv 2106.11959.

    Attributes:
      width: D.
      bins: T; 0 takes the number itself.
    """

    width: int
    bins: int = 0

    @nn.compact
    def __call__(self, numbers: jax.Array, missing: jax.Array) -> jax.Array:
        """float32 [B, C], about standard normal, and 1 where missing, else 0, [B, C] -> float32 [B, C, D]."""
        columns = numbers.shape[1]
        encoded = piecewise_linear(numbers, self.bins) if self.bins else numbers[..., None]
        values = encoded.shape[-1]
        kernel = self.param("kernel", nn.initializers.normal(values**-0.5), (columns, values, self.width))
        bias = self.param("bias", nn.initializers.zeros, (columns, self.width))
        absent = self.param("missing", nn.initializers.zeros, (columns, self.width))
        embedded = jnp.einsum("bct,ctd->bcd", encoded, kernel) + bias[None]
        return jnp.where(missing[..., None] > 0, absent[None], embedded)


class Categories(nn.Module):
    """An embedding per level of each column.

    Attributes:
      levels: how many ids each of the C columns has.
      width: D.
    """

    levels: tuple[int, ...]
    width: int

    @nn.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        """int32 [B, C] -> float32 [B, C, D]."""
        table = self.param("levels", nn.initializers.normal(self.width**-0.5), (sum(self.levels), self.width))
        first = np.cumsum((0, *self.levels), dtype=np.int32)[:-1]
        return table[ids + first[None]]


class Columns(nn.Module):
    """An embedding of each column, of numbers and of categories.

    Attributes:
      levels: how many ids each of the Dc categories has.
      width: D.
      bins: as in `Numbers`.
    """

    levels: tuple[int, ...]
    width: int
    bins: int

    @nn.compact
    def __call__(self, x: Mapping[str, jax.Array]) -> jax.Array:
        """float32 [B, Dn + Dc, D].

        Args:
          x: `numbers` float32 [B, Dn], about standard normal, `missing` [B, Dn], 1 where one is missing, else 0, and
            `categories` int32 [B, Dc].
        """
        parts = []
        if x["numbers"].shape[1]:  # no parameter may be empty: checkpoints cannot hold it
            parts.append(Numbers(self.width, self.bins, name="numbers")(x["numbers"], x["missing"]))
        if self.levels:
            parts.append(Categories(self.levels, self.width, name="categories")(x["categories"]))
        return jnp.concatenate(parts, axis=1)


def piecewise_linear(x: jax.Array, bins: int) -> jax.Array:
    """[B, C] -> [B, C, T], as `Numbers` says."""
    half = 0.5 / (bins + 1)  # of a share: the normal distribution has no end
    shares = np.clip(np.linspace(0, 1, bins + 1), half, 1 - half)
    edges = np.array([[[statistics.NormalDist().inv_cdf(share) for share in shares]]], np.float32)
    least, most = np.zeros((1, 1, bins), np.float32), np.ones((1, 1, bins), np.float32)
    least[..., 0], most[..., -1] = -np.inf, np.inf
    return jnp.clip((x[..., None] - edges[..., :-1]) / np.diff(edges), least, most)


def check_columns(x: Mapping[str, jax.Array], levels: tuple[int, ...], encoder: str) -> None:
    """Raises UserError unless x has `numbers`, `missing` and `categories`, as many of these as there are `levels`."""
    if not isinstance(x, Mapping) or not {"numbers", "missing", "categories"} <= set(x):
        raise UserError(
            f"encoder {encoder}: takes numbers and categories apart: give it a modality of kind tabular, with "
            "preprocess.form 'columns'"
        )
    if (columns := x["categories"].shape[1]) != len(levels):
        raise UserError(f"encoder {encoder}: levels are of {len(levels)} columns, {columns} are categories")
