"""Vision Transformers against Hugging Face's classes: features, gradients, export; sizes; bad input."""

import functools
import json

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose
from safetensors.numpy import load_file, save_file

from tests.encoders import parity
from umemma_jax.encoders.vit import Model
from umemma_jax.errors import UserError

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.encoders.hugging_face_vit import VISION, features_of, images, original  # noqa: E402, as it needs both

SMALL = {"width": 24, "depth": 2, "heads": 3, "mlp_width": 40, "patch": 8}

assert_same_features = functools.partial(parity.assert_same_features, "vit")


# --- Hugging Face -----------------------------------------------------------------------------------------------------

BASES = ("ViTModel", "DeiTModel", "CLIPVisionModel", "CLIPVisionModelWithProjection", "CLIPModel")


@pytest.fixture(scope="module", params=BASES)
def pair(request, tmp_path_factory):
    """Original and the folder that it was saved in."""
    folder, network = tmp_path_factory.mktemp(request.param), original(request.param)
    network.save_pretrained(folder)
    return network, folder


def test_features_are_those_of_the_original(pair):
    network, folder = pair
    for pool in ("cls", "mean")[: 1 if type(network).__name__ == "CLIPModel" else 2]:
        assert_same_features(folder, images(), features_of(network, images(), pool), pool=pool)


@pytest.mark.parametrize("height, width", [(48, 48), (24, 40), (16, 88), (40, 8)])
def test_positions_are_resized_as_hugging_face_does(pair, height, width):
    network, folder = pair
    x = images(height, width)
    assert_same_features(folder, x, features_of(network, x, interpolate_pos_encoding=True))


@pytest.mark.parametrize(
    "config",
    [
        {"image_size": [24, 40]},
        {"image_size": 45, "patch_size": 15},
        {"image_size": 6, "patch_size": 3, "num_channels": 1},
        {"qkv_bias": False},
        {"hidden_act": "relu"},
        {"hidden_act": "gelu_new"},
        {"hidden_act": "quick_gelu", "layer_norm_eps": 0.1},
    ],
    ids=str,
)
def test_the_config_is_read(config, tmp_path):
    network = original("ViTModel", pooler=False, **config)
    network.save_pretrained(tmp_path)
    size = network.config.image_size
    x = images(*(size if isinstance(size, list) else (size, size)), channels=network.config.num_channels)
    for pool in ("cls", "mean"):
        assert_same_features(tmp_path, x, features_of(network, x, pool), pool=pool)


def test_a_clip_with_another_activation_says_so_in_its_config(tmp_path):
    network = original("CLIPModel", vision_config={**VISION, "hidden_act": "gelu", "num_attention_heads": 4})
    network.save_pretrained(tmp_path)
    assert_same_features(tmp_path, images(), features_of(network, images()))


@pytest.mark.parametrize(
    "name",
    [
        *BASES[:-1],
        "ViTForImageClassification",
        "ViTForMaskedImageModeling",
        "ViTMSNModel",
        "ViTMAEModel",
        "DeiTForImageClassification",
        "DeiTForImageClassificationWithTeacher",
        "DeiTForMaskedImageModeling",
        "CLIPForImageClassification",
    ],
)
def test_every_class_converts_and_loads_again_what_is_exported(name, tmp_path):
    network = original(name)
    network.save_pretrained(tmp_path / "original")
    if name not in BASES:
        base = network.vision_model if name.startswith("CLIP") else getattr(network, network.base_model_prefix, network)
        assert_same_features(tmp_path / "original", images(), features_of(base, images()))
    parity.assert_export_is_the_original("vit", network, tmp_path / "original", tmp_path)


def test_of_a_whole_clip_the_text_tower_is_left_out(tmp_path):
    original("CLIPModel").save_pretrained(tmp_path / "original")
    exported = parity.export_roundtrip("vit", tmp_path / "original", tmp_path)
    tensors = load_file(tmp_path / "original" / "model.safetensors")
    assert exported.keys() == {name for name in tensors if name.startswith(("vision_model.", "visual_projection."))}


def test_a_projection_can_be_left_out(tmp_path):
    network = original("CLIPVisionModelWithProjection")
    network.save_pretrained(tmp_path)
    assert_same_features(tmp_path, images(), features_of(network.vision_model, images()), projection=0)


def test_a_state_dict_may_have_the_names_that_transformers_5_has_in_memory(tmp_path):
    for name in ("ViTForImageClassification", "DeiTForImageClassification"):
        network = original(name)
        source = parity.save(network.state_dict(), tmp_path / f"{name}.safetensors")
        base = getattr(network, network.base_model_prefix)
        assert_same_features(source, images(), features_of(base, images()), heads=3, grid=(4, 4))
        exported = parity.export_roundtrip("vit", write_config(source, network), tmp_path / name)
        state = {key: torch.from_numpy(value.copy()) for key, value in exported.items()}
        network.load_state_dict(state, strict=True)


def write_config(source, network):
    network.config.save_pretrained(source.parent)
    return source


def test_old_clips_name_the_vision_tower_and_its_buffer(tmp_path):
    network = original("CLIPVisionModel")
    state = {f"vision_model.{name}": tensor for name, tensor in network.state_dict().items()}
    state["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    source = parity.save(state, tmp_path / "old.safetensors")
    given = {"heads": 3, "activation": "quick_gelu", "grid": (4, 4)}
    assert_same_features(source, images(), features_of(network, images()), **given)
    exported = parity.export_roundtrip("vit", write_config(source, network), tmp_path)
    assert exported.keys() == state.keys()


# --- gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, pool", [("ViTModel", "cls"), ("DeiTModel", "mean"), ("CLIPVisionModel", "cls")])
def test_gradients_are_those_of_the_original(name, pool, tmp_path):
    network, x = original(name, pooler=name.startswith("CLIP")), images()  # a pooler would have no gradient
    parity.assert_same_gradients("vit", network, features_of(network, x, pool), x, tmp_path, pool=pool)


# --- options ----------------------------------------------------------------------------------------------------------


def test_options_of_speed_change_no_feature(pair):
    options = {"fused_qkv": False}, {"scan": True, "remat": True}, {"remat": True}
    parity.assert_options_of_speed_change_no_feature("vit", pair[1], images(), *options)


def test_a_video_is_the_mean_of_its_frames(pair):
    _, folder = pair
    x = images(batch=6)
    model, variables = parity.load("vit", folder, x)
    expected = np.asarray(model.apply(variables, x)).reshape(2, 3, -1).mean(axis=1)
    mask = np.array([True, False])
    assert_allclose(model.apply(variables, x.reshape(2, 3, 32, 32, 3), mask), expected, rtol=0, atol=1e-5)


def test_other_channels_on_request(pair):
    _, folder = pair
    x = images(channels=1)
    expected = parity.features("vit", folder, np.repeat(x, 3, axis=-1))
    for spectrograms in (x, x[..., 0]):
        model, averaged = parity.load("vit", folder, spectrograms, first_layer="average")
        assert_allclose(model.apply(averaged, spectrograms), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "fields",
    [{}, {"prefix": 0, "pool": "mean"}, {"norm_input": True, "norm_pooled": True, "patch_bias": False}],
    ids=str,
)
def test_absent_rows_are_finite_and_change_no_other(fields):
    model, x = Model(**{**SMALL, "depth": 1, **fields}), images(16, 24)
    variables = parity.random_variables(model, x)
    parity.assert_absent_rows_are_finite_and_change_no_other(model.apply, variables, x, SMALL["width"])


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"patch": 5}, "32x32 images cannot be cut into 5x5 patches"),
        ({"prefix": 0}, "pool = 'cls', use one of mean"),
        ({"prefix": 3}, "prefix = 3, use one of 0, 1, 2"),
        ({"dtype": "float16"}, "dtype = 'float16', use one of float32, bfloat16"),
        ({"attention": "flash"}, "attention = 'flash', use one of xla, cudnn"),
        ({"pool": "max"}, "pool = 'max', use one of cls, mean"),
        ({"heads": 5}, "width = 24 is not a multiple of heads = 5"),
        ({"activation": "swish"}, "activation = 'swish', use one of gelu, "),
    ],
)
def test_fields_that_cannot_be(fields, message):
    with pytest.raises(UserError, match=message) as error:
        jax.eval_shape(Model(**{**SMALL, **fields}).init, jax.random.key(0), images())
    assert "\n" not in str(error.value)


def test_inputs_that_are_no_images():
    with pytest.raises(UserError, match="inputs of 2 axes"):
        jax.eval_shape(Model(**SMALL).init, jax.random.key(0), np.zeros((2, 8)))


def test_what_neither_shapes_nor_config_say_is_asked_for(tmp_path):
    original("ViTModel").save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match=r"heads, grid cannot be read from the tensors' shapes, and there is no"):
        parity.features("vit", tmp_path, images())


def test_positions_that_fit_no_square_image_need_the_config(tmp_path):
    original("ViTModel", image_size=[24, 40]).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_size": 32}))
    with pytest.raises(
        UserError, match=r"embeddings.position_embeddings of 16 positions, .* is not for the 4x4 patches of 32x32"
    ):
        parity.features("vit", tmp_path, images())


def test_an_activation_that_we_do_not_have(tmp_path):
    original("ViTModel", hidden_act="silu").save_pretrained(tmp_path)
    with pytest.raises(UserError, match="activation 'silu' is not supported, only gelu, "):
        parity.features("vit", tmp_path, images())


def test_layer_scale_is_refused_by_name(tmp_path):
    original("ViTModel").save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    save_file({**state, "encoder.layer.0.lambda_1": np.ones(24, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"not used: encoder\.layer\.0\.lambda_1"):
        parity.features("vit", tmp_path, images())
