"""Multi-layer perceptron on embedded columns, for tables of numbers and categories."""

from collections.abc import Mapping

import flax.linen as nn
import jax

from umemma_jax.encoders.table_columns import Columns, check_columns
from umemma_jax.errors import UserError


class Model(nn.Module):
    """The embeddings of all columns side by side, and dense layers, each followed by a layer norm and ReLU.

    Source: Gorishniy, Rubachev and Babenko, 2022, arXiv 2203.05556 (MLP with piecewise-linear encodings).

    Attributes:
      levels: how many ids each category has.
      widths: of the layers; the last is that of the features.
      embedding: width of a column's embedding.
      bins: of the encoding of a number; 0 for none.
    """

    levels: tuple[int, ...] = ()
    widths: tuple[int, ...] = (256, 256)
    embedding: int = 16
    bins: int = 16

    @nn.compact
    def __call__(self, x: Mapping[str, jax.Array], mask: jax.Array | None = None, train: bool = False) -> jax.Array:
        """Rows of a table -> features [B, D], float32.

        Args:
          x: as `Columns` takes it.
          mask: bool [B], not used: rows do not depend on each other.
          train: not used.

        Raises:
          UserError: the input is no such rows, or there is no layer.
        """
        check_columns(x, self.levels, "tabular_mlp")
        if not self.widths:
            raise UserError("encoder tabular_mlp: widths is empty, name at least the features' own")
        features = Columns(self.levels, self.embedding, self.bins, name="columns")(x)
        features = features.reshape(features.shape[0], -1)
        for index, width in enumerate(self.widths):
            features = nn.Dense(width, name=f"dense{index}")(features)
            features = nn.relu(nn.LayerNorm(use_fast_variance=False, name=f"norm{index}")(features))
        return features
