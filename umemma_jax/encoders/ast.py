"""Audio Spectrogram Transformer, with Hugging Face's weights."""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

from umemma_jax.encoders import foreign, patches
from umemma_jax.encoders.foreign import Format, Rule, Source
from umemma_jax.errors import UserError

PREFIX = 2  # class and distillation token


class Model(patches.PatchEncoder):
    """A DeiT on overlapping patches of log-mel spectrograms of any size from one patch on.

    Source: Gong et al., 2021, arXiv 2104.01778.

    Attributes:
      width, depth, heads, mlp_width, pool, activation, epsilon, qkv_bias, dtype, attention, fused_qkv, scan, remat: as
        in `patches.PatchEncoder`; `cls` is the mean of the class and the distillation token.
      patch: side of the square patches, bins and frames.
      frequency_stride: bins from patch to patch.
      time_stride: frames from patch to patch.
    """

    patch: int = 16
    frequency_stride: int = 10
    time_stride: int = 10

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None, train: bool = False) -> jax.Array:
        """Spectrograms [B, T, F] -> [B, D], float32.

        Rows do not depend on each other, so that mask [B] is not needed.

        Raises:
          UserError: x is no spectrogram or smaller than one patch, or fields contradict each other.
        """
        self.check_fields("ast", PREFIX)
        if x.ndim != 3 or min(x.shape[1:]) < self.patch:
            size = "x".join(map(str, x.shape[1:]))
            raise UserError(f"encoder ast: {size} inputs, need frames x bins, both of at least `patch` = {self.patch}")
        x = nn.Conv(
            features=self.width,
            kernel_size=(self.patch, self.patch),
            strides=(self.frequency_stride, self.time_stride),
            padding="VALID",
            dtype=self.dtype,
            name="patches",
        )(x.swapaxes(1, 2)[..., None])
        return self.encode(x, PREFIX)


# --- weight tables, Hugging Face --------------------------------------------------------------------------------------

TOKENS = ("embeddings.cls_token", "embeddings.distillation_token")
PATCHES = "embeddings.patch_embeddings.projection"
POSITIONS = "embeddings.position_embeddings"


def _fields(source: Source, names: Mapping[str, str]) -> dict[str, Any]:
    fields = patches.hugging_face_fields(source, names, PATCHES)
    strides = {key: source.stated(key, 10) if source.config else None for key in ("frequency_stride", "time_stride")}
    return fields | strides


def _grid(source: Source, fields: Mapping[str, Any]) -> tuple[int, int]:
    """Rows (frequency) and columns (time) of patches that the checkpoint's position embeddings are for."""
    bins, frames = source.stated("num_mel_bins", 128), source.stated("max_length", 1024)
    rows = (bins - fields["patch"]) // fields["frequency_stride"] + 1
    columns = (frames - fields["patch"]) // fields["time_stride"] + 1
    count = source.shape(POSITIONS, 3)[1] - PREFIX
    if rows * columns != count:
        raise UserError(
            f"encoder ast: tensor {POSITIONS} is for {count} patches, not for the {rows}x{columns} of {bins} bins and "
            f"{frames} frames: put the checkpoint's own config.json beside it, with num_mel_bins and max_length"
        )
    return rows, columns


def _rules(source: Source, fields: dict[str, Any], names: Mapping[str, str]) -> list[Rule]:
    return [
        *foreign.conv_2d("patches", PATCHES),
        *patches.tokens(TOKENS, source.shape(TOKENS[0], 3)),
        *patches.positions(POSITIONS, source.shape(POSITIONS, 3), PREFIX, _grid(source, fields)),
        *patches.layers(fields["depth"], names, fields["qkv_bias"]),
        *foreign.layer_norm("norm", "layernorm"),
    ]


def _format(name: str, names: Mapping[str, str]) -> Format:
    return Format(
        name=name,
        markers=(*TOKENS, f"{PATCHES}.weight", *(f"{names[k].format(0)}.weight" for k in ("norm1", "mlp/up"))),
        fields=functools.partial(_fields, names=names),
        rules=functools.partial(_rules, names=names),
        carried=(*foreign.BUFFERS, r"classifier\."),
        choices=("pool",),
        model_types=("audio-spectrogram-transformer",),
        classes=r"AST(Model|For)\w*",
    )


FORMATS = (
    _format("Hugging Face AST", patches.IN_FILES),
    _format("Hugging Face AST, as transformers 5 names it in memory", patches.IN_MEMORY),
)
