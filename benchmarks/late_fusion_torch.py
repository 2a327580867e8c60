"""What `vision_language_step` compares with: ViT and BERT of `transformers` in late fusion, trained by PyTorch."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from ml_collections import ConfigDict
from torch import nn
from transformers import BertConfig, BertModel, ViTConfig, ViTModel
from transformers.utils import logging

from umemma_jax.data.kinds import Modality

logging.disable_progress_bar()
torch.backends.cudnn.allow_tf32 = False  # as its matrix products, by default
Batch = dict[str, torch.Tensor]


def device() -> str:
    """Where PyTorch computes."""
    return "cuda" if torch.cuda.is_available() else "cpu"


class LateFusion(nn.Module):
    """`umemma_jax.model.LateFusion` of `vit` and `bert`, with learned stand-ins and a linear head.

    Attributes:
      encoders, tokens, heads: of the modalities `image` and `text`.
    """

    def __init__(self, vit: Mapping[str, Any], bert: Mapping[str, Any], num_classes: int) -> None:
        """Random weights, seeded; `vit` and `bert` are fields of `transformers`' configs."""
        super().__init__()
        torch.manual_seed(0)
        no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        image = ViTModel(ViTConfig(**vit, **no_dropout), add_pooling_layer=False)
        text = BertModel(BertConfig(**bert, **no_dropout), add_pooling_layer=False)
        self.encoders = nn.ModuleDict({"image": image, "text": text})
        widths = {name: encoder.config.hidden_size for name, encoder in self.encoders.items()}
        self.tokens = nn.ParameterDict({name: 0.02 * torch.randn(1, width) for name, width in widths.items()})
        self.heads = nn.ModuleDict({name: nn.Linear(width, num_classes) for name, width in widths.items()})

    def forward(self, batch: Batch, present: torch.Tensor, bf16: bool) -> torch.Tensor:
        """Logits, float32 [B, K], of a batch under a presence mask, bool [B, 2]; `bf16`: encoders under autocast."""
        pixels = (batch["image"].float() - batch["mean"]) / batch["std"]
        seen = torch.arange(batch["tokens"].shape[1], device=present.device)[None] < batch["length"][:, None]
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=bf16):
            image = self.encoders["image"](pixels.permute(0, 3, 1, 2))
            text = self.encoders["text"](input_ids=batch["tokens"], attention_mask=seen.long())
        logits = 0.0
        for index, (name, outputs) in enumerate({"image": image, "text": text}.items()):
            kept, head = present[:, index, None], self.heads[name]
            feature = torch.where(kept, outputs.last_hidden_state[:, 0].float(), self.tokens[name])
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

    def __init__(self, model: LateFusion, stage: ConfigDict, patterns: np.ndarray, pixels: Modality) -> None:
        """Moves the model to the device.

        Args:
          model: is trained in place.
          stage: `config.fusion`.
          patterns: the subsets of modalities that training keeps, all alike, bool [P, M].
          pixels: states their mean and standard deviation per channel.
        """
        self.model = model.train().to(device())
        self.clip, self.pixels = stage.clip, pixels
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

    def step(self, batch: Batch, precision: str, compiled: bool = False) -> float:
        """One step under drawn presence masks, all of it computed on return; `precision` is fp32 or bf16.

        Returns:
          The loss before the update.
        """
        drawn = self.patterns[torch.randint(len(self.patterns), batch["label"].shape, device=device())]
        present = batch["present"] & drawn
        present = torch.where(present.any(1, keepdim=True), present, batch["present"])
        logits = (self.compiled if compiled else self.model)(batch, present, precision == "bf16")
        loss = F.cross_entropy(logits, batch["label"])
        loss.backward()
        for group in self.model.groups():
            nn.utils.clip_grad_norm_(group, self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if device() == "cuda":
            torch.cuda.synchronize()
        return loss.item()

    def put_batch(self, batch: Mapping[str, Any]) -> Batch:
        """Our batch of NumPy arrays as tensors on the device."""
        inputs = batch["inputs"]
        arrays = {
            "image": inputs["image"],
            "tokens": inputs["text"]["tokens"].astype(np.int64),
            "length": inputs["text"]["length"],
            "present": batch["present"],
            "label": batch["label"].astype(np.int64),
            "mean": np.array(self.pixels.mean, np.float32),
            "std": np.array(self.pixels.std, np.float32),
        }
        return {name: torch.tensor(array, device=device()) for name, array in arrays.items()}
