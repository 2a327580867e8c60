"""Text transformers: BERT, RoBERTa, DistilBERT and the text tower of CLIP."""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from umemma_jax.encoders import foreign
from umemma_jax.encoders.transformer import ACTIVATIONS, Transformer, layer_norm
from umemma_jax.errors import UserError

POOLS = ("cls", "pooler", "mean", "last")


class Model(nn.Module):
    """Embeddings of words, positions and segment, a Transformer, and one feature out of its T tokens.

    With `norm_first` a norm follows the Transformer (CLIP), else it comes before, after the embeddings (BERT). Every
    token is of the first segment.

    Sources: Devlin et al., 2019, arXiv 1810.04805 (BERT); Liu et al., 2019, arXiv 1907.11692 (RoBERTa); Sanh et al.,
    2019, arXiv 1910.01108 (DistilBERT); Radford et al., 2021, arXiv 2103.00020 (CLIP).

    Attributes:
      vocabulary: V, number of token ids. An id beyond makes its text's feature NaN.
      width: D.
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
            self.vocabulary, self.width, self.positions, self.position_offset, self.segments, name="embeddings"
        )
        y = embeddings(x["tokens"])
        y = y if self.norm_first else norm(y)
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


# Checkpoints.

# Our path in a layer -> Hugging Face's.
BERT_LAYER = {
    "attention/query": "attention.self.query",
    "attention/key": "attention.self.key",
    "attention/value": "attention.self.value",
    "attention/out": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "mlp/up": "intermediate.dense",
    "mlp/down": "output.dense",
    "norm2": "output.LayerNorm",
}
DISTILBERT_LAYER = {
    "attention/query": "attention.q_lin",
    "attention/key": "attention.k_lin",
    "attention/value": "attention.v_lin",
    "attention/out": "attention.out_lin",
    "norm1": "sa_layer_norm",
    "mlp/up": "ffn.lin1",
    "mlp/down": "ffn.lin2",
    "norm2": "output_layer_norm",
}
CLIP_LAYER = {
    "attention/query": "self_attn.q_proj",
    "attention/key": "self_attn.k_proj",
    "attention/value": "self_attn.v_proj",
    "attention/out": "self_attn.out_proj",
    "norm1": "layer_norm1",
    "mlp/up": "mlp.fc1",
    "mlp/down": "mlp.fc2",
    "norm2": "layer_norm2",
}
BERT_TYPES = ("bert",)
ROBERTA_TYPES = ("roberta", "xlm-roberta", "camembert")
ROBERTA_STARTS = ("roberta", "xlmroberta", "camembert")  # of model_type and of classes, in small letters
HEADS = (r"(.*\.)?(cls|classifier|pre_classifier|lm_head|qa_outputs|vocab_\w+)\.",)


def _bert_fields(source: foreign.Source) -> dict[str, Any]:
    kind = source.stated("position_embedding_type", "absolute")
    if kind != "absolute":
        raise UserError(f"config.json: position_embedding_type {kind!r} is not supported, only 'absolute'")
    roberta = _is_roberta(source)
    offset = source.stated("pad_token_id", 1) + 1 if roberta else 0
    rows, _ = source.shape("embeddings.position_embeddings.weight", 2)
    segments, _ = source.shape("embeddings.token_type_embeddings.weight", 2)
    sizes = _sizes(source, "embeddings.word_embeddings", "encoder.layer.", BERT_LAYER)
    source.check_stated(
        hidden_size=(768, sizes["width"]),
        num_hidden_layers=(12, sizes["depth"]),
        intermediate_size=(3072, sizes["mlp_width"]),
        max_position_embeddings=(512, rows),
        type_vocab_size=(2, segments),
    )
    return {
        **sizes,
        "positions": rows - offset,
        "position_offset": offset,
        "segments": segments,
        "pool": source.pool or "cls",
        "unit_length": source.unit_length,
        "heads": source.stated("num_attention_heads", 12) if source.config else None,
        "activation": foreign.activation(source.stated("hidden_act", "gelu")),
        # Without config.json: what all published RoBERTas have, which is not the default of RobertaConfig.
        "epsilon": source.stated("layer_norm_eps", 1e-12) if source.config or not roberta else 1e-5,
        "causal": source.stated("is_decoder", False),
    }


def _is_roberta(source: foreign.Source) -> bool:
    """RoBERTa has BERT's names; of what differs, only the sizes of two tables show without config.json."""
    if source.config:
        named = [source.config.get("model_type"), *(source.config.get("architectures") or [])]
        return any(str(name).lower().replace("-", "").startswith(ROBERTA_STARTS) for name in named)
    rows, _ = source.shape("embeddings.position_embeddings.weight", 2)
    segments, _ = source.shape("embeddings.token_type_embeddings.weight", 2)
    if (rows, segments) not in ((512, 2), (514, 1)):
        raise UserError(
            f"{rows} positions and {segments} segments may be BERT or RoBERTa, "
            "put a config.json with its model_type beside the checkpoint"
        )
    return segments == 1


def _bert_rules(source: foreign.Source, fields: dict[str, Any]) -> list[foreign.Rule]:
    return [
        *_embeddings("embeddings.", "word_embeddings", "position_embeddings"),
        *foreign.copy("embeddings/segments", "embeddings.token_type_embeddings.weight"),
        *_norm(source, "norm", "embeddings.LayerNorm"),
        *_layers(source, "encoder.layer.", BERT_LAYER),
        *foreign.dense("pooler", "pooler.dense", optional=True),
    ]


def _distilbert_fields(source: foreign.Source) -> dict[str, Any]:
    positions, _ = source.shape("embeddings.position_embeddings.weight", 2)
    sizes = _sizes(source, "embeddings.word_embeddings", "transformer.layer.", DISTILBERT_LAYER)
    source.check_stated(
        dim=(768, sizes["width"]),
        n_layers=(6, sizes["depth"]),
        hidden_dim=(3072, sizes["mlp_width"]),
        max_position_embeddings=(512, positions),
    )
    return {
        **sizes,
        "positions": positions,
        "segments": 0,
        "pool": source.pool or "cls",
        "unit_length": source.unit_length,
        "heads": source.stated("n_heads", 12) if source.config else None,
        "activation": foreign.activation(source.stated("activation", "gelu")),
        "epsilon": 1e-12,
    }


def _distilbert_rules(source: foreign.Source, fields: dict[str, Any]) -> list[foreign.Rule]:
    return [
        *_embeddings("embeddings.", "word_embeddings", "position_embeddings"),
        *_norm(source, "norm", "embeddings.LayerNorm"),
        *_layers(source, "transformer.layer.", DISTILBERT_LAYER),
    ]


def _clip_fields(prefix: str, source: foreign.Source) -> dict[str, Any]:
    # A whole CLIPModel's config holds that of the tower, in old files in two places, of which the second counts.
    source = source.part("text_config_dict", "text_config")
    positions, _ = source.shape(f"{prefix}embeddings.position_embedding.weight", 2)
    sizes = _sizes(source, f"{prefix}embeddings.token_embedding", f"{prefix}encoder.layers.", CLIP_LAYER)
    source.check_stated(
        hidden_size=(512, sizes["width"]),
        num_hidden_layers=(12, sizes["depth"]),
        intermediate_size=(2048, sizes["mlp_width"]),
        max_position_embeddings=(77, positions),
    )
    return {
        **sizes,
        "positions": positions,
        "segments": 0,
        "pool": "last",
        "heads": source.stated("num_attention_heads", 8) if source.config else None,
        # OpenAI's models have quick_gelu, others gelu.
        "activation": foreign.activation(source.stated("hidden_act", "quick_gelu")) if source.config else None,
        "epsilon": source.stated("layer_norm_eps", 1e-5),
        "norm_first": True,
        "causal": True,
        "projection": source.shapes.get("text_projection.weight", (0,))[0],
    }


def _clip_rules(prefix: str, source: foreign.Source, fields: dict[str, Any]) -> list[foreign.Rule]:
    return [
        *_embeddings(f"{prefix}embeddings.", "token_embedding", "position_embedding"),
        *_layers(source, f"{prefix}encoder.layers.", CLIP_LAYER),
        *_norm(source, "norm", f"{prefix}final_layer_norm"),
        *foreign.dense("projection", "text_projection", bias=False, optional=True),
    ]


def _sizes(source: foreign.Source, words: str, layers: str, names: dict[str, str]) -> dict[str, int]:
    """The fields that every checkpoint's shapes tell, for `layers` numbered under a prefix."""
    vocabulary, width = source.shape(f"{words}.weight", 2)
    mlp_width, _ = source.shape(f"{layers}0.{names['mlp/up']}.weight", 2)
    source.check_stated(vocab_size=(vocabulary, vocabulary))
    return {"vocabulary": vocabulary, "width": width, "depth": source.count(layers), "mlp_width": mlp_width}


def _embeddings(prefix: str, words: str, positions: str) -> list[foreign.Rule]:
    return [
        *foreign.copy("embeddings/words", f"{prefix}{words}.weight"),
        *foreign.copy("embeddings/positions", f"{prefix}{positions}.weight"),
    ]


def _layers(source: foreign.Source, prefix: str, names: dict[str, str]) -> list[foreign.Rule]:
    rules = []
    for layer in range(source.count(prefix)):
        for ours, theirs in names.items():
            paths = f"transformer/layer{layer}/{ours}", f"{prefix}{layer}.{theirs}"
            rules += _norm(source, *paths) if ours.startswith("norm") else foreign.dense(*paths)
    return rules


def _norm(source: foreign.Source, ours: str, theirs: str) -> list[foreign.Rule]:
    """A layer norm, whose scale and bias are gamma and beta in files from 2018 and 2019."""
    if f"{theirs}.gamma" not in source.shapes:
        return foreign.layer_norm(ours, theirs)
    return [*foreign.copy(f"{ours}/scale", f"{theirs}.gamma"), *foreign.copy(f"{ours}/bias", f"{theirs}.beta")]


def _clip_format(name: str, prefix: str) -> foreign.Format:
    return foreign.Format(
        name=name,
        markers=(f"{prefix}embeddings.token_embedding.weight", f"{prefix}encoder.layers.0.self_attn.q_proj.weight"),
        fields=functools.partial(_clip_fields, prefix),
        rules=functools.partial(_clip_rules, prefix),
        ignored=(r"vision_model\.", r"visual_projection\.", r"logit_scale$"),
        choices=("pool", "projection"),
        model_types=("clip", "clip_text_model"),
        classes=r"CLIP(Text)?(Model|For)\w*",
    )


FORMATS = (
    foreign.Format(
        name="Hugging Face BERT, RoBERTa",
        markers=("embeddings.word_embeddings.weight", "encoder.layer.0.attention.self.query.weight"),
        fields=_bert_fields,
        rules=_bert_rules,
        carried=(*foreign.BUFFERS, *HEADS),
        choices=("pool", "unit_length"),
        model_types=(*BERT_TYPES, *ROBERTA_TYPES),
        classes=r"(Bert|Roberta|XLMRoberta|Camembert)(Model|For|LMHeadModel)\w*",
    ),
    foreign.Format(
        name="Hugging Face DistilBERT",
        markers=("embeddings.word_embeddings.weight", "transformer.layer.0.attention.q_lin.weight"),
        fields=_distilbert_fields,
        rules=_distilbert_rules,
        carried=(*foreign.BUFFERS, *HEADS),
        choices=("pool", "unit_length"),
        model_types=("distilbert",),
        classes=r"DistilBert(Model|For)\w*",
    ),
    # CLIPTextModel is saved without the prefix since transformers 5; the projection has none, so it is not a wrapper.
    _clip_format("Hugging Face CLIP, text", "text_model."),
    _clip_format("Hugging Face CLIP, text model alone", ""),
)
