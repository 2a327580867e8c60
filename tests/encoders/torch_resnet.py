"""ResNet in PyTorch, written down again from its description, with the tensor names of the published checkpoints."""

import torch
from torch import nn
from torch.nn import functional

from umemma_jax.encoders.resnet import blocks


class ConvBlock(nn.Module):
    """Residual block: `sizes` are its kernels' sides, the first of side 3 strides."""

    def __init__(self, channels, width, sizes, stride, projection):
        super().__init__()
        self.count = len(sizes)
        features = 4 * width if self.count == 3 else width
        before = channels
        for index, size in enumerate(sizes):
            after = features if index + 1 == self.count else width
            step = stride if index == sizes.index(3) else 1
            self.add_module(f"conv{index + 1}", nn.Conv2d(before, after, size, step, size // 2, bias=False))
            self.add_module(f"bn{index + 1}", nn.BatchNorm2d(after))
            before = after
        self.stride, self.added, self.downsample = stride, features - channels, None
        if projection and (stride > 1 or self.added):
            convolution = nn.Conv2d(channels, features, 1, stride, bias=False)
            self.downsample = nn.Sequential(convolution, nn.BatchNorm2d(features))

    def forward(self, x):
        y = x
        for index in range(1, self.count + 1):
            y = getattr(self, f"bn{index}")(getattr(self, f"conv{index}")(y))
            y = functional.relu(y) if index < self.count else y
        if self.downsample is not None:
            return functional.relu(y + self.downsample(x))
        pad = self.added // 2
        return functional.relu(y + functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, pad, pad)))


class ResNet(nn.Module):
    """Images [B, C, H, W] -> features [B, D, H', W'] of `maps`, mean features [B, D] of `features`, or logits."""

    def __init__(self, depth, form="imagenet", width=64, channels=3, classes=10):
        super().__init__()
        self.form = form
        imagenet = form == "imagenet"
        self.conv1 = nn.Conv2d(channels, width, *((7, 2, 3) if imagenet else (3, 1, 1)), bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        sizes = (1, 3, 1) if imagenet and depth >= 50 else (3, 3)
        before, self.stages = width, []
        for stage, count in enumerate(blocks(form, depth), start=1):
            width_here, stage_blocks = width * 2 ** (stage - 1), []
            for index in range(count):
                stride = 2 if stage > 1 and index == 0 else 1
                stage_blocks.append(ConvBlock(before, width_here, sizes, stride, projection=imagenet))
                before = width_here * (4 if len(sizes) == 3 else 1)
            self.add_module(f"layer{stage}", nn.Sequential(*stage_blocks))
            self.stages.append(f"layer{stage}")
        self.head = "fc" if imagenet else "linear"
        self.add_module(self.head, nn.Linear(before, classes))

    def maps(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        if self.form == "imagenet":
            x = functional.max_pool2d(x, 3, 2, 1)
        for stage in self.stages:
            x = getattr(self, stage)(x)
        return x

    def features(self, x):
        return self.maps(x).mean((2, 3))

    def forward(self, x):
        return getattr(self, self.head)(self.features(x))


def channels_first(x):
    """NumPy images [..., H, W, C] as a tensor [..., C, H, W]."""
    return torch.from_numpy(x).movedim(-1, -3)
