"""Tables for the encoder `vit` of Hugging Face's DINOv2, with registers and without, in files and in memory."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from umemma_jax.encoders import foreign, patches
from umemma_jax.encoders.foreign import Arrays, Format, Hook, Rule, Source

TOKEN = "embeddings.cls_token"
REGISTERS = "embeddings.register_tokens"
PATCHES = "embeddings.patch_embeddings.projection"
POSITIONS = "embeddings.position_embeddings"
MODEL_TYPES = ("dinov2", "dinov2_with_registers")
SCALES = {"scale1": "encoder.layer.{}.layer_scale1.lambda1", "scale2": "encoder.layer.{}.layer_scale2.lambda1"}

IN_FILES = {
    "norm1": "encoder.layer.{}.norm1",
    "attention/query": "encoder.layer.{}.attention.attention.query",
    "attention/key": "encoder.layer.{}.attention.attention.key",
    "attention/value": "encoder.layer.{}.attention.attention.value",
    "attention/out": "encoder.layer.{}.attention.output.dense",
    "norm2": "encoder.layer.{}.norm2",
}
IN_MEMORY = IN_FILES | {
    "attention/query": "encoder.layer.{}.attention.q_proj",
    "attention/key": "encoder.layer.{}.attention.k_proj",
    "attention/value": "encoder.layer.{}.attention.v_proj",
    "attention/out": "encoder.layer.{}.attention.o_proj",
}
PLAIN = {"mlp/up": "encoder.layer.{}.mlp.fc1", "mlp/down": "encoder.layer.{}.mlp.fc2"}
GATED = {"mlp/up": "encoder.layer.{}.mlp.weights_in", "mlp/down": "encoder.layer.{}.mlp.weights_out"}
# In memory gate and values are layers of their own.
SPLIT = ("encoder.layer.{}.mlp.gate_proj", "encoder.layer.{}.mlp.up_proj", "encoder.layer.{}.mlp.down_proj")


def _is_gated(source: Source) -> bool:
    return f"{PLAIN['mlp/up'].format(0)}.weight" not in source.shapes


def _fields(source: Source, names: Mapping[str, str]) -> dict[str, Any]:
    gated, registers = _is_gated(source), REGISTERS in source.shapes
    up = PLAIN["mlp/up"] if not gated else SPLIT[0] if names is IN_MEMORY else GATED["mlp/up"]
    fields = patches.layer_fields(source, {"mlp/up": up})
    if gated and names is IN_FILES:  # where the first product gives gate and values
        fields["mlp_width"] //= 2
    _, _, _, patch = source.shape(f"{PATCHES}.weight", 4)
    source.shape(POSITIONS, 3)
    source.check_stated(
        hidden_size=(768, fields["width"]),
        num_hidden_layers=(12, fields["depth"]),
        patch_size=(16 if registers else 14, patch),
        use_swiglu_ffn=(False, gated),
    )
    size = source.config.get("image_size", 224) if source.config else None
    return fields | {
        "heads": source.stated("num_attention_heads", 12) if source.config else None,
        "pool": "cls",
        "activation": "silu" if gated else foreign.activation(source.stated("hidden_act", "gelu")),
        "epsilon": source.stated("layer_norm_eps", 1e-6),
        "qkv_bias": names["attention/query"].format(0) + ".bias" in source.shapes,
        "patch": patch,
        "prefix": 1,
        "registers": source.shape(REGISTERS, 3)[1] if registers else 0,
        "layer_scale": True,
        "gated": gated,
        "grid": patches.grid(source, POSITIONS, 1, patch, size),
    }


def _rules(source: Source, fields: dict[str, Any], names: Mapping[str, str]) -> list[Rule]:
    depth, registers = fields["depth"], fields["registers"]
    fit = "antialiased_positions" if registers else "positions"  # as each of the two classes resizes them
    rules = [
        *foreign.conv_2d("patches", PATCHES, fit="channels"),
        *patches.tokens([TOKEN], source.shape(TOKEN, 3)),
        *patches.positions(POSITIONS, source.shape(POSITIONS, 3), 1, fields["grid"], fit),
        *foreign.layer_norm("norm", "layernorm"),
    ]
    if registers:
        rules.append(Rule(("params/positions/registers",), (REGISTERS,), _of_one_row()))
    if not fields["gated"]:
        names = {**names, **PLAIN}
    elif names is IN_FILES:
        names = {**names, **GATED}
    else:
        rules += [rule for layer in range(depth) for rule in _split(layer)]
    rules += patches.layers(depth, names, fields["qkv_bias"])
    for layer in range(depth):
        for ours, theirs in SCALES.items():
            rules += foreign.copy(f"layer{layer}/{ours}/scale", theirs.format(layer))
    return rules


def _of_one_row() -> Hook:
    """[R, D] <-> [1, R, D]."""
    return Hook(lambda arrays: [x[0] for x in arrays], lambda arrays: [x[None] for x in arrays])


def _split(layer: int) -> list[Rule]:
    """The gated MLP of a layer, whose first product is stored as two."""
    gate, values, down = (name.format(layer) for name in SPLIT)

    def load(arrays: Arrays) -> Arrays:
        return [np.concatenate(arrays).T]

    def export(arrays: Arrays) -> Arrays:
        return np.split(arrays[0].T, 2)

    weights, biases = ((f"{gate}.{kind}", f"{values}.{kind}") for kind in ("weight", "bias"))
    return [
        Rule((f"params/layer{layer}/mlp/up/kernel",), weights, Hook(load, export)),
        Rule((f"params/layer{layer}/mlp/up/bias",), biases, Hook(load, export)),
        *foreign.dense(f"layer{layer}/mlp/down", down),
    ]


def _format(name: str, names: Mapping[str, str]) -> Format:
    of_layers = (names["attention/query"].format(0) + ".weight", SCALES["scale1"].format(0))
    return Format(
        name=name,
        markers=(TOKEN, POSITIONS, f"{PATCHES}.weight", *of_layers),
        fields=functools.partial(_fields, names=names),
        rules=functools.partial(_rules, names=names),
        carried=(*foreign.BUFFERS, r"classifier\.", r"embeddings\.mask_token$"),
        choices=("pool",),
        model_types=MODEL_TYPES,
        classes=r"Dinov2(WithRegisters)?(Model|ForImageClassification)",
    )


DINOV2 = (
    _format("Hugging Face DINOv2", IN_FILES),
    _format("Hugging Face DINOv2, as transformers 5 names it in memory", IN_MEMORY),
)
