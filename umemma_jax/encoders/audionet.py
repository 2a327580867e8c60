"""AudioNet: a one-dimensional convolutional network on raw waveforms."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from umemma_jax.encoders import foreign
from umemma_jax.encoders.layers import BatchNorm, convolve, largest
from umemma_jax.errors import UserError


class Model(nn.Module):
    """Blocks of two convolutions (kernel 3, stride 2, each with batch norm and ReLU) and a max-pool of 2.

    Each block makes the waveform eight times as short; 65,535 samples at 11,025 Hz leave 16 positions.

    Source: `ANet` of Tian & Xu, "Can audio-visual integration strengthen robustness under multimodal attacks?",
    CVPR 2021, arXiv 2104.02000; in its code (YapengTian/AV-Robustness-CVPR21) the last pool is a maximum.

    Attributes:
      channels: of each block.
      pool: `max` or `mean` over time, at the end.
      dtype: of the convolutions, `float32` or `bfloat16`; parameters, statistics and features are float32.
      axis_name: axis of `jax.pmap` over which the batch is spread, or None.
    """

    channels: tuple[int, ...] = (64, 128, 256, 512)
    pool: str = "max"
    dtype: str = "float32"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None, train: bool = False) -> jax.Array:
        """Waveforms [B, S] -> features [B, D], D = channels[-1].

        Rows that mask [B] leaves out do not count in batch statistics.

        Raises:
          UserError: the input is no waveform, or too short for the blocks, or there is no such pool.
        """
        if self.pool not in ("mean", "max"):
            raise UserError(f"encoder audionet: pool '{self.pool}' is neither mean nor max")
        if x.ndim != 2:
            raise UserError(f"encoder audionet: takes waveforms [B, S], not {x.shape}")
        _, samples = x.shape
        x = x[..., None].astype(self.dtype)
        for block, channels in enumerate(self.channels):
            for index in (2 * block, 2 * block + 1):
                x = Conv(channels, self.dtype, name=f"conv{index}")(x)
                x = nn.relu(BatchNorm(channels, axis_name=self.axis_name, name=f"norm{index}")(x, mask, train))
            if x.shape[1] == 1:
                raise UserError(f"encoder audionet: {samples} samples are too few for {len(self.channels)} blocks")
            x = max_pool(x)
        x = x.astype(jnp.float32)
        return x.mean(axis=1) if self.pool == "mean" else x.max(axis=1)


class Conv(nn.Module):
    """Convolution with kernel 3 and stride 2, padded by 1.

    Attributes:
      features: D.
      dtype: of the convolution and the result.
    """

    features: int
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, T, C] -> [B, ceil(T / 2), D]."""
        kernel = self.param("kernel", nn.initializers.he_normal(), (3, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        kernel, bias = kernel.astype(self.dtype), bias.astype(self.dtype)
        x = convolve(x, kernel, stride=2, padding=1)
        return x + jnp.expand_dims(bias, (0, 1))


def max_pool(x: jax.Array) -> jax.Array:
    """Maximum over pairs: [B, T, C] -> [B, T // 2, C]; an odd last one is dropped."""
    end = x.shape[1] // 2 * 2
    return largest(jnp.stack([x[:, :end:2], x[:, 1:end:2]]))


def _fields(source: foreign.Source) -> dict[str, Any]:
    kernels = [source.shapes[f"features.{place}.weight"] for place in range(0, 7 * _count_blocks(source), 7)]
    if any(len(kernel) != 3 for kernel in kernels):
        raise UserError("encoder audionet: the checkpoint's convolutions are not one-dimensional")
    return {"channels": tuple(features for features, _, _ in kernels), "pool": "max"}


def _count_blocks(source: foreign.Source) -> int:
    count = 0
    while f"features.{7 * count}.weight" in source.shapes:
        count += 1
    return count


def _rules(source: foreign.Source, fields: dict[str, Any]) -> list[foreign.Rule]:
    # A block is seven modules: convolution, norm, ReLU, convolution, norm, ReLU, pool.
    rules = []
    for index in range(2 * len(fields["channels"])):
        place = index // 2 * 7 + index % 2 * 3
        rules += foreign.conv_1d(f"conv{index}", f"features.{place}")
        rules += foreign.batch_norm(f"norm{index}", f"features.{place + 1}")
    return rules


FORMATS = (
    foreign.Format(
        name="ANet of AV-Robustness-CVPR21",
        markers=("features.0.weight", "features.1.running_mean", "features.3.weight", "features.4.running_mean"),
        fields=_fields,
        rules=_rules,
        choices=("pool",),
    ),
)
