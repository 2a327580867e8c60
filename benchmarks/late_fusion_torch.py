"""What `late_fusion_step` compares with: encoders of `transformers` in late fusion, trained by PyTorch.

An encoder takes the inputs of its modality as our pipeline gives them, as tensors, and returns features [B, D]; `model`
is the part that has a counterpart in ours, `width` is D.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from ml_collections import ConfigDict
from torch import nn
from transformers import BertConfig, BertModel, ResNetConfig, ResNetModel, ViTConfig, ViTModel
from transformers.utils import logging

from umemma_jax.data.kinds import Modality

logging.disable_progress_bar()
torch.backends.cudnn.allow_tf32 = False  # as its matrix products, by default
torch.backends.cudnn.benchmark = True  # tries several algorithms for each convolution, as XLA does
Tensors = Mapping[str, torch.Tensor]
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
RESNET_18 = {"depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512], "layer_type": "basic"}


def device() -> str:
    """Where PyTorch computes."""
    return "cuda" if torch.cuda.is_available() else "cpu"


class Pixels(nn.Module):
    """uint8 [..., H, W, C] -> float32 [..., C, H, W], standardised."""

    def __init__(self, modality: Modality) -> None:
        """The modality states mean and standard deviation per channel."""
        super().__init__()
        self.register_buffer("mean", torch.tensor(modality.mean))
        self.register_buffer("std", torch.tensor(modality.std))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Standardised pixels."""
        return ((pixels.float() - self.mean) / self.std).movedim(-1, -3)


class ViT(nn.Module):
    """On images, uint8 [B, H, W, C]."""

    def __init__(self, modality: Modality, **fields: Any) -> None:
        """Random weights, with these fields of ViTConfig."""
        super().__init__()
        self.pixels = Pixels(modality)
        self.model = ViTModel(ViTConfig(**fields, **NO_DROPOUT), add_pooling_layer=False)
        self.width = self.model.config.hidden_size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The class token's features."""
        return self.model(self.pixels(images)).last_hidden_state[:, 0]


class Bert(nn.Module):
    """On texts, {"tokens": [B, T], "length": [B]}."""

    def __init__(self, **fields: Any) -> None:
        """Random weights, with these fields of BertConfig."""
        super().__init__()
        self.model = BertModel(BertConfig(**fields, **NO_DROPOUT), add_pooling_layer=False)
        self.width = self.model.config.hidden_size

    def forward(self, text: Tensors) -> torch.Tensor:
        """The first token's features."""
        positions = torch.arange(text["tokens"].shape[1], device=text["length"].device)
        seen = positions[None] < text["length"][:, None]
        return self.model(input_ids=text["tokens"], attention_mask=seen.long()).last_hidden_state[:, 0]


class ResNet18(nn.Module):
    """On images, float32 [N, C, H, W]."""

    def __init__(self, channels: int, **fields: Any) -> None:
        """Random weights, with these fields of ResNetConfig."""
        super().__init__()
        self.model = ResNetModel(ResNetConfig(**{**RESNET_18, **fields}, num_channels=channels))
        self.width = self.model.config.hidden_sizes[-1]

    def pooled(self, images: torch.Tensor) -> torch.Tensor:
        """The mean over height and width, [N, D]."""
        return self.model(images).pooler_output.flatten(1)


class FrameResNet18(ResNet18):
    """On frames, {"frames": uint8 [B, T, H, W, C], "count": [B]}, all of which are there."""

    def __init__(self, modality: Modality, **fields: Any) -> None:
        """As `ResNet18`."""
        super().__init__(channels=len(modality.mean), **fields)
        self.pixels = Pixels(modality)

    def forward(self, video: Tensors) -> torch.Tensor:
        """The mean over frames."""
        pixels = self.pixels(video["frames"].flatten(0, 1))
        return self.pooled(pixels).unflatten(0, video["frames"].shape[:2]).mean(1)


class SpectrogramResNet18(ResNet18):
    """On waveforms, {"samples": int16 [B, S], "length": [B]}, all of them S samples long."""

    def __init__(self, spectrogram: Mapping[str, Any], **fields: Any) -> None:
        """As `ResNet18`; the spectrogram's fields are those of the preprocessing `stft`, not centred."""
        super().__init__(channels=1, **fields)
        self.spectrogram = spectrogram
        self.register_buffer("window", torch.hann_window(spectrogram["win_length"]))

    def forward(self, sound: Tensors) -> torch.Tensor:
        """Features of the log spectrogram, which is float32 in any precision."""
        size, hop = self.spectrogram["win_length"], self.spectrogram["hop_length"]
        samples = sound["samples"].float() / 2**15
        spectrum = torch.stft(samples, size, hop, window=self.window, center=False, return_complex=True)
        log = torch.log(spectrum.abs() + 1e-7).transpose(1, 2)
        return self.pooled(((log - self.spectrogram["mean"]) / self.spectrogram["std"])[:, None])


def late_fusion(encoders: Callable[[], Mapping[str, nn.Module]], num_classes: int) -> "LateFusion":
    """The model of encoders by modality; all of its random weights are seeded."""
    torch.manual_seed(0)
    return LateFusion(encoders(), num_classes)


class LateFusion(nn.Module):
    """`umemma_jax.model.LateFusion` with learned stand-ins and a linear head.

    Attributes:
      encoders, tokens, heads: of the modalities.
    """

    def __init__(self, encoders: Mapping[str, nn.Module], num_classes: int) -> None:
        """Random weights besides the encoders'."""
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        widths = {name: encoder.width for name, encoder in encoders.items()}
        self.tokens = nn.ParameterDict({name: 0.02 * torch.randn(1, width) for name, width in widths.items()})
        self.heads = nn.ModuleDict({name: nn.Linear(width, num_classes) for name, width in widths.items()})

    def forward(self, inputs: Mapping[str, Any], present: torch.Tensor, bf16: bool) -> torch.Tensor:
        """Logits, float32 [B, K], of inputs under a presence mask, bool [B, M]; `bf16`: encoders under autocast."""
        with torch.autocast(present.device.type, torch.bfloat16, enabled=bf16):
            features = {name: encoder(inputs[name]) for name, encoder in self.encoders.items()}
        logits = 0.0
        for index, (name, feature) in enumerate(features.items()):
            kept, head = present[:, index, None], self.heads[name]
            feature = torch.where(kept, feature.float(), self.tokens[name])
            logits = logits + feature @ head.weight.T + kept * head.bias
        return logits

    def groups(self) -> list[list[nn.Parameter]]:
        """The parameter groups whose gradients are clipped on their own."""
        encoders = [list(encoder.parameters()) for encoder in self.encoders.values()]
        return [*encoders, *([token] for token in self.tokens.values()), list(self.heads.parameters())]


class Training:
    """Model and optimiser; `step` trains by one step.

    Attributes:
      model: its parameters are float32, whatever the precision of a step.
    """

    def __init__(self, model: LateFusion, stage: ConfigDict, patterns: np.ndarray) -> None:
        """Moves the model to the device.

        Args:
          model: is trained in place.
          stage: `config.fusion`.
          patterns: the subsets of modalities that training keeps, all alike, bool [P, M].
        """
        self.model = model.train().to(device())
        self.clip = stage.clip
        self.patterns = torch.tensor(patterns, device=device())
        parameters = {"matrices": [], "others": []}
        for x in self.model.parameters():
            parameters["matrices" if x.ndim > 1 and x.shape[-2] > 1 else "others"].append(x)
        decays = {"matrices": stage.weight_decay, "others": 0.0}
        groups = [{"params": parameters[kind], "weight_decay": decay} for kind, decay in decays.items()]
        self.optimizer = torch.optim.AdamW(groups, lr=stage.learning_rate, fused=True)

    @functools.cached_property
    def compiled(self) -> Callable[..., torch.Tensor]:
        """The model's call, by `torch.compile`."""
        return torch.compile(self.model)

    def step(self, batch: Mapping[str, Any], precision: str, compiled: bool = False) -> float:
        """One step under drawn presence masks, all of it computed on return; `precision` is fp32 or bf16.

        Returns:
          The loss before the update.
        """
        drawn = self.patterns[torch.randint(len(self.patterns), batch["label"].shape, device=device())]
        present = batch["present"] & drawn
        present = torch.where(present.any(1, keepdim=True), present, batch["present"])
        logits = (self.compiled if compiled else self.model)(batch["inputs"], present, precision == "bf16")
        loss = F.cross_entropy(logits, batch["label"])
        loss.backward()
        for group in self.model.groups():
            nn.utils.clip_grad_norm_(group, self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if device() == "cuda":
            torch.cuda.synchronize()
        return loss.item()

    def put_batch(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Our batch of NumPy arrays as tensors on the device."""
        return {name: _tensors(batch[name]) for name in ("inputs", "present", "label")}


def _tensors(tree: Any) -> Any:
    """The arrays of nested dicts as tensors on the device, int32 as the int64 that PyTorch indexes with."""
    if isinstance(tree, Mapping):
        return {name: _tensors(value) for name, value in tree.items()}
    return torch.tensor(tree.astype(np.int64) if tree.dtype == np.int32 else tree, device=device())
