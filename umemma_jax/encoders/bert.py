"""Text transformers: BERT, RoBERTa, ELECTRA, DistilBERT and the text tower of CLIP."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from umemma_jax.encoders.hugging_face_text import HUGGING_FACE
from umemma_jax.encoders.transformer import ACTIVATIONS, Transformer, layer_norm
from umemma_jax.errors import UserError

POOLS = ("cls", "pooler", "mean", "last")


class Model(nn.Module):
    """Embeddings of words, positions and segment, a Transformer, and one feature out of its T tokens.

    With `norm_first` a norm follows the Transformer (CLIP), else it comes before, after the embeddings (BERT). Every
    token is of the first segment.

    Sources: Devlin et al., 2019, arXiv 1810.04805 (BERT); Liu et al., 2019, arXiv 1907.11692 (RoBERTa); Sanh et al.,
    2019, arXiv 1910.01108 (DistilBERT); Clark et al., 2020, arXiv 2003.10555 (ELECTRA); Radford et al., 2021, arXiv
    2103.00020 (CLIP).

    Attributes:
      vocabulary: V, number of token ids. An id beyond makes its text's feature NaN.
      width: D.
      embedding_width: of the embeddings, where a dense layer maps them to `width` (small ELECTRA); 0 for no such layer.
      depth: number of layers.
      heads: width is a multiple of it.
      mlp_width: hidden width of the MLPs.
      positions: the longest text, in tokens.
      position_offset: rows of the position table that come before the first token's; RoBERTa has 2, without use.
      segments: rows of the segment table; 0 where there is none (DistilBERT, CLIP).
      pool: the feature is the first token (`cls`), the first token after a dense layer and tanh (`pooler`), the `mean`
        of the tokens, or the `last` token, which is CLIP's end of text.
      activation: of the MLPs, key of `transformer.ACTIVATIONS`.
      epsilon: of the layer norms.
      norm_first: normalise what enters attention and MLP (CLIP), else the sums that leave them (BERT).
      causal: a token sees itself and those before it (CLIP).
      projection: the feature's width after a linear map without bias (CLIP); 0 for no such map.
      unit_length: divide the feature by its length (many of sentence-transformers).
      dtype: of the matrix products: float32 or bfloat16. Parameters and features are float32.
      attention: implementation of `jax.nn.dot_product_attention`: `xla` or `cudnn` (GPU, 16-bit dtypes).
      fused_qkv: one matrix product for queries, keys and values.
      scan: compile one layer, and loop over it.
      remat: recompute a layer's inside in the backward pass, for memory.
    """

    vocabulary: int = 30522
    width: int = 768
    embedding_width: int = 0
    depth: int = 12
    heads: int = 12
    mlp_width: int = 3072
    positions: int = 512
    position_offset: int = 0
    segments: int = 2
    pool: str = "cls"
    activation: str = "gelu"
    epsilon: float = 1e-12
    norm_first: bool = False
    causal: bool = False
    projection: int = 0
    unit_length: bool = False
    dtype: str = "float32"
    attention: str = "xla"
    fused_qkv: bool = True
    scan: bool = False
    remat: bool = False

    @nn.compact
    def __call__(self, x: Mapping[str, jax.Array], mask: jax.Array | None = None, train: bool = False) -> jax.Array:
        """Texts -> features [B, D], or [B, projection], float32.

        Args:
          x: `tokens` int32 [B, T], padded on the right with any ids, and `length` int32 [B], how many of them count.
            Length 0 (absent) is taken as 1, so that features and gradients stay finite.
          mask: bool [B], not used: no statistics are taken over the batch.
          train: not used.

        Raises:
          UserError: the input is no text or longer than `positions`, or a field has no meaning.
        """
        self._check(x)
        lengths = jnp.maximum(x["length"], 1)
        norm = layer_norm(self.epsilon, "float32", "norm")
        embeddings = Embeddings(
            vocabulary=self.vocabulary,
            width=self.embedding_width or self.width,
            positions=self.positions,
            position_offset=self.position_offset,
            segments=self.segments,
            name="embeddings",
        )
        y = embeddings(x["tokens"])
        y = y if self.norm_first else norm(y)
        if self.embedding_width:
            y = nn.Dense(self.width, name="embeddings_projection")(y)
        y = Transformer(
            depth=self.depth,
            heads=self.heads,
            mlp_width=self.mlp_width,
            activation=self.activation,
            epsilon=self.epsilon,
            norm_first=self.norm_first,
            causal=self.causal,
            dtype=self.dtype,
            attention=self.attention,
            fused_qkv=self.fused_qkv,
            scan=self.scan,
            remat=self.remat,
            name="transformer",
        )(y, lengths)
        y = y.astype("float32")
        y = norm(y) if self.norm_first else y
        y = pool_tokens(y, lengths, self.pool)
        if self.pool == "pooler":
            y = nn.tanh(nn.Dense(self.width, name="pooler")(y))
        if self.projection:
            y = nn.Dense(self.projection, use_bias=False, name="projection")(y)
        return of_unit_length(y) if self.unit_length else y

    def _check(self, x: Mapping[str, jax.Array]) -> None:
        if not isinstance(x, Mapping) or not {"tokens", "length"} <= set(x):
            raise UserError("encoder bert: the input is no text (tokens and length), give it a modality of kind text")
        length = x["tokens"].shape[1]
        if length > self.positions:
            raise UserError(
                f"encoder bert: texts of {length} tokens do not fit into {self.positions} positions, shorten the texts"
            )
        if self.width % self.heads:
            raise UserError(f"encoder bert: width = {self.width} is not a multiple of heads = {self.heads}")
        for field, known in (("pool", POOLS), ("activation", tuple(ACTIVATIONS))):
            if getattr(self, field) not in known:
                raise UserError(f"encoder bert: {field} = {getattr(self, field)!r}, use one of {', '.join(known)}")


class Embeddings(nn.Module):
    """Sum of the embeddings of words, positions and the first segment; fields as in `Model`."""

    vocabulary: int
    width: int
    positions: int
    position_offset: int
    segments: int

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Token ids int32 [B, T] -> float32 [B, T, D]."""

        def table(name: str, rows: int) -> jax.Array:
            return self.param(name, nn.initializers.normal(0.02), (rows, self.width))

        start = self.position_offset
        positions = table("positions", start + self.positions)[start : start + tokens.shape[1]]
        y = jnp.take(table("words", self.vocabulary), tokens, axis=0) + positions[None]
        return y + table("segments", self.segments)[None, :1] if self.segments else y


def pool_tokens(x: jax.Array, lengths: jax.Array, pool: str) -> jax.Array:
    """One token, or the mean of the first lengths[b] >= 1 tokens: [B, T, D] and [B] -> [B, D]; see `Model.pool`."""
    if pool == "last":
        return jnp.take_along_axis(x, (lengths - 1)[:, None, None], axis=1)[:, 0]
    if pool == "mean":
        kept = jnp.arange(x.shape[1])[None] < lengths[:, None]
        return jnp.where(kept[..., None], x, 0).sum(axis=1) / lengths[:, None]
    return x[:, 0]


def of_unit_length(x: jax.Array) -> jax.Array:
    """x / max(|x|, 1e-12) over the last axis, as PyTorch's `normalize`; finite, with its gradient, at 0."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(axis=-1, keepdims=True), 1e-24))


FORMATS = HUGGING_FACE
