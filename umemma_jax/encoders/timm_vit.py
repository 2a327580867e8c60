"""Tables for the encoder `vit` of timm's ViT, DeiT and CLIP: of which names, and what they tell."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from umemma_jax.encoders import foreign, patches
from umemma_jax.encoders.foreign import Format, Hook, Rule, Source
from umemma_jax.errors import UserError

LAYERS = {
    "norm1": "blocks.{}.norm1",
    "attention/out": "blocks.{}.attn.proj",
    "norm2": "blocks.{}.norm2",
    "mlp/up": "blocks.{}.mlp.fc1",
    "mlp/down": "blocks.{}.mlp.fc2",
}
TOKENS = ("cls_token", "dist_token")
# Width, depth and heads by the word in timm's names.
SIZES = {
    "tiny": (192, 12, 3),
    "xsmall": (256, 10, 4),
    "small": (384, 12, 6),
    "medium": (512, 12, 8),
    "betwixt": (640, 12, 10),
    "base": (768, 12, 12),
    "plus": (896, 12, 14),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
    "giant": (1408, 40, 16),
    "gigantic": (1664, 48, 16),
}
# Others have the same tensors and compute something else: `rpn` has its norms elsewhere, some SigLIPs another gelu.
NAMES = "|".join(
    (
        r"(vit|deit)_(tiny|small|base|large|huge|giant|gigantic)(_distilled)?_patch\d+_\d+(_(miil|in21k|sam|dino))?",
        rf"vit_({'|'.join(SIZES)})_patch\d+(_plus)?_clip(_quickgelu)?_\d+",
        r"vit_(base|huge|giant)_patch\d+_gap_\d+",
        r"vit_base_patch16_siglip_gap_\d+",
        r"vit_large_patch16_siglip_gap_(256|384)",
    )
)
# Of `model_args`: what is read here, what the tensors show, and what counts in training only.
ARGUMENTS = (
    *("num_heads", "global_pool", "img_size", "embed_dim", "depth", "patch_size", "class_token"),
    *("fc_norm", "qkv_bias", "mlp_ratio", "num_classes", "in_chans", "dynamic_img_size"),
    *("drop_rate", "drop_path_rate", "attn_drop_rate", "proj_drop_rate", "pos_drop_rate", "patch_drop_rate"),
)
POOLS = {"token": "cls", "avg": "mean"}


def _fields(source: Source) -> dict[str, Any]:
    shapes = source.shapes
    fields = patches.layer_fields(source, LAYERS)
    _, _, _, patch = source.shape("patch_embed.proj.weight", 4)
    source.shape("pos_embed", 3)
    clip = "norm_pre.weight" in shapes
    fields |= {
        "epsilon": 1e-5 if clip else 1e-6,
        "qkv_bias": "blocks.0.attn.qkv.bias" in shapes,
        "patch": patch,
        "patch_bias": "patch_embed.proj.bias" in shapes,
        "prefix": sum(name in shapes for name in TOKENS),
        "norm_input": clip,
        "norm_pooled": "fc_norm.weight" in shapes,
    }
    return fields | (_named(source, fields) if source.config else _nameless(source, fields))


def _named(source: Source, fields: dict[str, Any]) -> dict[str, Any]:
    """Fields that the architecture's name tells, and `model_args`, which overrule it."""
    name = source.stated("architecture", "").split(".")[0]
    size, patch, image = re.fullmatch(r"[a-z]+_([a-z]+).*?_patch(\d+).*?_(\d+)(?:_[a-z]\w*)?", name).groups()
    width, depth, heads = SIZES["plus" if "_plus_" in name else size]
    gap = "_gap_" in name
    arguments = dataclasses.replace(source, config={"architecture": name, **(source.config.get("model_args") or {})})
    arguments.check_stated(
        embed_dim=(width, fields["width"]),
        depth=(depth, fields["depth"]),
        patch_size=(int(patch), fields["patch"]),
        class_token=(not gap, fields["prefix"] > 0),
    )
    for word, there in (("_distilled_", fields["prefix"] == 2), ("_clip_", fields["norm_input"])):
        if (word in name) != there:
            raise UserError(f"config.json says {name}, which these tensors are not: put the checkpoint's own beside it")
    pool = arguments.stated("global_pool", source.stated("global_pool", "avg" if gap else "token"))
    if pool not in POOLS:
        raise UserError(f"config.json: global_pool {pool!r} is not supported, only {', '.join(POOLS)} are")
    card = source.config.get("pretrained_cfg")
    card = card if isinstance(card, Mapping) else {}
    stated = arguments.config.get("img_size") or (card.get("input_size") or ())[1:] or int(image)
    return {
        "heads": arguments.stated("num_heads", 16 if gap and "siglip" not in name else heads),
        "pool": POOLS[pool],
        "activation": "quick_gelu" if "quickgelu" in name else "gelu",
        "grid": patches.grid(source, "pos_embed", fields["prefix"], fields["patch"], stated),
    }


def _nameless(source: Source, fields: dict[str, Any]) -> dict[str, Any]:
    """What is most likely without a config. Raises UserError where that is not clear."""
    if not fields["prefix"]:
        raise UserError(
            "timm's Vision Transformers without a class token differ in what tensors do not show: put the "
            "config.json with its architecture beside the checkpoint"
        )
    published = {(width, depth): heads for width, depth, heads in SIZES.values()}
    heads = published.get((fields["width"], fields["depth"]))
    return {
        "heads": foreign.Default(heads) if heads else None,
        "pool": "mean" if fields["norm_pooled"] else "cls",
        "activation": None if fields["norm_input"] else "gelu",  # CLIP's may be quick_gelu
        "grid": patches.grid(source, "pos_embed", fields["prefix"], fields["patch"], None),
    }


def _rules(source: Source, fields: dict[str, Any]) -> list[Rule]:
    prefix, norm_pooled = fields["prefix"], fields["norm_pooled"]
    shape = source.shape("pos_embed", 3)
    return [
        *foreign.conv_2d("patches", "patch_embed.proj", bias=fields["patch_bias"], fit="channels"),
        *patches.tokens(TOKENS[:prefix], (1, 1, fields["width"])),
        *patches.positions("pos_embed", shape, prefix, fields["grid"], fit="antialiased_positions"),
        *(foreign.layer_norm("norm_input", "norm_pre") if fields["norm_input"] else []),
        *patches.layers(fields["depth"], LAYERS),
        *_qkv(fields["depth"], fields["qkv_bias"]),
        *foreign.layer_norm("norm", "fc_norm" if norm_pooled else "norm"),
    ]


def _qkv(depth: int, bias: bool) -> list[Rule]:
    """Queries, keys and values <- one layer whose outputs are theirs, one after the other."""
    kernels = Hook(
        lambda arrays: [x.T for x in np.split(arrays[0], 3)],
        lambda arrays: [np.concatenate([x.T for x in arrays])],
    )
    biases = Hook(lambda arrays: np.split(arrays[0], 3), lambda arrays: [np.concatenate(arrays)])
    rules = []
    for index in range(depth):
        paths = [f"params/layer{index}/attention/{name}" for name in ("query", "key", "value")]
        theirs = f"blocks.{index}.attn.qkv"
        rules.append(Rule(tuple(f"{path}/kernel" for path in paths), (f"{theirs}.weight",), kernels))
        if bias:
            rules.append(Rule(tuple(f"{path}/bias" for path in paths), (f"{theirs}.bias",), biases))
    return rules


TIMM = Format(
    name="timm ViT",
    markers=("patch_embed.proj.weight", "pos_embed", "blocks.0.attn.qkv.weight", "blocks.0.mlp.fc1.weight"),
    fields=_fields,
    rules=_rules,
    carried=(*foreign.BUFFERS, r"head(_dist)?\.", r"pre_logits\."),
    choices=("pool",),
    timm=NAMES,
    timm_args=ARGUMENTS,
)
