"""Multi-layer perceptron, for vectors of numbers."""

import flax.linen as nn
import jax

from umemma_jax.errors import UserError


class Model(nn.Module):
    """Dense layers, each followed by a layer norm and ReLU.

    Attributes:
      widths: of the layers; the last is that of the features.
    """

    widths: tuple[int, ...] = (128, 128)

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None, train: bool = False) -> jax.Array:
        """Vectors [B, C] -> features [B, D], float32; rows do not depend on each other, so that mask is not needed.

        Raises:
          UserError: the input is no vector, or there is no layer.
        """
        if getattr(x, "ndim", 0) != 2:
            raise UserError("encoder mlp: takes vectors [B, C], of the preprocess.form 'standardised' of kind tabular")
        if not self.widths:
            raise UserError("encoder mlp: widths is empty, name at least the features' own")
        for index, width in enumerate(self.widths):
            x = nn.Dense(width, name=f"dense{index}")(x)
            x = nn.relu(nn.LayerNorm(use_fast_variance=False, name=f"norm{index}")(x))
        return x
