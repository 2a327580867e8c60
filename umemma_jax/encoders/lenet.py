"""LeNet for small images and spectrograms, of the size that MultiBench uses."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from umemma_jax.encoders.layers import BatchNorm, max_pool_2x2


class Model(nn.Module):
    """A 5x5 convolution and `layers` 3x3 ones, channels doubling, each with batch norm, ReLU and 2x2 max-pool.

    Source: `LeNet` of MultiBench (Liang et al., 2021, arXiv 2107.07502), `LeNet(1, channels, layers)`.

    Attributes:
        channels: channels of the first convolution.
        layers: number of 3x3 convolutions after it.
        dtype: dtype of the convolutions; statistics, parameters and the result are float32.
        axis_name: axis of `jax.pmap` over which the batch is spread, or None.
    """

    channels: int = 6
    layers: int = 3
    dtype: str = "float32"
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        """Images `[B, H, W, C]` or spectrograms `[B, T, F]` -> features `[B, D]`.

        `mask` is bool `[B]`; the other rows do not count in batch statistics.
        """
        x = x[..., None] if x.ndim == 3 else x
        x = x.astype(self.dtype)
        for layer in range(self.layers + 1):
            size = 5 if layer == 0 else 3
            x = nn.Conv(
                self.channels << layer,
                (size, size),
                use_bias=False,
                dtype=self.dtype,
                name=f"conv{layer}",
            )(x)
            x = BatchNorm(axis_name=self.axis_name, name=f"norm{layer}")(x, mask, train)
            x = max_pool_2x2(nn.relu(x))
        return x.reshape(x.shape[0], -1).astype(jnp.float32)
