"""Transformers on a grid of patches: what the encoders `vit` and `ast` share, in layers and in weight tables."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from umemma_jax.encoders import foreign
from umemma_jax.encoders.foreign import Arrays, Hook, Rule, Shape
from umemma_jax.encoders.transformer import ACTIVATIONS, Transformer, layer_norm
from umemma_jax.errors import UserError

POOLS = ("cls", "mean")


class PatchEncoder(nn.Module):
    """A transformer from embedded patches to features, for a Model to derive from.

    Attributes:
      width: D, of the tokens.
      depth: number of layers.
      heads: of attention; D is a multiple of it.
      mlp_width: hidden width of the MLPs.
      pool: `cls`, the prefix token, or the mean of both where there are two (class and distillation), or `mean`, the
        mean of the patch tokens.
      activation: of the MLPs, key of `transformer.ACTIVATIONS`.
      epsilon: of the layer norms.
      qkv_bias: whether queries, keys and values have biases.
      dtype: of the matrix products, `float32` or `bfloat16`; parameters and features are float32.
      attention: implementation of attention, `xla` or `cudnn` (GPU, bfloat16).
      fused_qkv: one matrix product for queries, keys and values.
      scan: compile one layer, and loop over it.
      remat: recompute a layer's inside in the backward pass, for memory.
    """

    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_width: int = 3072
    pool: str = "cls"
    activation: str = "gelu"
    epsilon: float = 1e-12
    qkv_bias: bool = True
    dtype: str = "float32"
    attention: str = "xla"
    fused_qkv: bool = True
    scan: bool = False
    remat: bool = False

    def encode(
        self,
        x: jax.Array,
        prefix: int,
        registers: int = 0,
        norm_input: bool = False,
        norm_pooled: bool = False,
        **of_layers: bool,
    ) -> jax.Array:
        """Embedded patches [B, GH, GW, D] -> features [B, D], float32; called by a compact method.

        Args:
          x: patches, in `dtype`.
          prefix: P, how many learned tokens stand before the patches.
          registers: R, how many more stand between them, which no feature is made of.
          norm_input: normalise the tokens before the first layer.
          norm_pooled: the final norm comes after pooling; else before.
          **of_layers: further fields of `Transformer`.
        """
        x = Positions(prefix, registers, name="positions")(x)
        if norm_input:
            x = layer_norm(self.epsilon, self.dtype, "norm_input")(x)
        transformer = Transformer(
            depth=self.depth,
            heads=self.heads,
            mlp_width=self.mlp_width,
            activation=self.activation,
            epsilon=self.epsilon,
            qkv_bias=self.qkv_bias,
            dtype=self.dtype,
            attention=self.attention,
            fused_qkv=self.fused_qkv,
            scan=self.scan,
            remat=self.remat,
            **of_layers,
        )
        nn.share_scope(self, transformer)  # its parameters are layer0/..., beside positions and norm
        x = transformer(x)
        x = x[:, :prefix] if self.pool == "cls" else x[:, prefix + registers :]
        norm = layer_norm(self.epsilon, "float32", "norm")
        x = x.astype(jnp.float32)
        return norm(x.mean(axis=1)) if norm_pooled else norm(x).mean(axis=1)

    def check_fields(self, encoder: str, prefix: int) -> None:
        """Raises UserError, in the name of `encoder`, for values that cannot be."""
        choices = {
            "pool": POOLS if prefix else POOLS[1:],
            "activation": ACTIVATIONS,
            "dtype": ("float32", "bfloat16"),
            "attention": ("xla", "cudnn"),
        }
        for field, known in choices.items():
            if getattr(self, field) not in known:
                raise UserError(f"encoder {encoder}: {field} = {getattr(self, field)!r}, use one of {', '.join(known)}")
        if self.width % self.heads:
            raise UserError(f"encoder {encoder}: width = {self.width} is not a multiple of heads = {self.heads}")


class Positions(nn.Module):
    """Learned tokens before those of the patches, and position embeddings for all.

    Attributes:
      prefix: P, number of learned tokens with a position.
      registers: R, number of those without, which come after them (Darcet et al., 2023, arXiv 2309.16588).
    """

    prefix: int
    registers: int = 0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, GH, GW, D] -> [B, P + R + GH * GW, D], in the same dtype."""
        batch, height, width, features = x.shape
        initializer = nn.initializers.normal(0.02)
        grid = self.param("grid", initializer, (height, width, features)).astype(x.dtype)
        x = (x + jnp.expand_dims(grid, 0)).reshape(batch, height * width, features)
        before = []
        if self.prefix:
            tokens = self.param("tokens", initializer, (self.prefix, features))
            before.append(tokens + self.param("prefix", initializer, (self.prefix, features)))
        if self.registers:
            before.append(self.param("registers", initializer, (self.registers, features)))
        rows = [jnp.broadcast_to(tokens.astype(x.dtype), (batch, *tokens.shape)) for tokens in before]
        return jnp.concatenate([*rows, x], axis=1)


# --- weight tables ----------------------------------------------------------------------------------------------------

# Modules of a layer, ours and theirs: in Hugging Face's files, and in memory since transformers 5.
IN_FILES = {
    "norm1": "encoder.layer.{}.layernorm_before",
    "attention/query": "encoder.layer.{}.attention.attention.query",
    "attention/key": "encoder.layer.{}.attention.attention.key",
    "attention/value": "encoder.layer.{}.attention.attention.value",
    "attention/out": "encoder.layer.{}.attention.output.dense",
    "norm2": "encoder.layer.{}.layernorm_after",
    "mlp/up": "encoder.layer.{}.intermediate.dense",
    "mlp/down": "encoder.layer.{}.output.dense",
}
IN_MEMORY = {
    "norm1": "layers.{}.layernorm_before",
    "attention/query": "layers.{}.attention.q_proj",
    "attention/key": "layers.{}.attention.k_proj",
    "attention/value": "layers.{}.attention.v_proj",
    "attention/out": "layers.{}.attention.o_proj",
    "norm2": "layers.{}.layernorm_after",
    "mlp/up": "layers.{}.mlp.fc1",
    "mlp/down": "layers.{}.mlp.fc2",
}


def layer_fields(source: foreign.Source, names: Mapping[str, str]) -> dict[str, Any]:
    """Fields that the layers' shapes decide; their modules go by `names`, as in `layers`."""
    mlp_width, width = source.shape(names["mlp/up"].format(0) + ".weight", 2)
    return {"width": width, "depth": source.count(names["mlp/up"].split("{}")[0]), "mlp_width": mlp_width}


def hugging_face_fields(source: foreign.Source, names: Mapping[str, str], patches: str) -> dict[str, Any]:
    """Fields of Hugging Face's models of patches, which the embedding named `patches` makes; checks their config."""
    fields = layer_fields(source, names)
    _, _, *patch = source.shape(f"{patches}.weight", 4)
    source.check_stated(
        hidden_size=(768, fields["width"]),
        num_hidden_layers=(12, fields["depth"]),
        intermediate_size=(3072, fields["mlp_width"]),
        patch_size=(16, patch[0]),
    )
    return fields | {
        "heads": source.stated("num_attention_heads", 12) if source.config else None,
        "activation": foreign.activation(source.stated("hidden_act", "gelu")),
        "epsilon": source.stated("layer_norm_eps", 1e-12),
        "qkv_bias": names["attention/query"].format(0) + ".bias" in source.shapes,
        "patch": patch[1],
        "pool": "cls",
    }


def layers(depth: int, names: Mapping[str, str], qkv_bias: bool = True) -> list[Rule]:
    """Tables of a Transformer's layers.

    Args:
      depth: their number.
      names: ours -> theirs, of the modules of one layer, `{}` standing for its number.
      qkv_bias: whether queries, keys and values have biases.
    """
    rules = []
    for index in range(depth):
        for ours, theirs in names.items():
            ours, theirs = f"layer{index}/{ours}", theirs.format(index)
            if "/norm" in ours:
                rules += foreign.layer_norm(ours, theirs)
            else:
                rules += foreign.dense(ours, theirs, bias=qkv_bias or not ours.endswith(("query", "key", "value")))
    return rules


def tokens(names: Sequence[str], shape: Shape) -> list[Rule]:
    """Learned tokens [P, D] <- one tensor of `shape` each."""

    def load(arrays: Arrays) -> Arrays:
        return [np.stack([x.reshape(-1) for x in arrays])]

    def export(arrays: Arrays) -> Arrays:
        return [token.reshape(shape) for token in arrays[0]]

    return [Rule(("params/positions/tokens",), tuple(names), Hook(load, export))] if names else []


def positions(name: str, shape: Shape, prefix: int, grid: tuple[int, int], fit: str = "positions") -> list[Rule]:
    """Position embeddings of P prefix tokens [P, D] and of the grid [GH, GW, D] <- [..., P + GH * GW, D]."""
    *leading, _, width = shape

    def load(arrays: Arrays) -> Arrays:
        flat = arrays[0].reshape(-1, width)
        return [flat[:prefix], flat[prefix:].reshape(*grid, width)][not prefix :]

    def export(arrays: Arrays) -> Arrays:
        return [np.concatenate([x.reshape(-1, width) for x in arrays]).reshape(*leading, -1, width)]

    ours = ("params/positions/prefix", "params/positions/grid")[not prefix :]
    return [Rule(ours, (name,), Hook(load, export), fit=fit)]


# Sides of the square images that Vision Transformers are published for, pixels.
SIDES = (224, 240, 256, 280, 288, 320, 336, 384, 392, 448, 512, 518)


def grid(source: foreign.Source, name: str, prefix: int, patch: int, size: Any) -> tuple[int, int] | None:
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
            f"tensor {name} of {count + prefix} positions, {prefix} of them not of patches, is not "
            f"for the {rows}x{columns} patches of {size[0]}x{size[1]} images: put its own config.json beside it"
        )
    return rows, columns
