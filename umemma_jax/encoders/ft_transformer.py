"""FT-Transformer: self-attention among the columns of a table."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from umemma_jax.encoders.table_columns import Columns, check_columns
from umemma_jax.encoders.transformer import Transformer, layer_norm
from umemma_jax.errors import UserError

EPSILON = 1e-5  # of the layer norms


class Model(nn.Module):
    """A token for each column and one of its own, transformer layers, and what the latter token becomes.

    Source: Gorishniy et al., 2021, arXiv 2106.11959, figure 1 and section 3.3. Unlike there, the MLP has no gate, and
    the first layer is normalised too.

    Attributes:
      levels: how many ids each category has.
      width: D, a multiple of `heads`.
      depth: number of layers.
      heads: of attention.
      mlp_width: hidden width of the layers' MLPs.
      bins: of the encoding of a number; 0, as in the paper, for none.
    """

    levels: tuple[int, ...] = ()
    width: int = 64
    depth: int = 2
    heads: int = 4
    mlp_width: int = 128
    bins: int = 0

    @nn.compact
    def __call__(self, x: Mapping[str, jax.Array], mask: jax.Array | None = None, train: bool = False) -> jax.Array:
        """Rows of a table -> features [B, D], float32.

        Args:
          x: as `Columns` takes it.
          mask: bool [B], not used: rows do not depend on each other.
          train: not used.

        Raises:
          UserError: the input is no such rows, or the width cannot be divided among the heads.
        """
        check_columns(x, self.levels, "ft_transformer")
        if self.width % self.heads:
            raise UserError(f"encoder ft_transformer: width {self.width} is no multiple of {self.heads} heads")
        columns = Columns(self.levels, self.width, self.bins, name="columns")(x)
        summary = self.param("summary", nn.initializers.normal(self.width**-0.5), (1, 1, self.width))
        summary = jnp.broadcast_to(summary, (columns.shape[0], 1, self.width))
        tokens = jnp.concatenate([summary, columns], axis=1)
        layers = Transformer(self.depth, self.heads, self.mlp_width, "relu", EPSILON, name="transformer")
        return nn.relu(layer_norm(EPSILON, "float32", "norm")(layers(tokens)[:, 0]))
