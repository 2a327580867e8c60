"""Small convolutional network on log-mel spectrograms."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from umemma_jax.encoders.layers import ConvNormPool
from umemma_jax.errors import UserError


class Model(nn.Module):
    """Blocks of 3x3 convolution, batch norm, ReLU and 2x2 max-pool, then mean and maximum over time.

    Attributes:
      channels: of each block; each halves frames and bins.
      dtype: dtype of the convolutions; statistics, parameters and features are float32.
      axis_name: axis of `jax.pmap` over which the batch is spread, or None.
    """

    channels: tuple[int, ...] = (16, 32, 64, 128)
    dtype: str = "float32"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None, train: bool = False) -> jax.Array:
        """Spectrograms [B, T, F] -> features [B, D], D = 2 * channels[-1] * (F >> len(channels)).

        Rows that mask [B] leaves out do not count in batch statistics.

        Raises:
          UserError: the spectrogram is too small to be halved by every block.
        """
        if min(x.shape[1:]) >> len(self.channels) == 0:
            size = f"{x.shape[1]}x{x.shape[2]}"
            raise UserError(
                f"encoder spectrogram_cnn: {size} spectrograms cannot be halved {len(self.channels)} times, "
                "shorten `channels`"
            )
        x = x[..., None]
        for block, channels in enumerate(self.channels):
            x = ConvNormPool(channels, dtype=self.dtype, axis_name=self.axis_name, name=f"block{block}")(x, mask, train)
        batch, frames, bins, channels = x.shape
        x = x.reshape(batch, frames, bins * channels)
        return jnp.concatenate([x.mean(axis=1), x.max(axis=1)], axis=-1)
