"""Transformer layers against PyTorch's, and what the options of speed must not change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tests.encoders.parity import assert_gradients_close, normal, random_variables
from umemma_jax.encoders.transformer import ACTIVATIONS, Transformer

BATCH, TOKENS, WIDTH = 3, 7, 24
SIZES = {"depth": 2, "heads": 3, "mlp_width": 40, "epsilon": 1e-5}
LENGTHS = np.array([7, 4, 1], np.int32)


@pytest.fixture(scope="module")
def x():
    return normal(BATCH, TOKENS, WIDTH)


@pytest.fixture(scope="module")
def variables(x):
    return random_variables(Transformer(**SIZES), x)


def stacked(variables):
    """Parameters of layer0, layer1, ... as `scan` keeps them."""
    layers = [variables["params"][f"layer{index}"] for index in range(SIZES["depth"])]
    return {"params": {"layers": jax.tree.map(lambda *leaves: np.stack(leaves), *layers)}}


def outputs_and_gradients(variables, x, lengths=None, **fields):
    """Tokens [B, T, D], and gradients of a sum over those that count in parameters and x."""
    model = Transformer(**{**SIZES, **fields})
    kept = np.arange(TOKENS) < (np.full(BATCH, TOKENS) if lengths is None else lengths)[:, None]
    weights = normal(*x.shape, seed=1) * kept[..., None]

    @jax.jit
    def run(variables, x):
        def loss(variables, x):
            y = model.apply(variables, x, lengths)
            return (y.astype(jnp.float32) * weights).sum(), y

        gradients, y = jax.grad(loss, argnums=(0, 1), has_aux=True)(variables, x)
        return y, gradients

    return run(variables, x)


# --- PyTorch ----------------------------------------------------------------------------------------------------------


def torch_layer(torch, params, norm_first):
    """torch.nn.TransformerEncoderLayer with our parameters."""
    layer = torch.nn.TransformerEncoderLayer(
        WIDTH, SIZES["heads"], SIZES["mlp_width"], 0.0, "gelu", SIZES["epsilon"], True, norm_first
    )
    attention = params["attention"]
    kernels, biases = zip(
        *((attention[n]["kernel"].T, attention[n]["bias"]) for n in ("query", "key", "value")), strict=True
    )
    state = {"self_attn.in_proj_weight": np.concatenate(kernels), "self_attn.in_proj_bias": np.concatenate(biases)}
    for theirs, ours in (
        ("self_attn.out_proj", attention["out"]),
        ("linear1", params["mlp"]["up"]),
        ("linear2", params["mlp"]["down"]),
    ):
        state |= {f"{theirs}.weight": ours["kernel"].T, f"{theirs}.bias": ours["bias"]}
    for name in ("norm1", "norm2"):
        state |= {f"{name}.weight": params[name]["scale"], f"{name}.bias": params[name]["bias"]}
    layer.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in state.items()}, strict=True)
    return layer


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "lengths"])
@pytest.mark.parametrize("causal", [False, True])
def test_tokens_and_gradients_are_those_of_pytorch(norm_first, lengths, causal, variables, x):
    torch = pytest.importorskip("torch")
    layers = [torch_layer(torch, variables["params"][f"layer{index}"], norm_first) for index in range(SIZES["depth"])]
    kept = np.arange(TOKENS) < (np.full(BATCH, TOKENS) if lengths is None else lengths)[:, None]
    tokens = torch.from_numpy(x).requires_grad_()
    padding = torch.from_numpy(np.where(kept, 0, -np.inf).astype(np.float32))
    mask = torch.nn.Transformer.generate_square_subsequent_mask(TOKENS) if causal else None
    expected = tokens
    for layer in layers:
        expected = layer(expected, src_mask=mask, src_key_padding_mask=padding)
    weights = torch.from_numpy(normal(*x.shape, seed=1) * kept[..., None])
    (expected * weights).sum().backward()

    y, (gradients, gradient) = outputs_and_gradients(variables, x, lengths, norm_first=norm_first, causal=causal)
    expected = expected.detach().numpy()
    assert 0.3 < np.abs(expected[kept]).max() < 30
    assert_allclose(np.asarray(y)[kept], expected[kept], rtol=0, atol=2e-5)
    assert_allclose(gradient, tokens.grad.numpy(), rtol=0, atol=1e-4 * np.abs(tokens.grad.numpy()).max())
    for index, layer in enumerate(layers):
        ours = gradients["params"][f"layer{index}"]
        theirs = {name: parameter.grad.numpy() for name, parameter in layer.named_parameters()}
        found = {
            "self_attn.in_proj_weight": [ours["attention"][n]["kernel"].T for n in ("query", "key", "value")],
            "self_attn.out_proj.weight": [ours["attention"]["out"]["kernel"].T],
            "linear1.weight": [ours["mlp"]["up"]["kernel"].T],
            "linear2.bias": [ours["mlp"]["down"]["bias"]],
            "norm1.weight": [ours["norm1"]["scale"]],
            "norm2.bias": [ours["norm2"]["bias"]],
        }
        for name, parts in found.items():
            atol = 1e-4 * np.abs(theirs[name]).max()
            assert_allclose(np.concatenate(parts), theirs[name], rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_those_of_pytorch(name):
    torch = pytest.importorskip("torch")
    x = np.linspace(-6, 6, 101, dtype=np.float32)
    expected = {
        "gelu": torch.nn.functional.gelu,
        "gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
        "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
        "relu": torch.relu,
        "silu": torch.nn.functional.silu,
    }[name](torch.from_numpy(x))
    assert_allclose(ACTIVATIONS[name](x), expected, rtol=0, atol=1e-6)


# --- options of speed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "lengths"])
@pytest.mark.parametrize("remat", [False, True])
def test_scan_is_the_loop(lengths, remat, variables, x):
    expected, (gradients, gradient) = outputs_and_gradients(variables, x, lengths)
    found, (scanned, scanned_gradient) = outputs_and_gradients(stacked(variables), x, lengths, scan=True, remat=remat)
    assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert_gradients_close((scanned, scanned_gradient), (stacked(gradients), gradient))


def test_scan_draws_every_layer_anew(x):
    params = jax.jit(Transformer(**SIZES, scan=True).init)(jax.random.key(0), x)["params"]["layers"]
    kernels = params["attention"]["query"]["kernel"]
    assert kernels.shape == (2, WIDTH, WIDTH)
    assert np.abs(kernels[0] - kernels[1]).mean() > 0.1 * np.abs(kernels).mean()


@pytest.mark.parametrize("fields", [{"remat": True}, {"fused_qkv": False}], ids=str)
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_recomputing_and_separate_products_change_nothing(fields, qkv_bias, variables, x):
    if not qkv_bias:
        variables = without_qkv_bias(variables)
    expected, expected_gradients = outputs_and_gradients(variables, x, LENGTHS, qkv_bias=qkv_bias)
    found, gradients = outputs_and_gradients(variables, x, LENGTHS, qkv_bias=qkv_bias, **fields)
    assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert_gradients_close(gradients, expected_gradients)


def without_qkv_bias(variables):
    layers = {}
    for name, layer in variables["params"].items():
        attention = {
            key: {"kernel": value["kernel"]} if key != "out" else value for key, value in layer["attention"].items()
        }
        layers[name] = {**layer, "attention": attention}
    return {"params": layers}


def test_remat_keeps_less_for_the_backward_pass(variables):
    x = normal(64, TOKENS, WIDTH)

    def kept(**fields):
        model = Transformer(**SIZES, **fields)
        _, backward = jax.vjp(lambda variables: model.apply(variables, x).sum(), variables)
        return sum(leaf.size for leaf in jax.tree.leaves(backward))

    assert kept(remat=True) < kept() / 4


def test_bfloat16_is_close_and_keeps_float32_parameters(variables, x):
    expected, _ = outputs_and_gradients(variables, x, LENGTHS)
    found, found_gradients = outputs_and_gradients(variables, x, LENGTHS, dtype="bfloat16")
    assert found.dtype == jnp.bfloat16
    assert not np.array_equal(found, expected)
    assert_allclose(found.astype(np.float32), expected, rtol=0, atol=0.05 * np.abs(expected).max())
    assert {leaf.dtype.name for leaf in jax.tree.leaves(found_gradients)} == {"float32"}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found_gradients))
    model = Transformer(**SIZES, dtype="bfloat16")
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(shapes)} == {"float32"}


# --- lengths and order ------------------------------------------------------------------------------------------------


def test_tokens_beyond_the_length_do_not_matter(variables, x):
    kept = (np.arange(TOKENS) < LENGTHS[:, None])[..., None]
    expected, _ = outputs_and_gradients(variables, x, LENGTHS)
    found, (_, gradient) = outputs_and_gradients(variables, np.where(kept, x, 1e3).astype(np.float32), LENGTHS)
    assert_array_equal(np.where(kept, found, 0), np.where(kept, expected, 0))
    assert_array_equal(np.where(kept, 0, gradient), 0)


def test_rows_of_zeros_are_finite(variables, x):
    """What an absent row is, at the shortest length."""
    y, gradients = outputs_and_gradients(variables, np.zeros_like(x), np.ones(BATCH, np.int32))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((y, gradients)))


def test_causal_tokens_do_not_see_the_future(variables, x):
    later = np.arange(TOKENS)[None, :, None] >= 4
    expected, _ = outputs_and_gradients(variables, x, causal=True)
    found, _ = outputs_and_gradients(variables, np.where(later, -x, x), causal=True)
    assert_array_equal(found[:, :4], expected[:, :4])
    assert np.abs(np.asarray(found - expected)[:, 4:]).max(axis=(0, 2)).min() > 0
