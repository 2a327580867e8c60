"""What encoders' tests share: random inputs, PyTorch checkpoints in the form of our Model, and comparisons."""

import copy
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from umemma_jax.model import encoder_module
from umemma_jax.weights import convert, files, model_card
from umemma_jax.weights.pretrained import obtain

# --- inputs and variables ---------------------------------------------------------------------------------------------


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Normally distributed float32."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def random_variables(model: nn.Module, *x: Any) -> dict:
    """Variables of a Model without a checkpoint, every one random, so that none is 0 or 1."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), *x)
    return jax.tree.map(lambda leaf: 0.3 * rng.normal(size=leaf.shape).astype(np.float32), shapes)


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


def redraw_convolutions(module: Any, gain: float) -> Any:
    """`redraw`, and convolutions such that a gain of about 3 to 5 gives features of order 1."""
    import torch

    redraw(module)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 2:
                parameter.mul_(gain / parameter[0].numel() ** 0.5)
    return module


# --- checkpoints ------------------------------------------------------------------------------------------------------


def save(state: Mapping[str, Any], path: Path) -> Path:
    """Writes a PyTorch state dict as safetensors."""
    from safetensors.torch import save_file

    save_file({name: tensor.detach().clone().contiguous() for name, tensor in state.items()}, path)
    return path


def load(family: str, source: Path, x: Any, first_layer: str = "", **given: Any) -> tuple[nn.Module, dict]:
    """The Model of a checkpoint and its variables for input x; `given` overrules the checkpoint's fields."""
    with tempfile.TemporaryDirectory() as cache:
        converted = obtain(family, source, given, Path(cache))
        fields = {key: value for key, value in given.items() if key != "grid"}  # which only the tables take
        model = encoder_module(family).Model(**{**converted.card.fields, **fields})
        like = jax.eval_shape(model.init, jax.random.key(0), x)
        return model, converted.fit(like, first_layer)


def features(family: str, source: Path, x: Any, **given: Any) -> jax.Array:
    """What the Model of a checkpoint makes of x."""
    model, variables = load(family, source, x, **given)
    return model.apply(variables, x)


def export_roundtrip(family: str, source: Path, tmp_path: Path) -> dict[str, np.ndarray]:
    """What an export of the converted checkpoint holds; converting that again gives the same bits."""
    first, second, exported = tmp_path / "converted", tmp_path / "again", tmp_path / "exported"
    card = convert.convert(family, source, first)
    convert.export(first, exported)
    convert.convert(family, exported, second)
    a, b = ((folder / model_card.PARAMETERS).read_bytes() for folder in (first, second))
    assert a == b
    assert card.line()
    opened = files.open_weights(exported)
    return {name: opened.read(name) for name in opened.shapes}


def assert_export_is_the_original(family: str, network: Any, folder: Path, tmp_path: Path) -> None:
    """A Hugging Face model that was saved in a folder is exported tensor by tensor, and its class loads the export."""
    from safetensors.numpy import load_file

    tensors = load_file(folder / "model.safetensors")
    exported = export_roundtrip(family, folder, tmp_path)
    assert exported.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert_array_equal(exported[name], tensor, err_msg=name)
    assert_loads_again(network, tmp_path / "exported")


def assert_loads_again(network: Any, folder: Path) -> None:
    """The class of a Hugging Face model finds in a folder all of its parameters, and nothing else."""
    again, report = type(network).from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report  # missing, unexpected, mismatched
    assert_same_parameters(again, network)


def assert_same_parameters(found: Any, expected: Any) -> None:
    """Two PyTorch modules have the same bits."""
    for one, other in zip(found.parameters(), expected.parameters(), strict=True):
        assert_array_equal(one.detach().numpy(), other.detach().numpy())


# --- features ---------------------------------------------------------------------------------------------------------


def max_difference(ours: Any, theirs: Any) -> float:
    """Largest |difference|; theirs may be a PyTorch tensor."""
    theirs = theirs.detach().numpy() if hasattr(theirs, "detach") else theirs
    assert np.shape(ours) == np.shape(theirs)
    return float(np.abs(np.asarray(ours) - np.asarray(theirs)).max())


def assert_same_features(family: str, source: Path, x: Any, expected: Any, **given: Any) -> None:
    """The Model of a checkpoint makes of x what PyTorch did."""
    expected = expected.detach().numpy()
    assert 0.3 < np.abs(expected).max() < 10, "features are not of order 1"
    assert_allclose(features(family, source, x, **given), expected, rtol=0, atol=2e-5)


def assert_options_of_speed_change_no_feature(family: str, source: Path, x: Any, *options: dict) -> None:
    """Neither do the given fields of the Model, nor, but for its precision, does bfloat16."""
    expected = features(family, source, x)
    for given in options:
        assert_allclose(features(family, source, x, **given), expected, rtol=0, atol=1e-5, err_msg=str(given))
    assert_close_in_bfloat16(features(family, source, x, dtype="bfloat16"), expected)


def assert_close_in_bfloat16(found: Any, expected: Any, share: float = 0.05) -> None:
    """Features computed in bfloat16 are float32, not those of float32, and close to them."""
    assert found.dtype == np.float32
    assert not np.array_equal(found, expected)
    assert_allclose(found, expected, rtol=0, atol=share * np.abs(expected).max())


# --- gradients --------------------------------------------------------------------------------------------------------


def assert_same_gradients(family: str, network: Any, theirs: Any, x: Any, tmp_path: Path, **given: Any) -> None:
    """Gradients of a weighted sum of the features; `theirs` are what the Hugging Face model made of x."""
    import torch

    network.save_pretrained(tmp_path / "weights")
    model, variables = load(family, tmp_path / "weights", x, **given)
    weights = normal(*theirs.shape)
    gradients = jax.jit(jax.grad(lambda variables: (model.apply(variables, x) * weights).sum()))(variables)

    network.zero_grad()
    (theirs * torch.from_numpy(weights)).sum().backward()
    of_gradients = copy.deepcopy(network)  # takes the same way through the tables as the weights
    for parameter, counted in zip(of_gradients.parameters(), network.parameters(), strict=True):
        parameter.data = torch.zeros_like(counted) if counted.grad is None else counted.grad  # what no feature is of
    of_gradients.save_pretrained(tmp_path / "gradients")
    _, expected = load(family, tmp_path / "gradients", x, **given)
    assert_gradients_close(gradients, expected)


def assert_gradients_close(gradients: Any, expected: Any) -> None:
    """Every leaf is, by the largest value that is expected in it."""
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))

    def compare(path: tuple, gradient: Any, expected: Any) -> None:
        # Softmax does not see a shift of all keys: the true gradient is 0, and what is there is rounding.
        is_key_bias = jax.tree_util.keystr(path).endswith("['key']['bias']")
        atol = 1e-6 * largest if is_key_bias else 1e-4 * np.abs(expected).max()
        assert_allclose(gradient, expected, rtol=0, atol=atol, err_msg=jax.tree_util.keystr(path))

    jax.tree_util.tree_map_with_path(compare, gradients, expected)


def training(model: nn.Module, variables: dict, x: Any, weights: Any, mask: Any = None) -> tuple[np.ndarray, Any, Any]:
    """Features, new statistics, and gradients of the weighted sum of the features, in training."""

    def loss(params: Any) -> tuple:
        found, updates = model.apply({**variables, "params": params}, x, mask, True, mutable=["batch_stats"])
        return (found * weights).sum(), (found, updates["batch_stats"])

    gradients, (found, statistics) = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    return np.asarray(found), statistics, gradients


# --- rows that do not count -------------------------------------------------------------------------------------------


def assert_absent_rows_are_finite_and_change_no_other(apply: Callable, variables: dict, x: Any, width: int) -> None:
    """Of `apply(variables, x)`, which gives one feature [B, width] or a dict of them; absent rows are zeros."""

    @jax.jit
    def features_and_gradients(x: Any) -> tuple:
        def loss(variables: dict) -> tuple:
            found = apply(variables, x)
            return sum((feature**2).sum() for feature in jax.tree.leaves(found)), found

        gradients, found = jax.grad(loss, has_aux=True)(variables)
        return jax.tree.leaves(found), jax.tree.leaves(gradients)

    found, gradients = features_and_gradients(jax.tree.map(lambda rows: np.concatenate([rows, 0 * rows]), x))
    twice, _ = features_and_gradients(jax.tree.map(lambda rows: np.concatenate([rows, rows]), x))
    assert all(np.isfinite(leaf).all() for leaf in (*found, *gradients))
    rows = len(jax.tree.leaves(x)[0])
    for feature, expected in zip(found, twice, strict=True):
        assert feature.shape == (2 * rows, width)
        assert_allclose(feature[:rows], expected[:rows], rtol=0, atol=1e-6)


def assert_padding_rows_change_nothing(model: nn.Module, x: np.ndarray) -> None:
    """Neither the other rows' features in training nor the statistics; the last two rows of x are padding."""
    count = len(x) - 2
    variables = jax.jit(model.init)(jax.random.key(0), x)

    @jax.jit
    def run(x: np.ndarray, mask: np.ndarray) -> tuple:
        return model.apply(variables, x, mask, True, mutable=["batch_stats"])

    alone, statistics = run(x[:count], np.ones(count, bool))
    padded, padded_statistics = run(np.concatenate([x[:count], 100 * x[count:]]), np.arange(len(x)) < count)
    assert_allclose(padded[:count], alone, atol=1e-5)
    jax.tree.map(lambda a, e: assert_allclose(a, e, atol=1e-6), padded_statistics, statistics)
