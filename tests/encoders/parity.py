"""What parity tests share: a PyTorch state dict on disk, converted, in the form of our Model."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from umemma_jax import convert, weights
from umemma_jax.model import encoder_module
from umemma_jax.pretrained import obtain


def load(family: str, source: Path, x: Any, first_layer: str = "", **given: Any) -> tuple[nn.Module, dict]:
    """The Model of a checkpoint and its variables for input x; `given` overrules the checkpoint's fields."""
    with tempfile.TemporaryDirectory() as cache:
        converted = obtain(family, source, given, Path(cache))
        model = encoder_module(family).Model(**{**converted.card.fields, **given})
        like = jax.eval_shape(model.init, jax.random.key(0), x)
        return model, converted.fit(like, first_layer)


def save(state: Mapping[str, Any], path: Path) -> Path:
    """Writes a PyTorch state dict as safetensors."""
    from safetensors.torch import save_file

    save_file({name: tensor.detach().clone().contiguous() for name, tensor in state.items()}, path)
    return path


def export_roundtrip(family: str, source: Path, tmp_path: Path) -> dict[str, np.ndarray]:
    """What an export of the converted checkpoint holds; converting that again gives the same bits."""
    first, second, exported = tmp_path / "converted", tmp_path / "again", tmp_path / "exported"
    card = convert.convert(family, source, first)
    convert.export(first, exported)
    convert.convert(family, exported, second)
    a, b = ((folder / convert.PARAMETERS).read_bytes() for folder in (first, second))
    assert a == b
    assert card.line()
    opened = weights.open_weights(exported)
    return {name: opened.read(name) for name in opened.shapes}


def redraw(module: Any, seed: int = 0, scale: float = 0.2) -> Any:
    """The PyTorch module in evaluation mode with every parameter and statistic random, norms around 1, so that no
    mistake in a table hides behind zeros and ones."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in (*module.named_parameters(), *module.named_buffers()):
            if not parameter.is_floating_point():
                continue
            noise = torch.randn(parameter.shape, generator=generator) * scale
            near_one = name.endswith("running_var") or (parameter.ndim == 1 and name.endswith("weight"))
            parameter.copy_(1 + noise.clamp(-0.5, 0.5) if near_one else noise)
    return module.eval()


def max_difference(ours: Any, theirs: Any) -> float:
    """Largest |difference|; theirs may be a PyTorch tensor."""
    theirs = theirs.detach().numpy() if hasattr(theirs, "detach") else theirs
    assert np.shape(ours) == np.shape(theirs)
    return float(np.abs(np.asarray(ours) - np.asarray(theirs)).max())
