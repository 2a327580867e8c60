"""Transformer layers that the text and patch encoders share."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}


class Transformer(nn.Module):
    """A stack of layers of self-attention and MLP.

    Parameters are float32 and the same for every value of the fields from `dtype` on, but for `scan`, which keeps those
    of all layers stacked, under `layers` instead of `layer0`, `layer1`, ...

    Source: Vaswani et al., 2017, arXiv 1706.03762.

    Attributes:
      depth: number of layers.
      heads: N; D is a multiple of it.
      mlp_width: hidden width of the MLPs.
      activation: of the MLPs, key of `ACTIVATIONS`.
      epsilon: of the layer norms.
      norm_first: normalise what enters attention and MLP (ViT, CLIP), else the sums that leave them (BERT).
      qkv_bias: whether queries, keys and values have biases.
      causal: a token sees itself and those before it.
      gated: the MLPs' hidden values are products, of which one factor is activated (Shazeer, 2020, arXiv 2002.05202).
      layer_scale: what attention and MLP add is scaled by a learned vector (Touvron et al., 2021, arXiv 2103.17239).
      dtype: of the matrix products; norms' statistics and softmax are float32.
      attention: implementation of `jax.nn.dot_product_attention`: `xla` or `cudnn` (GPU, 16-bit dtypes).
      fused_qkv: one matrix product for queries, keys and values; on TPUs always three, as joining the kernels and
        cutting the result take longer than they save (docs/compiled.md).
      scan: compile one layer, and loop over it.
      remat: recompute a layer's inside in the backward pass, for memory.
    """

    depth: int
    heads: int
    mlp_width: int
    activation: str = "gelu"
    epsilon: float = 1e-12
    norm_first: bool = True
    qkv_bias: bool = True
    causal: bool = False
    gated: bool = False
    layer_scale: bool = False
    dtype: str = "float32"
    attention: str = "xla"
    fused_qkv: bool = True
    scan: bool = False
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, lengths: jax.Array | None = None) -> jax.Array:
        """[B, T, D] -> [B, T, D] in `dtype`; of row b, lengths[b] >= 1 tokens count, int32 [B], or all."""
        tokens = x.shape[1]
        x = x.astype(self.dtype)
        if self.attention == "cudnn":
            x, lengths = even(x, lengths)
        layer = nn.remat(Layer, prevent_cse=not self.scan) if self.remat else Layer
        fields = {name: getattr(self, name) for name in LAYER_FIELDS}
        if not self.scan:
            for index in range(self.depth):
                x, _ = layer(**fields, name=f"layer{index}")(x, lengths)
            return x[:, :tokens]
        scanned = nn.scan(
            layer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=self.depth,
        )
        return scanned(**fields, name="layers")(x, lengths)[0][:, :tokens]


def even(x: jax.Array, lengths: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
    """[B, T, D] and lengths as `Transformer` takes them, with a token that does not count after an odd number of them.

    JAX refuses the gradient of cuDNN's attention on odd numbers of tokens (a ViT-B/16 has 197). cuDNN would only with
    a bias, but the check takes the empty array that stands for none for one (jax 0.10 to 0.12).
    """
    batch, tokens, _ = x.shape
    if tokens % 2 == 0:
        return x, lengths
    lengths = jnp.full(batch, tokens, jnp.int32) if lengths is None else lengths
    return jnp.pad(x, ((0, 0), (0, 1), (0, 0))), lengths


LAYER_FIELDS = (
    "heads",
    "mlp_width",
    "activation",
    "epsilon",
    "norm_first",
    "qkv_bias",
    "causal",
    "gated",
    "layer_scale",
    "dtype",
    "attention",
    "fused_qkv",
)


class Layer(nn.Module):
    """Self-attention and MLP, each with its residual and norm; fields as in `Transformer`."""

    heads: int
    mlp_width: int
    activation: str
    epsilon: float
    norm_first: bool
    qkv_bias: bool
    causal: bool
    gated: bool
    layer_scale: bool
    dtype: str
    attention: str
    fused_qkv: bool

    @nn.compact
    def __call__(self, x: jax.Array, lengths: jax.Array | None) -> tuple[jax.Array, None]:
        """([B, T, D], lengths [B] or None) -> ([B, T, D], None), as `nn.scan` expects."""
        attention = Attention(
            self.heads, self.qkv_bias, self.causal, self.dtype, self.attention, self.fused_qkv, name="attention"
        )
        mlp = Mlp(self.mlp_width, self.activation, self.gated, self.dtype, name="mlp")
        norm1, norm2 = (layer_norm(self.epsilon, self.dtype, name) for name in ("norm1", "norm2"))
        scale1, scale2 = (
            LayerScale(self.dtype, name=name) if self.layer_scale else _as_it_is for name in ("scale1", "scale2")
        )
        if self.norm_first:
            x = x + scale1(attention(norm1(x), lengths))
            return x + scale2(mlp(norm2(x))), None
        x = norm1(x + scale1(attention(x, lengths)))
        return norm2(x + scale2(mlp(x))), None


def _as_it_is(x: jax.Array) -> jax.Array:
    return x


class LayerScale(nn.Module):
    """Every feature times a learned factor."""

    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, T, D] -> [B, T, D]."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        return x * jnp.expand_dims(scale.astype(self.dtype), (0, 1))


class Attention(nn.Module):
    """Multi-head self-attention; fields as in `Transformer`."""

    heads: int
    qkv_bias: bool
    causal: bool
    dtype: str
    attention: str
    fused_qkv: bool

    @nn.compact
    def __call__(self, x: jax.Array, lengths: jax.Array | None) -> jax.Array:
        """[B, T, D] -> [B, T, D]."""
        batch, tokens, width = x.shape
        projections = [Projection(width, self.qkv_bias, name=name)(width) for name in ("query", "key", "value")]
        if self.fused_qkv and jax.default_backend() != "tpu":
            kernel = jnp.concatenate([kernel for kernel, _ in projections], axis=1).astype(self.dtype)
            bias = jnp.concatenate([bias for _, bias in projections]).astype(self.dtype)
            qkv = jnp.split(x @ kernel + jnp.expand_dims(bias, (0, 1)), 3, axis=-1)
        else:
            qkv = [x @ k.astype(self.dtype) + jnp.expand_dims(b.astype(self.dtype), (0, 1)) for k, b in projections]
        query, key, value = (x.reshape(batch, tokens, self.heads, width // self.heads) for x in qkv)
        # Lengths and not a mask: cuDNN takes them as they are, and refuses padding masks.
        x = jax.nn.dot_product_attention(
            query,
            key,
            value,
            is_causal=self.causal,
            key_value_seq_lengths=lengths,
            implementation=self.attention,
        )
        return nn.Dense(width, dtype=self.dtype, name="out")(x.reshape(batch, tokens, width))


class Projection(nn.Module):
    """The parameters of a linear map to `features`, for whoever applies them."""

    features: int
    bias: bool

    @nn.compact
    def __call__(self, width: int) -> tuple[jax.Array, jax.Array]:
        """Kernel [width, features] and bias [features], float32; zeros where there is no bias."""
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (width, self.features))
        if not self.bias:
            return kernel, jnp.zeros(self.features)
        return kernel, self.param("bias", nn.initializers.zeros, (self.features,))


class Mlp(nn.Module):
    """Two dense layers with an activation between them; gated, the first gives the gate's values, then the others."""

    hidden: int
    activation: str
    gated: bool
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, T, D] -> [B, T, D]."""
        activate = ACTIVATIONS[self.activation]
        if self.gated:
            gate, values = jnp.split(nn.Dense(2 * self.hidden, dtype=self.dtype, name="up")(x), 2, axis=-1)
            hidden = activate(gate) * values
        else:
            hidden = activate(nn.Dense(self.hidden, dtype=self.dtype, name="up")(x))
        return nn.Dense(x.shape[-1], dtype=self.dtype, name="down")(hidden)


def layer_norm(epsilon: float, dtype: str, name: str) -> nn.LayerNorm:
    """Layer norm with statistics in float32, computed as PyTorch does: E[(x - E x)^2], not E x^2 - (E x)^2."""
    return nn.LayerNorm(epsilon=epsilon, use_fast_variance=False, dtype=dtype, name=name)
