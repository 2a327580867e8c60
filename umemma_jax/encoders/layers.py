"""Layers that encoders share."""

import flax.linen as nn
import jax
import jax.numpy as jnp


def max_pool_2x2(x: jax.Array) -> jax.Array:
    """Maximum over 2x2 windows with stride 2: `[B, H, W, C]` -> `[B, H // 2, W // 2, C]`.

    Written as a reshape and a maximum: the gradient of `nn.max_pool` is a select-and-scatter,
    which is slow on CPU. An odd last row or column is dropped.
    """
    batch, height, width, channels = x.shape
    rows, columns = height // 2, width // 2
    x = x[:, : 2 * rows, : 2 * columns]
    return x.reshape(batch, rows, 2, columns, 2, channels).max(axis=(2, 4))


class BatchNorm(nn.Module):
    """Batch normalisation whose statistics count only the rows that `mask` keeps.

    Statistics are float32 sums divided once by their count, so that under `jax.pmap` (sums and
    count are psum'd over `axis_name`) and under `jax.jit` on a sharded batch they are those of the
    global batch. As in PyTorch the running variance is the unbiased one, and the default momentum
    (0.1 there, where it weighs the new value) and epsilon are PyTorch's. Where no row counts, the
    running statistics normalise and stay as they are.

    Source: Ioffe & Szegedy, 2015, arXiv 1502.03167, algorithm 1.

    Attributes:
        momentum: weight of the old running statistics.
        epsilon: added to the variance.
        axis_name: axis of `jax.pmap` over which the batch is spread, or None.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        """Normalises `x` `[B, ..., C]`, keeping shape and dtype; `mask` is bool `[B]`."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        mean, var = running_mean.value, running_var.value
        if train:
            count, batch_mean, batch_var = masked_moments(x, mask, self.axis_name)
            mean = jnp.where(count > 0, batch_mean, mean)
            var = jnp.where(count > 0, batch_var, var)
            if not self.is_initializing():
                unbiased = var * jnp.where(count > 0, count / jnp.maximum(count - 1, 1), 1)
                keep = self.momentum
                running_mean.value = keep * running_mean.value + (1 - keep) * mean
                running_var.value = keep * running_var.value + (1 - keep) * unbiased
        gain = scale * jax.lax.rsqrt(var + self.epsilon)
        shape = (1,) * (x.ndim - 1) + (channels,)
        y = (x - mean.reshape(shape)) * gain.reshape(shape) + bias.reshape(shape)
        return y.astype(x.dtype)


def masked_moments(
    x: jax.Array, mask: jax.Array | None, axis_name: str | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Count, mean and biased variance per channel over the rows of `x` that `mask` keeps."""
    axes = tuple(range(x.ndim - 1))
    x = x.astype(jnp.float32)
    rows = jnp.float32(x.shape[0])
    if mask is not None:
        x = jnp.where(mask.reshape((-1,) + (1,) * (x.ndim - 1)), x, 0)
        rows = mask.sum(dtype=jnp.float32)
    count = rows * (x[0].size // x.shape[-1])
    sums, squares = x.sum(axes), jnp.square(x).sum(axes)
    if axis_name is not None:
        count, sums, squares = jax.lax.psum((count, sums, squares), axis_name)
    total = jnp.maximum(count, 1)
    mean = sums / total
    return count, mean, jnp.maximum(squares / total - jnp.square(mean), 0)
