"""LeNet for small images, videos and spectrograms, of the size that MultiBench uses."""

import flax.linen as nn
import jax

from umemma_jax.encoders.layers import ConvNormPool, merge_frames, pool_frames
from umemma_jax.errors import UserError


class Model(nn.Module):
    """A 5x5 convolution and `layers` 3x3 ones, channels doubling, each with batch norm, ReLU and 2x2 max-pool.

    Source: `LeNet(1, channels, layers)` of MultiBench (Liang et al., 2021, arXiv 2107.07502).

    Attributes:
      channels: of the first convolution.
      layers: number of 3x3 convolutions after it; each halves height and width once more.
      dtype: dtype of the convolutions; statistics, parameters and features are float32.
      axis_name: axis of `jax.pmap` over which the batch is spread, or None.
    """

    channels: int = 6
    layers: int = 3
    dtype: str = "float32"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None, train: bool = False) -> jax.Array:
        """Images [B, H, W, C], videos [B, T, H, W, C] (mean over T) or spectrograms [B, T, F] -> features [B, D].

        Rows that mask [B] leaves out do not count in batch statistics.

        Raises:
          UserError: the input is too small to be halved `layers + 1` times.
        """
        x = x[..., None] if x.ndim == 3 else x
        shape = x.shape
        x, mask = merge_frames(x, mask)
        if min(x.shape[1:3]) >> (self.layers + 1) == 0:
            size = f"{x.shape[1]}x{x.shape[2]}"
            raise UserError(f"encoder lenet: {size} inputs cannot be halved {self.layers + 1} times, lower `layers`")
        for layer in range(self.layers + 1):
            x = ConvNormPool(
                features=self.channels << layer,
                kernel_size=5 if layer == 0 else 3,
                dtype=self.dtype,
                axis_name=self.axis_name,
                name=f"layer{layer}",
            )(x, mask, train)
        return pool_frames(x.reshape(x.shape[0], -1), shape)
