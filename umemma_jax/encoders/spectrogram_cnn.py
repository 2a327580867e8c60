"""Small convolutional network on log-mel spectrograms."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from umemma_jax.encoders.layers import BatchNorm, max_pool_2x2


class Model(nn.Module):
    """Blocks of 3x3 convolution, batch norm, ReLU and 2x2 max-pool, then mean and maximum over time.

    Attributes:
        channels: channels of each block.
        features: D.
        dropout: rate at which features are dropped in training (rng stream `dropout`).
        dtype: dtype of the convolutions; statistics, parameters and the result are float32.
        axis_name: axis of `jax.pmap` over which the batch is spread, or None.
    """

    channels: tuple[int, ...] = (16, 32, 64, 128)
    features: int = 128
    dropout: float = 0.0
    dtype: str = "float32"
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        """Spectrograms `[B, T, F]` -> features `[B, D]`.

        `mask` is bool `[B]`; the other rows do not count in batch statistics.
        """
        x = x[..., None].astype(self.dtype)
        for block, channels in enumerate(self.channels):
            x = nn.Conv(channels, (3, 3), use_bias=False, dtype=self.dtype, name=f"conv{block}")(x)
            x = BatchNorm(axis_name=self.axis_name, name=f"norm{block}")(x, mask, train)
            x = max_pool_2x2(nn.relu(x))
        batch, frames, bands, channels = x.shape
        x = x.reshape(batch, frames, bands * channels).astype(jnp.float32)
        x = jnp.concatenate([x.mean(axis=1), x.max(axis=1)], axis=-1)
        x = nn.relu(nn.Dense(self.features, name="dense")(x))
        return nn.Dropout(self.dropout, deterministic=not train)(x)
