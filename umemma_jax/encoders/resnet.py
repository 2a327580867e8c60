"""ResNet for images, spectrograms and video: the ImageNet form, and the CIFAR form for small inputs."""

import functools
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from umemma_jax.encoders import foreign
from umemma_jax.encoders.layers import BatchNorm, convolve, largest, merge_frames, pool_frames
from umemma_jax.errors import UserError

# Blocks of each stage; those of 50 and more layers are bottlenecks.
IMAGENET_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
WIDTHS = {"imagenet": 64, "cifar": 16}
EXPANSION = 4  # of a bottleneck: its output's channels over its 3x3 convolution's


class Model(nn.Module):
    """Stages of residual blocks, then a global pool; every stage after the first halves the image and doubles D.

    Convolutions and pools pad as PyTorch's do, not SAME. A bottleneck strides in its 3x3 convolution ("v1.5").

    Source: He et al., 2015, arXiv 1512.03385; the ImageNet form as in torchvision, the CIFAR form (section 4.2) with
    shortcuts without parameters (option A).

    Attributes:
      depth: 18, 34, 50, 101 or 152 in the ImageNet form; 6n + 2 from 20 to 110 in the CIFAR form.
      form: `imagenet` (four stages after a 7x7 convolution and a max-pool) or `cifar` (three after a 3x3 convolution).
      width: channels of the first convolution; 0: the form's own, 64 or 16.
      pool: `mean` or `max` over height and width.
      dtype: of the convolutions, `float32` or `bfloat16`; parameters, statistics and features are float32.
      remat: recompute a block's inside in the backward pass, for memory.
      axis_name: axis of `jax.pmap` over which the batch is spread, or None.
    """

    depth: int = 18
    form: str = "imagenet"
    width: int = 0
    pool: str = "mean"
    dtype: str = "float32"
    remat: bool = False
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None, train: bool = False) -> jax.Array:
        """Images [B, H, W, C], videos [B, T, H, W, C] (mean over T) or spectrograms [B, T, F] -> features [B, D].

        Rows that mask [B] leaves out do not count in batch statistics.

        Raises:
          UserError: no such form, depth or pool, or an input of another rank.
        """
        stages = blocks(self.form, self.depth)
        if self.pool not in ("mean", "max"):
            raise UserError(f"encoder resnet: pool '{self.pool}' is neither mean nor max")
        if x.ndim not in (3, 4, 5):
            raise UserError(f"encoder resnet: takes [B, T, F], [B, H, W, C] or [B, T, H, W, C], not {x.shape}")
        x = x[..., None] if x.ndim == 3 else x
        shape = x.shape
        x, mask = merge_frames(x, mask)

        fields = {"dtype": self.dtype, "axis_name": self.axis_name}
        width = self.width or WIDTHS[self.form]
        size, stride = (7, 2) if self.form == "imagenet" else (3, 1)
        x = ConvNorm(width, size, stride, **fields, name="stem")(x.astype(self.dtype), mask, train)
        x = nn.relu(x)
        if self.form == "imagenet":
            x = max_pool(x)

        block = nn.remat(Block, static_argnums=(3,)) if self.remat else Block
        for stage, count in enumerate(stages):
            for index in range(count):
                x = block(
                    width=width << stage,
                    bottleneck=is_bottleneck(self.form, self.depth),
                    stride=2 if stage and not index else 1,
                    projection=self.form == "imagenet",
                    **fields,
                    name=f"stage{stage}_block{index}",
                )(x, mask, train)
        x = x.astype(jnp.float32)
        return pool_frames(x.mean(axis=(1, 2)) if self.pool == "mean" else x.max(axis=(1, 2)), shape)


def blocks(form: str, depth: int) -> tuple[int, ...]:
    """Blocks of each stage.

    Raises:
      UserError: there is no such form or depth.
    """
    if form == "imagenet":
        if depth not in IMAGENET_BLOCKS:
            raise UserError(f"encoder resnet: depth {depth}, the imagenet form has {[*IMAGENET_BLOCKS]}")
        return IMAGENET_BLOCKS[depth]
    if form == "cifar":
        if depth not in range(20, 111, 6):
            raise UserError(f"encoder resnet: depth {depth}, the cifar form has 6n + 2 from 20 to 110")
        return 3 * ((depth - 2) // 6,)
    raise UserError(f"encoder resnet: form '{form}' is neither imagenet nor cifar")


def is_bottleneck(form: str, depth: int) -> bool:
    """Whether blocks are 1x1, 3x3, 1x1 convolutions; else two of 3x3."""
    return form == "imagenet" and depth >= 50


class Block(nn.Module):
    """Two or three convolutions and a shortcut around them.

    Attributes:
      width: channels of the 3x3 convolutions.
      bottleneck: 1x1, 3x3 and 1x1 convolutions, to 4 * width channels; else two 3x3 ones.
      stride: of the first 3x3 convolution.
      projection: a shortcut to another size is a 1x1 convolution; else it leaves out pixels and adds zero channels.
      dtype: of the convolutions and the result.
      axis_name: axis of `jax.pmap` over which the batch is spread, or None.
    """

    width: int
    bottleneck: bool
    stride: int
    projection: bool
    dtype: str
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), D]."""
        layer = functools.partial(ConvNorm, dtype=self.dtype, axis_name=self.axis_name)
        if self.bottleneck:
            features = EXPANSION * self.width
            y = nn.relu(layer(self.width, 1, 1, name="conv0")(x, mask, train))
            y = nn.relu(layer(self.width, 3, self.stride, name="conv1")(y, mask, train))
            y = layer(features, 1, 1, name="conv2")(y, mask, train)
        else:
            features = self.width
            y = nn.relu(layer(features, 3, self.stride, name="conv0")(x, mask, train))
            y = layer(features, 3, 1, name="conv1")(y, mask, train)

        channels = x.shape[-1]
        if self.stride == 1 and channels == features:
            return nn.relu(y + x)
        if self.projection:
            return nn.relu(y + layer(features, 1, self.stride, name="shortcut")(x, mask, train))
        before = (features - channels) // 2
        after = features - channels - before
        x = jnp.pad(x[:, :: self.stride, :: self.stride], ((0, 0), (0, 0), (0, 0), (before, after)))
        return nn.relu(y + x)


class ConvNorm(nn.Module):
    """Convolution without bias, padded by half its size, and batch norm.

    Attributes:
      features: D.
      size: side of the square kernel, odd.
      stride: along height and width.
      dtype: of the convolution and the result.
      axis_name: axis of `jax.pmap` over which the batch is spread, or None.
    """

    features: int
    size: int
    stride: int
    dtype: str
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), D]."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.variance_scaling(2, "fan_out", "normal"), shape)
        kernel, stride = kernel.astype(self.dtype), self.stride
        if self.size == 1:  # a matrix product, which takes XLA half the time of a convolution on CPU
            x = jnp.tensordot(x[:, ::stride, ::stride], kernel[0, 0], axes=1)
        else:
            x = convolve(x, kernel, stride, padding=self.size // 2)
        return BatchNorm(self.features, axis_name=self.axis_name, name="norm")(x, mask, train)


def max_pool(x: jax.Array) -> jax.Array:
    """Maximum over 3x3 windows with stride 2, padded by 1: [B, H, W, C] -> [B, ceil(H / 2), ceil(W / 2), C].

    Along the rows first, then along the columns. The gradient of `nn.max_pool` takes ten times as long on CPU.
    """
    for axis in (2, 1):
        padding = [(0, 0, 0)] * 4
        padding[axis] = (1, 1, 0)
        padded = jax.lax.pad(x, jnp.array(-jnp.inf, x.dtype), padding)
        end = x.shape[axis] + x.shape[axis] % 2 - 1
        x = largest(jnp.stack([jax.lax.slice_in_dim(padded, i, i + end, 2, axis) for i in range(3)]))
    return x


def _architecture(counts: tuple[int, ...], widths: tuple[int, ...], bottleneck: bool) -> dict[str, Any]:
    """Fields of the Model.

    Args:
      counts: blocks of each stage.
      widths: channels of the first convolution, and of the first one in each stage.
      bottleneck: whether blocks have three convolutions.

    Raises:
      UserError: no Model is like this.
    """
    kind = "bottleneck" if bottleneck else "basic"
    form = "cifar" if len(counts) == 3 else "imagenet"
    depths = range(20, 111, 6) if form == "cifar" else IMAGENET_BLOCKS
    known = [depth for depth in depths if blocks(form, depth) == counts and is_bottleneck(form, depth) == bottleneck]
    if not known:
        raise UserError(f"encoder resnet: the checkpoint has stages of {counts} {kind} blocks, as no known depth has")
    if widths != (widths[0], *(widths[0] << stage for stage in range(len(counts)))):
        raise UserError(f"encoder resnet: the checkpoint's stages are {widths[1:]} wide after a stem of {widths[0]}")
    return {"form": form, "depth": known[0], "width": widths[0]}


def _places(fields: dict[str, Any]) -> Iterator[tuple[str, int, int, int, bool]]:
    """Of each block: its name, stage, index in the stage, how many convolutions it has, whether a shortcut too."""
    form, bottleneck = fields["form"], is_bottleneck(fields["form"], fields["depth"])
    for stage, count in enumerate(blocks(form, fields["depth"])):
        for index in range(count):
            shortcut = form == "imagenet" and index == 0 and (stage > 0 or bottleneck)
            yield f"stage{stage}_block{index}", stage, index, 3 if bottleneck else 2, shortcut


def _conv_norm(ours: str, conv: str, norm: str, fit: str = "") -> list[foreign.Rule]:
    return [*foreign.conv_2d(ours, conv, bias=False, fit=fit), *foreign.batch_norm(f"{ours}/norm", norm)]


TIMM_POOLS = {"avg": "mean", "max": "max"}


def _torch_fields(source: foreign.Source) -> dict[str, Any]:
    stages = range(1, 5 if source.count("layer4.") else 4)
    fields = _architecture(
        counts=tuple(source.count(f"layer{stage}.") for stage in stages),
        widths=tuple(source.shape(f"{name}conv1.weight", 4)[0] for name in ("", *(f"layer{s}.0." for s in stages))),
        bottleneck="layer1.0.conv3.weight" in source.shapes,
    )
    return fields | {"pool": _timm_pool(source, fields) if source.config else "mean"}


def _timm_pool(source: foreign.Source, fields: dict[str, Any]) -> str:
    """The pool that timm's card states, in `model_args` before the rest; checks the architecture's name."""
    name = source.stated("architecture", "").split(".")[0]
    if name != f"resnet{fields['depth']}" or fields["form"] != "imagenet" or fields["width"] != WIDTHS["imagenet"]:
        raise UserError(f"config.json says {name}, which these tensors are not: put the checkpoint's own beside it")
    pool = source.part("model_args").stated("global_pool", source.stated("global_pool", "avg"))
    if pool not in TIMM_POOLS:
        raise UserError(f"config.json: global_pool {pool!r} is not supported, only {', '.join(TIMM_POOLS)} are")
    return TIMM_POOLS[pool]


def _torch_rules(source: foreign.Source, fields: dict[str, Any]) -> list[foreign.Rule]:
    rules = _conv_norm("stem", "conv1", "bn1", fit="channels")
    for ours, stage, index, convolutions, shortcut in _places(fields):
        theirs = f"layer{stage + 1}.{index}"
        for i in range(convolutions):
            rules += _conv_norm(f"{ours}/conv{i}", f"{theirs}.conv{i + 1}", f"{theirs}.bn{i + 1}")
        if shortcut:
            rules += _conv_norm(f"{ours}/shortcut", f"{theirs}.downsample.0", f"{theirs}.downsample.1")
    return rules


def _hugging_face_fields(source: foreign.Source) -> dict[str, Any]:
    stages = range(source.count("encoder.stages."))
    first = "encoder.stages.{}.layers.0.layer.{}.convolution.weight"
    bottleneck = first.format(0, 2) in source.shapes
    expected = {"hidden_act": "relu", "downsample_in_first_stage": False}
    if bottleneck:
        expected["downsample_in_bottleneck"] = False
    for key, value in expected.items():
        found = source.config.get(key, value)
        if found != value:
            raise UserError(f"encoder resnet: config.json has {key} = {found}, only {value} can be loaded")
    stems = ("embedder.embedder.convolution.weight", *(first.format(stage, 0) for stage in stages))
    counts = tuple(source.count(f"encoder.stages.{stage}.layers.") for stage in stages)
    widths = tuple(source.shape(name, 4)[0] for name in stems)
    source.check_stated(
        embedding_size=(64, widths[0]),
        depths=([3, 4, 6, 3], list(counts)),
        hidden_sizes=([256, 512, 1024, 2048], [width * (EXPANSION if bottleneck else 1) for width in widths[1:]]),
        layer_type=("bottleneck", "bottleneck" if bottleneck else "basic"),
    )
    return _architecture(counts, widths, bottleneck)


def _hugging_face_rules(source: foreign.Source, fields: dict[str, Any]) -> list[foreign.Rule]:
    def layer(ours: str, theirs: str, fit: str = "") -> list[foreign.Rule]:
        return _conv_norm(ours, f"{theirs}.convolution", f"{theirs}.normalization", fit)

    rules = layer("stem", "embedder.embedder", fit="channels")
    for ours, stage, index, convolutions, shortcut in _places(fields):
        theirs = f"encoder.stages.{stage}.layers.{index}"
        for i in range(convolutions):
            rules += layer(f"{ours}/conv{i}", f"{theirs}.layer.{i}")
        if shortcut:
            rules += layer(f"{ours}/shortcut", f"{theirs}.shortcut")
    return rules


FORMATS = (
    foreign.Format(
        name="torchvision (and timm) ResNet, and CIFAR ResNet with shortcuts of option A",
        markers=("conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer3.0.conv1.weight"),
        fields=_torch_fields,
        rules=_torch_rules,
        carried=(*foreign.BUFFERS, r"(fc|linear)\.(weight|bias)$"),
        choices=("pool",),
        # Not resnetaa or resnetblur, which pool between the same tensors.
        timm=r"resnet(18|34|50|101|152)",
        timm_args=("num_classes", "in_chans", "global_pool", "drop_rate", "drop_path_rate", "drop_block_rate"),
    ),
    foreign.Format(
        name="Hugging Face ResNet",
        markers=("embedder.embedder.convolution.weight", "encoder.stages.0.layers.0.layer.0.convolution.weight"),
        fields=_hugging_face_fields,
        rules=_hugging_face_rules,
        carried=(*foreign.BUFFERS, r"classifier\.1\.(weight|bias)$"),
        model_types=("resnet",),
        classes=r"ResNet(Model|For|Backbone)\w*",
    ),
)
