"""Our encoders against the original PyTorch classes, at their published sizes: converted, then on the same inputs.

python -m benchmarks.parity [--quick]

Every original is built with random weights, saved, and converted as a user would, in a fresh process of which the time
and the peak of memory are those of the table (from PyTorch's own files they include PyTorch); then both compute the
features of the same inputs in float32, on CPU. The originals are classes of `transformers` or, where it has none, those
that the tests have written again. The difference is the largest over all features, in units of their standard
deviation. Linux only; needs `pip install -e '.[torch]'`.
"""

import dataclasses
import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import timing, workload
from umemma_jax import command
from umemma_jax.errors import UserError
from umemma_jax.model import encoder_module
from umemma_jax.weights.model_card import PARAMETERS
from umemma_jax.weights.pretrained import Converted

BATCH = 4
TOKENS = 40
# Not resource.getrusage: its peak is inherited from the process that starts this one.
CONVERT = """
import re, sys, time
from umemma_jax.weights import convert
start = time.perf_counter()
convert.convert(*sys.argv[1:])
seconds = time.perf_counter() - start
print(seconds, 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]))
"""


@dataclasses.dataclass(frozen=True)
class Case:
    """One original.

    Attributes:
      family: ours.
      source: its name.
      original: names of the model and config classes in `transformers`; or a module and its class.
      small: fields of the config that make it small, for --quick; or arguments of the class, with or without.
      inputs: (rng, config) -> inputs of ours.
      theirs: (module, inputs) -> features as a PyTorch tensor.
      fields: of our Model, where they choose among features.
    """

    family: str
    source: str
    original: tuple[str, str]
    small: dict[str, Any]
    inputs: Callable[[np.random.Generator, Any], Any]
    theirs: Callable[[Any, Any], Any]
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = command.Parser(prog="python -m benchmarks.parity", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small models, one class of each family")
    quick = parser.parse_args(argv).quick
    first_of_each = {case.family: case for case in reversed(CASES)}
    rows = []
    for case in first_of_each.values() if quick else CASES:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(row(case, Path(folder), quick))
    timing.print_table(
        f"Features of {BATCH} inputs in float32: ours against the original PyTorch class",
        ("family", "original", "parameters", "max |difference| / std", "conversion, s", "file, MB", "peak, MB"),
        rows,
    )


def row(case: Case, folder: Path, quick: bool) -> tuple[str, ...]:
    """The table's row of one original."""
    module = original(case, quick)
    save(module, folder / "original")
    seconds, peak = converted_apart(case.family, folder / "original", folder / "ours")
    converted = Converted(folder / "ours")
    x = case.inputs(np.random.default_rng(0), getattr(module, "config", None))
    model = encoder_module(case.family).Model(**{**converted.card.fields, **case.fields})
    variables = converted.fit(jax.eval_shape(model.init, jax.random.key(0), x))
    ours, theirs = np.asarray(jax.jit(model.apply)(variables, x)), case.theirs(module, x).detach().numpy()
    if ours.shape != theirs.shape:
        raise ValueError(f"{case.source}: features of shape {ours.shape} and {theirs.shape}")
    size = (folder / "ours" / PARAMETERS).stat().st_size
    return (
        case.family,
        case.source,
        f"{converted.card.parameters:,}",
        f"{np.abs(ours - theirs).max() / theirs.std():.1e}",
        f"{seconds:.1f}",
        f"{size / 1e6:,.0f}",
        f"{peak / 1e6:,.0f}",
    )


def original(case: Case, quick: bool) -> Any:
    """The PyTorch module, seeded, in evaluation mode."""
    try:
        import torch
        import transformers
    except ImportError:
        raise UserError("PyTorch is the reference here: pip install -e '.[torch]'") from None
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    if "." in case.original[0]:
        return getattr(importlib.import_module(case.original[0]), case.original[1])(**case.small).eval()
    model_class, config_class = (getattr(transformers, name) for name in case.original)
    return model_class(config_class(**(case.small if quick else {}))).eval()


def save(module: Any, folder: Path) -> None:
    """Writes the module's weights as its users do: with a config.json, or its state dict alone."""
    import torch

    if hasattr(module, "save_pretrained"):
        module.save_pretrained(folder)
        return
    folder.mkdir()
    torch.save(module.state_dict(), folder / "weights.pth")


def converted_apart(family: str, source: Path, target: Path) -> tuple[float, float]:
    """Converts in a process of its own. Returns seconds, and the peak of its memory in bytes."""
    command = [sys.executable, "-c", CONVERT, family, str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": "."})
    if done.returncode:
        raise UserError(f"{family}: the conversion failed: {done.stderr.strip().splitlines()[-1]}")
    seconds, peak = map(float, done.stdout.split())
    return seconds, peak


def images(rng: np.random.Generator, config: Any) -> np.ndarray:
    """float32 [B, H, W, 3]."""
    size = getattr(config, "image_size", 224)
    return rng.normal(size=(BATCH, size, size, 3)).astype(np.float32)


def pixels(x: np.ndarray) -> Any:
    """[B, H, W, C] as PyTorch has them, [B, C, H, W]."""
    import torch

    return torch.tensor(x).permute(0, 3, 1, 2)


def texts(rng: np.random.Generator, config: Any) -> dict[str, np.ndarray]:
    """Token ids of several lengths, padded to T."""
    length = np.linspace(3, TOKENS, BATCH).astype(np.int32)
    tokens = rng.integers(5, config.vocab_size - 2, (BATCH, TOKENS)).astype(np.int32)
    tokens[np.arange(BATCH), length - 1] = config.vocab_size - 1  # CLIP pools where the highest id is
    tokens[np.arange(TOKENS)[None] >= length[:, None]] = config.pad_token_id or 0
    return {"tokens": tokens, "length": length}


def read(module: Any, x: dict[str, np.ndarray]) -> Any:
    """The module's outputs for texts."""
    import torch

    mask = torch.tensor(np.arange(TOKENS)[None] < x["length"][:, None]).long()
    return module(input_ids=torch.tensor(x["tokens"]).long(), attention_mask=mask)


def waveforms(rng: np.random.Generator, config: Any) -> np.ndarray:
    """float32 [B, S]."""
    return rng.normal(size=(BATCH, 65_535)).astype(np.float32)


def small_images(rng: np.random.Generator, config: Any) -> np.ndarray:
    """float32 [B, H, W, 3] of CIFAR's size."""
    return rng.normal(size=(BATCH, 32, 32, 3)).astype(np.float32)


def listened(module: Any, x: np.ndarray) -> Any:
    """AudioNet's features."""
    import torch

    return module(torch.tensor(x))


def spectrograms(rng: np.random.Generator, config: Any) -> np.ndarray:
    """float32 [B, T, F]."""
    return rng.normal(size=(BATCH, config.max_length, config.num_mel_bins)).astype(np.float32)


def heard(module: Any, x: np.ndarray) -> Any:
    """AST's pooled features."""
    import torch

    return module(torch.tensor(x)).pooler_output


LAYERS = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
WORDS = {"vocab_size": 200, "max_position_embeddings": 64}
STAGES = {"hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2], "layer_type": "basic"}  # ResNet-18
CASES = (
    Case("resnet", "ResNet-50 (ResNetModel)", ("ResNetModel", "ResNetConfig"), STAGES, images,
         lambda m, x: m(pixels(x)).pooler_output.flatten(1)),
    Case("resnet", "CIFAR ResNet-110 (written again)", ("tests.encoders.torch_resnet", "ResNet"),
         {"depth": 110, "form": "cifar", "width": 16}, small_images, lambda m, x: m.features(pixels(x))),
    Case("vit", "ViT-B/16 (ViTModel)", ("ViTModel", "ViTConfig"), {**LAYERS, "image_size": 32, "patch_size": 8}, images,
         lambda m, x: m(pixels(x)).last_hidden_state[:, 0]),
    Case("vit", "CLIP ViT-B/32 (CLIPVisionModelWithProjection)", ("CLIPVisionModelWithProjection", "CLIPVisionConfig"),
         {**LAYERS, "image_size": 32, "patch_size": 8}, images, lambda m, x: m(pixels(x)).image_embeds),
    Case("vit", "DINOv2 ViT-B/14 (Dinov2Model)", ("Dinov2Model", "Dinov2Config"),
         {**LAYERS, "image_size": 32, "patch_size": 8}, images, lambda m, x: m(pixels(x)).pooler_output),
    Case("vit", "DINOv2 ViT-B/16 with registers (Dinov2WithRegistersModel)",
         ("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig"),
         {**LAYERS, "image_size": 32, "patch_size": 8}, images, lambda m, x: m(pixels(x)).pooler_output),
    Case("bert", "BERT-base (BertModel)", ("BertModel", "BertConfig"), {**LAYERS, **WORDS}, texts,
         lambda m, x: read(m, x).pooler_output, {"pool": "pooler"}),
    Case("bert", "RoBERTa-base (RobertaModel)", ("RobertaModel", "RobertaConfig"), {**LAYERS, **WORDS}, texts,
         lambda m, x: read(m, x).last_hidden_state[:, 0], {"pool": "cls"}),
    Case("bert", "DistilBERT (DistilBertModel)", ("DistilBertModel", "DistilBertConfig"),
         {"dim": 48, "n_layers": 2, "n_heads": 4, "hidden_dim": 96, **WORDS}, texts,
         lambda m, x: read(m, x).last_hidden_state[:, 0], {"pool": "cls"}),
    Case("bert", "CLIP text (CLIPTextModelWithProjection)", ("CLIPTextModelWithProjection", "CLIPTextConfig"),
         {**LAYERS, **WORDS, "bos_token_id": 198, "eos_token_id": 199}, texts, lambda m, x: read(m, x).text_embeds),
    Case("ast", "AST (ASTModel)", ("ASTModel", "ASTConfig"), {**LAYERS, "max_length": 64, "num_mel_bins": 32},
         spectrograms, heard),
    Case("audionet", "AudioNet (written again)", ("tests.encoders.torch_audionet", "AudioNet"), {},
         waveforms, listened),
)  # fmt: skip


if __name__ == "__main__":
    workload.run(main)
