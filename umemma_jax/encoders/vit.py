"""Vision Transformer, with weights of Hugging Face's ViT, DeiT, MAE, MSN, CLIP, DINOv2, and of timm's ViT and DeiT."""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from umemma_jax.encoders import dinov2, foreign, patches, timm_vit
from umemma_jax.encoders.foreign import Format, Rule, Source
from umemma_jax.encoders.layers import merge_frames, pool_frames
from umemma_jax.errors import UserError


class Model(patches.PatchEncoder):
    """Vision Transformer on images or videos of any size that is a multiple of the patch.

    Source: Dosovitskiy et al., 2021, arXiv 2010.11929; with two prefix tokens, Touvron et al., 2021, arXiv 2012.12877
    (DeiT), whose feature is the mean of both, as its prediction is the mean of their heads'; with `norm_input`,
    `norm_pooled` and `projection`, Radford et al., 2021, arXiv 2103.00020 (CLIP); with `layer_scale`, `registers` and
    `gated`, Oquab et al., 2023, arXiv 2304.07193 (DINOv2).

    Attributes:
      width, depth, heads, mlp_width, pool, activation, epsilon, qkv_bias, dtype, attention, fused_qkv, scan, remat: as
        in `patches.PatchEncoder`.
      patch: side of the square patches, pixels.
      patch_bias: whether the patch embedding has a bias.
      prefix: learned tokens before the patches: 0, 1 (class) or 2 (class and distillation).
      norm_input: normalise the tokens before the first layer.
      norm_pooled: normalise the pooled feature (CLIP, timm's `fc_norm`); else all tokens, before pooling.
      projection: width of a last linear map without bias; 0 for none.
      registers: learned tokens between prefix and patches that no feature is made of.
      layer_scale, gated: as in `transformer.Transformer`.
    """

    patch: int = 16
    patch_bias: bool = True
    prefix: int = 1
    norm_input: bool = False
    norm_pooled: bool = False
    projection: int = 0
    registers: int = 0
    layer_scale: bool = False
    gated: bool = False

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
        x = self.encode(
            x,
            self.prefix,
            self.registers,
            self.norm_input,
            self.norm_pooled,
            layer_scale=self.layer_scale,
            gated=self.gated,
        )
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


# --- Hugging Face ViT, DeiT, MAE, MSN ---

HF_TOKENS = ("embeddings.cls_token", "embeddings.distillation_token")
HF_PATCHES = "embeddings.patch_embeddings.projection"
HF_POSITIONS = "embeddings.position_embeddings"


def _hf_fields(source: Source, names: Mapping[str, str]) -> dict[str, Any]:
    fields = patches.hugging_face_fields(source, names, HF_PATCHES)
    fields["prefix"] = sum(name in source.shapes for name in HF_TOKENS)
    source.shape(HF_POSITIONS, 3)
    size = source.config.get("image_size", 224) if source.config else None
    return fields | {"grid": patches.grid(source, HF_POSITIONS, fields["prefix"], fields["patch"], size)}


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
        "grid": patches.grid(source, positions, 1, patch, size),
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


FORMATS = (
    _hf_format("Hugging Face ViT", patches.IN_FILES),
    _hf_format("Hugging Face ViT, as transformers 5 names it in memory", patches.IN_MEMORY),
    _clip_format("Hugging Face CLIP", "vision_model."),
    _clip_format("Hugging Face CLIP, vision alone", ""),
    *dinov2.DINOV2,
    timm_vit.TIMM,
)
