"""Tables between Hugging Face's text transformers and `bert`: BERT, RoBERTa, ELECTRA, DistilBERT, CLIP's text tower."""

import functools
from collections.abc import Mapping
from typing import Any

from umemma_jax.encoders import foreign
from umemma_jax.errors import UserError

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
BERT_DEFAULTS = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}  # of BertConfig
ELECTRA_DEFAULTS = {"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4}  # of ElectraConfig
HEADS = (r"(.*\.)?(cls|classifier|pre_classifier|lm_head|qa_outputs|vocab_\w+)\.",)


def _bert_fields(source: foreign.Source, defaults: Mapping[str, int] = BERT_DEFAULTS) -> dict[str, Any]:
    kind = source.stated("position_embedding_type", "absolute")
    if kind != "absolute":
        raise UserError(f"config.json: position_embedding_type {kind!r} is not supported, only 'absolute'")
    roberta = _is_roberta(source)
    offset = source.stated("pad_token_id", 1) + 1 if roberta else 0
    rows, _ = source.shape("embeddings.position_embeddings.weight", 2)
    segments, _ = source.shape("embeddings.token_type_embeddings.weight", 2)
    sizes = _sizes(source, "embeddings.word_embeddings", "encoder.layer.", BERT_LAYER)
    source.check_stated(
        hidden_size=(defaults["hidden_size"], sizes["width"]),
        num_hidden_layers=(12, sizes["depth"]),
        intermediate_size=(defaults["intermediate_size"], sizes["mlp_width"]),
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
        "heads": source.stated("num_attention_heads", defaults["num_attention_heads"]) if source.config else None,
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


def _electra_fields(source: foreign.Source) -> dict[str, Any]:
    fields = _bert_fields(source, ELECTRA_DEFAULTS)
    _, embedding_width = source.shape("embeddings.word_embeddings.weight", 2)
    source.check_stated(embedding_size=(128, embedding_width))
    return {**fields, "embedding_width": embedding_width if embedding_width != fields["width"] else 0}


def _electra_rules(source: foreign.Source, fields: dict[str, Any]) -> list[foreign.Rule]:
    projection = foreign.dense("embeddings_projection", "embeddings_project")
    return [*_bert_rules(source, fields), *(projection if fields["embedding_width"] else [])]


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
    vocabulary, _ = source.shape(f"{words}.weight", 2)
    mlp_width, width = source.shape(f"{layers}0.{names['mlp/up']}.weight", 2)
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


HUGGING_FACE = (
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
        name="Hugging Face ELECTRA",
        markers=("embeddings.word_embeddings.weight", "encoder.layer.0.attention.self.query.weight"),
        fields=_electra_fields,
        rules=_electra_rules,
        carried=(*foreign.BUFFERS, *HEADS, r"(discriminator|generator)_\w+\.", r"sequence_summary\."),
        choices=("pool", "unit_length"),
        model_types=("electra",),
        classes=r"Electra(Model|For)\w*",
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
