"""Vision Transformer, with the weights of Hugging Face's ViT, DeiT, MAE, MSN and CLIP, and of timm's ViT and DeiT."""

import dataclasses
import functools
import math
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from umemma_jax.encoders import foreign, patches
from umemma_jax.encoders.foreign import Format, Hook, Rule, Source
from umemma_jax.encoders.layers import merge_frames, pool_frames
from umemma_jax.errors import UserError


class Model(patches.PatchEncoder):
    """Vision Transformer on images or videos of any size that is a multiple of the patch.

    Source: Dosovitskiy et al., 2021, arXiv 2010.11929; with two prefix tokens, Touvron et al., 2021, arXiv 2012.12877
    (DeiT), whose feature is the mean of both, as its prediction is the mean of their heads'; with `norm_input`,
    `norm_pooled` and `projection`, Radford et al., 2021, arXiv 2103.00020 (CLIP).

    Attributes:
      width, depth, heads, mlp_width, pool, activation, epsilon, qkv_bias, dtype, attention, fused_qkv, scan, remat: as
        in `patches.PatchEncoder`.
      patch: side of the square patches, pixels.
      patch_bias: whether the patch embedding has a bias.
      prefix: learned tokens before the patches: 0, 1 (class) or 2 (class and distillation).
      norm_input: normalise the tokens before the first layer.
      norm_pooled: normalise the pooled feature (CLIP, timm's `fc_norm`); else all tokens, before pooling.
      projection: width of a last linear map without bias; 0 for none.
    """

    patch: int = 16
    patch_bias: bool = True
    prefix: int = 1
    norm_input: bool = False
    norm_pooled: bool = False
    projection: int = 0

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None, train: bool = False) -> jax.Array:
        """Images [B, H, W, C], videos [B, T, H, W, C] (mean over frames) or spectrograms [B, T, F] -> [B, D].

        Rows do not depend on each other, so that mask [B] is not needed.

        Raises:
          UserError: H or W is no multiple of the patch, x is no image, or a field cannot be what it is.
        """
        self.check_fields("vit", self.prefix)
        if self.prefix not in (0, 1, 2):
            raise UserError(f"encoder vit: prefix = {self.prefix}, use one of 0, 1, 2")
        if x.ndim not in (3, 4, 5):
            raise UserError(f"encoder vit: inputs of {x.ndim} axes, give it images, videos or spectrograms")
        x = x[..., None] if x.ndim == 3 else x
        shape = x.shape
        if shape[-3] % self.patch or shape[-2] % self.patch:
            size = f"{shape[-3]}x{shape[-2]}"
            raise UserError(f"encoder vit: {size} images cannot be cut into {self.patch}x{self.patch} patches, resize")
        x, _ = merge_frames(x, None)
        x = PatchEmbedding(self.width, self.patch, self.patch_bias, self.dtype, name="patches")(x)
        x = self.encode(x, self.prefix, self.norm_input, self.norm_pooled)
        if self.projection:
            x = nn.Dense(self.projection, use_bias=False, dtype=self.dtype, name="projection")(x)
        return pool_frames(x.astype(jnp.float32), shape)


class PatchEmbedding(nn.Module):
    """A convolution whose stride is its size, as one matrix product.

    Attributes:
      features: D.
      patch: side of the square patches.
      bias: whether there is one.
      dtype: of the product and the result.
    """

    features: int
    patch: int
    bias: bool
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H / patch, W / patch, D]."""
        batch, height, width, channels = x.shape
        size, rows, columns = self.patch, height // self.patch, width // self.patch
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (size, size, channels, self.features))
        x = x.astype(self.dtype).reshape(batch, rows, size, columns, size, channels).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(batch, rows, columns, -1) @ kernel.reshape(-1, self.features).astype(self.dtype)
        if self.bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            x = x + jnp.expand_dims(bias.astype(self.dtype), (0, 1, 2))
        return x


# --- weight tables ----------------------------------------------------------------------------------------------------


# Sides of the square images that Vision Transformers are published for, pixels.
SIDES = (224, 240, 256, 280, 288, 320, 336, 384, 392, 448, 512, 518)


def _grid(source: Source, name: str, prefix: int, patch: int, size: Any) -> tuple[int, int] | None:
    """Rows and columns of patches that position embeddings are for.

    Args:
      source: the checkpoint.
      name: of the position embeddings, [..., P + GH * GW, D].
      prefix: P.
      patch: side of the patches, pixels.
      size: (height, width) or side of the images, where the config states it; else they are squares of a side that is
        usual. None where that is not so: 2 x 8 patches are as many as 4 x 4.

    Raises:
      UserError: there are not so many.
    """
    count = source.shapes[name][-2] - prefix
    if not size:
        rows = math.isqrt(max(count, 0))
        return (rows, rows) if rows * rows == count and rows * patch in SIDES else None
    size = size if isinstance(size, list | tuple) else (size, size)
    if len(size) != 2 or not all(type(side) is int for side in size):
        raise UserError(f"config.json: {size!r:.80} is no size of images")
    rows, columns = (side // patch for side in size)
    if rows * columns != count:
        raise UserError(
            f"encoder vit: tensor {name} of {count + prefix} positions, {prefix} of them not of patches, is not "
            f"for the {rows}x{columns} patches of {size[0]}x{size[1]} images: put its own config.json beside it"
        )
    return rows, columns


# --- Hugging Face ViT, DeiT, MAE, MSN ---

HF_TOKENS = ("embeddings.cls_token", "embeddings.distillation_token")
HF_PATCHES = "embeddings.patch_embeddings.projection"
HF_POSITIONS = "embeddings.position_embeddings"


def _hf_fields(source: Source, names: Mapping[str, str]) -> dict[str, Any]:
    fields = patches.hugging_face_fields(source, names, HF_PATCHES)
    fields["prefix"] = sum(name in source.shapes for name in HF_TOKENS)
    source.shape(HF_POSITIONS, 3)
    size = source.config.get("image_size", 224) if source.config else None
    return fields | {"grid": _grid(source, HF_POSITIONS, fields["prefix"], fields["patch"], size)}


def _hf_rules(source: Source, fields: dict[str, Any], names: Mapping[str, str]) -> list[Rule]:
    prefix = fields["prefix"]
    return [
        *foreign.conv_2d("patches", HF_PATCHES, fit="channels"),
        *patches.tokens(HF_TOKENS[:prefix], source.shape(HF_TOKENS[0], 3)),
        *patches.positions(HF_POSITIONS, source.shape(HF_POSITIONS, 3), prefix, fields["grid"]),
        *patches.layers(fields["depth"], names, fields["qkv_bias"]),
        *foreign.layer_norm("norm", "layernorm"),
    ]


def _hf_format(name: str, names: Mapping[str, str]) -> Format:
    return Format(
        name=name,
        markers=(
            HF_TOKENS[0],
            HF_POSITIONS,
            f"{HF_PATCHES}.weight",
            *(f"{names[k].format(0)}.weight" for k in ("norm1", "mlp/up")),
        ),
        fields=functools.partial(_hf_fields, names=names),
        rules=functools.partial(_hf_rules, names=names),
        carried=(
            *foreign.BUFFERS,
            r"pooler\.",
            r"(cls_|distillation_)?classifier\.",
            r"embeddings\.mask_token$",
            r"decoder\.",
        ),
        choices=("pool",),
        model_types=("vit", "deit", "vit_msn", "vit_mae"),
        classes=r"(ViT|DeiT|ViTMSN|ViTMAE)(Model|For)\w*",
    )


# --- Hugging Face CLIP ---

CLIP_LAYERS = {
    "norm1": "encoder.layers.{}.layer_norm1",
    "attention/query": "encoder.layers.{}.self_attn.q_proj",
    "attention/key": "encoder.layers.{}.self_attn.k_proj",
    "attention/value": "encoder.layers.{}.self_attn.v_proj",
    "attention/out": "encoder.layers.{}.self_attn.out_proj",
    "norm2": "encoder.layers.{}.layer_norm2",
    "mlp/up": "encoder.layers.{}.mlp.fc1",
    "mlp/down": "encoder.layers.{}.mlp.fc2",
}
CLIP_TOKEN = "embeddings.class_embedding"
CLIP_PATCHES = "embeddings.patch_embedding"
CLIP_POSITIONS = "embeddings.position_embedding.weight"
CLIP_PROJECTION = "visual_projection"


def _clip_fields(source: Source, tower: str) -> dict[str, Any]:
    # A whole CLIPModel's config holds that of the tower, in old files in two places, of which the second counts.
    source = source.part("vision_config_dict", "vision_config")
    fields = patches.layer_fields(source, _under(tower, CLIP_LAYERS))
    _, _, _, patch = source.shape(f"{tower}{CLIP_PATCHES}.weight", 4)
    source.check_stated(
        hidden_size=(768, fields["width"]),
        num_hidden_layers=(12, fields["depth"]),
        intermediate_size=(3072, fields["mlp_width"]),
        patch_size=(32, patch),
    )
    positions = f"{tower}{CLIP_POSITIONS}"
    source.shape(positions, 2)
    size = source.config.get("image_size", 224) if source.config else None
    return fields | {
        "heads": source.stated("num_attention_heads", 12) if source.config else None,
        # OpenAI's models have quick_gelu, others gelu.
        "activation": foreign.activation(source.stated("hidden_act", "quick_gelu")) if source.config else None,
        "epsilon": source.stated("layer_norm_eps", 1e-5),
        "patch": patch,
        "patch_bias": False,
        "norm_input": True,
        "norm_pooled": True,
        "prefix": 1,
        "pool": "cls",
        "projection": source.shapes.get(f"{CLIP_PROJECTION}.weight", (0,))[0],
        "grid": _grid(source, positions, 1, patch, size),
    }


def _clip_rules(source: Source, fields: dict[str, Any], tower: str) -> list[Rule]:
    token, positions = f"{tower}{CLIP_TOKEN}", f"{tower}{CLIP_POSITIONS}"
    return [
        *foreign.conv_2d("patches", f"{tower}{CLIP_PATCHES}", bias=False, fit="channels"),
        *patches.tokens([token], source.shape(token, 1)),
        *patches.positions(positions, source.shape(positions, 2), 1, fields["grid"]),
        *foreign.layer_norm("norm_input", f"{tower}pre_layrnorm"),
        *patches.layers(fields["depth"], _under(tower, CLIP_LAYERS)),
        *foreign.layer_norm("norm", f"{tower}post_layernorm"),
        *foreign.dense("projection", CLIP_PROJECTION, bias=False, optional=True),
    ]


def _under(prefix: str, names: Mapping[str, str]) -> dict[str, str]:
    return {ours: f"{prefix}{theirs}" for ours, theirs in names.items()}


def _clip_format(name: str, tower: str) -> Format:
    markers = (CLIP_TOKEN, f"{CLIP_PATCHES}.weight", "pre_layrnorm.weight", "post_layernorm.weight")
    return Format(
        name=name,
        markers=tuple(f"{tower}{marker}" for marker in markers),
        fields=functools.partial(_clip_fields, tower=tower),
        rules=functools.partial(_clip_rules, tower=tower),
        carried=(r"(vision_model\.)?embeddings\.position_ids$", r"classifier\."),
        ignored=(r"text_model\.", r"text_projection\.", r"logit_scale$"),
        choices=("pool", "projection"),
        model_types=("clip", "clip_vision_model"),
        classes=r"CLIP(Vision)?(Model|For)\w*",
    )


# --- timm ViT and DeiT ---

TIMM_LAYERS = {
    "norm1": "blocks.{}.norm1",
    "attention/out": "blocks.{}.attn.proj",
    "norm2": "blocks.{}.norm2",
    "mlp/up": "blocks.{}.mlp.fc1",
    "mlp/down": "blocks.{}.mlp.fc2",
}
TIMM_TOKENS = ("cls_token", "dist_token")
# Width, depth and heads by the word in timm's names.
TIMM_SIZES = {
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
TIMM_NAMES = "|".join(
    (
        r"(vit|deit)_(tiny|small|base|large|huge|giant|gigantic)(_distilled)?_patch\d+_\d+(_(miil|in21k|sam|dino))?",
        rf"vit_({'|'.join(TIMM_SIZES)})_patch\d+(_plus)?_clip(_quickgelu)?_\d+",
        r"vit_(base|huge|giant)_patch\d+_gap_\d+",
        r"vit_base_patch16_siglip_gap_\d+",
        r"vit_large_patch16_siglip_gap_(256|384)",
    )
)
# Of `model_args`: what is read here, what the tensors show, and what counts in training only.
TIMM_ARGS = (
    *("num_heads", "global_pool", "img_size", "embed_dim", "depth", "patch_size", "class_token"),
    *("fc_norm", "qkv_bias", "mlp_ratio", "num_classes", "in_chans", "dynamic_img_size"),
    *("drop_rate", "drop_path_rate", "attn_drop_rate", "proj_drop_rate", "pos_drop_rate", "patch_drop_rate"),
)
TIMM_POOLS = {"token": "cls", "avg": "mean"}


def _timm_fields(source: Source) -> dict[str, Any]:
    shapes = source.shapes
    fields = patches.layer_fields(source, TIMM_LAYERS)
    _, _, _, patch = source.shape("patch_embed.proj.weight", 4)
    source.shape("pos_embed", 3)
    clip = "norm_pre.weight" in shapes
    fields |= {
        "epsilon": 1e-5 if clip else 1e-6,
        "qkv_bias": "blocks.0.attn.qkv.bias" in shapes,
        "patch": patch,
        "patch_bias": "patch_embed.proj.bias" in shapes,
        "prefix": sum(name in shapes for name in TIMM_TOKENS),
        "norm_input": clip,
        "norm_pooled": "fc_norm.weight" in shapes,
    }
    return fields | (_timm_named(source, fields) if source.config else _timm_nameless(source, fields))


def _timm_named(source: Source, fields: dict[str, Any]) -> dict[str, Any]:
    """Fields that the architecture's name tells, and `model_args`, which overrule it."""
    name = source.stated("architecture", "").split(".")[0]
    size, patch, image = re.fullmatch(r"[a-z]+_([a-z]+).*?_patch(\d+).*?_(\d+)(?:_[a-z]\w*)?", name).groups()
    width, depth, heads = TIMM_SIZES["plus" if "_plus_" in name else size]
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
    if pool not in TIMM_POOLS:
        raise UserError(f"config.json: global_pool {pool!r} is not supported, only {', '.join(TIMM_POOLS)} are")
    card = source.config.get("pretrained_cfg")
    card = card if isinstance(card, Mapping) else {}
    stated = arguments.config.get("img_size") or (card.get("input_size") or ())[1:] or int(image)
    return {
        "heads": arguments.stated("num_heads", 16 if gap and "siglip" not in name else heads),
        "pool": TIMM_POOLS[pool],
        "activation": "quick_gelu" if "quickgelu" in name else "gelu",
        "grid": _grid(source, "pos_embed", fields["prefix"], fields["patch"], stated),
    }


def _timm_nameless(source: Source, fields: dict[str, Any]) -> dict[str, Any]:
    """What is most likely without a config. Raises UserError where that is not clear."""
    if not fields["prefix"]:
        raise UserError(
            "timm's Vision Transformers without a class token differ in what tensors do not show: put the "
            "config.json with its architecture beside the checkpoint"
        )
    published = {(width, depth): heads for width, depth, heads in TIMM_SIZES.values()}
    heads = published.get((fields["width"], fields["depth"]))
    return {
        "heads": foreign.Default(heads) if heads else None,
        "pool": "mean" if fields["norm_pooled"] else "cls",
        "activation": None if fields["norm_input"] else "gelu",  # CLIP's may be quick_gelu
        "grid": _grid(source, "pos_embed", fields["prefix"], fields["patch"], None),
    }


def _timm_rules(source: Source, fields: dict[str, Any]) -> list[Rule]:
    prefix, norm_pooled = fields["prefix"], fields["norm_pooled"]
    shape = source.shape("pos_embed", 3)
    return [
        *foreign.conv_2d("patches", "patch_embed.proj", bias=fields["patch_bias"], fit="channels"),
        *patches.tokens(TIMM_TOKENS[:prefix], (1, 1, fields["width"])),
        *patches.positions("pos_embed", shape, prefix, fields["grid"], fit="antialiased_positions"),
        *(foreign.layer_norm("norm_input", "norm_pre") if fields["norm_input"] else []),
        *patches.layers(fields["depth"], TIMM_LAYERS),
        *_timm_qkv(fields["depth"], fields["qkv_bias"]),
        *foreign.layer_norm("norm", "fc_norm" if norm_pooled else "norm"),
    ]


def _timm_qkv(depth: int, bias: bool) -> list[Rule]:
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
    fields=_timm_fields,
    rules=_timm_rules,
    carried=(*foreign.BUFFERS, r"head(_dist)?\.", r"pre_logits\."),
    choices=("pool",),
    timm=TIMM_NAMES,
    timm_args=TIMM_ARGS,
)


FORMATS = (
    _hf_format("Hugging Face ViT", patches.IN_FILES),
    _hf_format("Hugging Face ViT, as transformers 5 names it in memory", patches.IN_MEMORY),
    _clip_format("Hugging Face CLIP", "vision_model."),
    _clip_format("Hugging Face CLIP, vision alone", ""),
    TIMM,
)
