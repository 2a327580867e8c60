"""DINOv2, with registers and without, as the encoder `vit`: against Hugging Face's classes."""

import functools

import jax
import numpy as np
import pytest
import torch
import transformers
from numpy.testing import assert_array_equal

from tests.encoders import parity
from tests.encoders.hugging_face_vit import images
from umemma_jax.encoders import transformer
from umemma_jax.errors import UserError
from umemma_jax.weights import convert

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 32, "patch_size": 8}
REGISTERS = {"num_register_tokens": 3}
GATED = {"use_swiglu_ffn": True}
KINDS = {
    "plain": ("Dinov2", {}),
    "gated": ("Dinov2", GATED),
    "registers": ("Dinov2WithRegisters", REGISTERS),
    "registers, gated": ("Dinov2WithRegisters", {**REGISTERS, **GATED}),
}

assert_same_features = functools.partial(parity.assert_same_features, "vit")


def original(kind, head="Model", **config):
    """A tiny model, every parameter drawn anew."""
    name, options = KINDS[kind]
    config = getattr(transformers, f"{name}Config")(**{**SIZES, **options, **config})
    return parity.redraw(getattr(transformers, name + head)(config))


def features_of(network, x, pool="cls"):
    hidden = network(torch.from_numpy(x.transpose(0, 3, 1, 2))).last_hidden_state
    before = 1 + getattr(network.config, "num_register_tokens", 0)
    return hidden[:, 0] if pool == "cls" else hidden[:, before:].mean(1)


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    """Original and the folder that it was saved in."""
    folder, network = tmp_path_factory.mktemp("dinov2"), original(request.param)
    network.save_pretrained(folder)
    return network, folder


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_features_are_those_of_the_original(pair, pool):
    network, folder = pair
    assert_same_features(folder, images(), features_of(network, images(), pool), pool=pool)


@pytest.mark.parametrize("height, width", [(48, 48), (24, 40), (16, 88)])
def test_positions_are_resized_as_each_class_does(pair, height, width):
    network, folder = pair
    x = images(height, width)
    assert_same_features(folder, x, features_of(network, x))


@pytest.mark.parametrize(
    "config", [{"hidden_act": "relu", "layer_norm_eps": 0.1}, {"qkv_bias": False}, {"mlp_ratio": 2}], ids=str
)
def test_the_config_is_read(config, tmp_path):
    network = original("plain", **config)
    network.save_pretrained(tmp_path)
    assert_same_features(tmp_path, images(), features_of(network, images()))


@pytest.mark.parametrize("kind", ["gated", "registers"])
def test_gradients_are_those_of_the_original(kind, tmp_path):
    network = original(kind)
    parity.assert_same_gradients("vit", network, features_of(network, images()), images(), tmp_path)


@pytest.mark.parametrize("head", ["Model", "ForImageClassification"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_class_loads_again_what_is_exported(kind, head, tmp_path):
    network = original(kind, head)
    network.save_pretrained(tmp_path / "original")
    parity.assert_export_is_the_original("vit", network, tmp_path / "original", tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_dict_may_have_the_names_that_transformers_5_has_in_memory(kind, tmp_path):
    network = original(kind, "ForImageClassification")
    source = parity.save(network.state_dict(), tmp_path / "state.safetensors")
    base = getattr(network, network.base_model_prefix)
    assert_same_features(source, images(), features_of(base, images()), heads=3, grid=(4, 4))
    network.config.save_pretrained(tmp_path)
    exported = parity.export_roundtrip("vit", source, tmp_path)
    for name, tensor in network.state_dict().items():
        assert_array_equal(exported[name], tensor.numpy(), err_msg=name)


def test_options_of_speed_change_no_feature(pair):
    parity.assert_options_of_speed_change_no_feature("vit", pair[1], images(), {"scan": True}, {"remat": True})


def test_registers_are_no_part_of_a_feature(pair):
    """But for what attention takes from them."""
    network, folder = pair
    model, variables = parity.load("vit", folder, images())
    shapes = jax.tree.map(np.shape, variables["params"]["positions"])
    count = getattr(network.config, "num_register_tokens", 0)
    assert shapes == {"grid": (4, 4, 24), "prefix": (1, 24), "tokens": (1, 24)} | (
        {"registers": (count, 24)} if count else {}
    )
    assert model.apply(variables, images()).shape == (3, 24)


def test_a_config_of_another_checkpoint_is_refused(tmp_path):
    original("gated").save_pretrained(tmp_path)
    original("plain").config.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="has use_swiglu_ffn = False, and this checkpoint's is True"):
        convert.convert("vit", tmp_path, tmp_path / "converted")


def test_a_scaled_layer_adds_nothing_where_the_scale_is_zero():
    x = parity.normal(2, 5, 8)
    model = transformer.Transformer(depth=2, heads=2, mlp_width=16, layer_scale=True, gated=True, activation="silu")
    variables = jax.tree_util.tree_map_with_path(
        lambda path, leaf: 0 * leaf if "scale1" in str(path) or "scale2" in str(path) else leaf,
        model.init(jax.random.key(0), x),
    )
    assert_array_equal(model.apply(variables, x), x)
