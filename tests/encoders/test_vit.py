"""Vision Transformers against Hugging Face's and timm's classes: features, gradients, export; sizes; bad input."""

import json

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load_file, save_file

from tests.encoders import parity
from umemma_jax.encoders.vit import Model
from umemma_jax.errors import UserError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
VISION = {**SIZES, "image_size": 32, "patch_size": 8}
TEXT = {**SIZES, "vocab_size": 10, "max_position_embeddings": 5}
CLIP = {"vision_config": VISION, "text_config": TEXT, "projection_dim": 10}
TINY = {
    "ViTMSN": (transformers.ViTMSNConfig, VISION),
    "ViTMAE": (transformers.ViTMAEConfig, {**VISION, "mask_ratio": 0.0}),
    "ViT": (transformers.ViTConfig, VISION),
    "DeiT": (transformers.DeiTConfig, VISION),
    "CLIPVision": (transformers.CLIPVisionConfig, {**VISION, "projection_dim": 10}),
    "CLIP": (transformers.CLIPConfig, CLIP),
}
SMALL = {"width": 24, "depth": 2, "heads": 3, "mlp_width": 40, "patch": 8}


def original(name, pooler=True, **config):
    """A tiny model of a Hugging Face class, every parameter drawn anew."""
    config_class, sizes = next(value for key, value in TINY.items() if name.startswith(key))
    options = {} if pooler else {"add_pooling_layer": False}
    return parity.redraw(getattr(transformers, name)(config_class(**{**sizes, **config}), **options))


def images(height=32, width=32, channels=3, batch=3, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, height, width, channels)).astype(np.float32)


def features_of(network, x, pool="cls", **options):
    """What the original makes of images, pooled here where it has no output of its own for that."""
    pixels = torch.from_numpy(x.transpose(0, 3, 1, 2))
    if type(network).__name__ == "CLIPModel":
        return network.get_image_features(pixels, **options).pooler_output
    output = network(pixels, **options)
    if pool == "cls" and "image_embeds" in output:
        return output.image_embeds
    hidden = output.last_hidden_state
    if type(network).__name__ == "CLIPVisionModel":
        return output.pooler_output if pool == "cls" else network.post_layernorm(hidden[:, 1:].mean(1))
    if type(network).__name__ == "CLIPVisionModelWithProjection":
        return network.visual_projection(network.vision_model.post_layernorm(hidden[:, 1:].mean(1)))
    prefix = 2 if type(network).__name__.startswith("DeiT") else 1
    return (hidden[:, :prefix] if pool == "cls" else hidden[:, prefix:]).mean(1)


def converted(source, x, **given):
    """(variables, x -> features) and variables of a checkpoint."""
    model, variables = parity.load("vit", source, x, **given)
    return model.apply, variables


def assert_same_features(source, x, expected, **given):
    expected = expected.detach().numpy()
    assert 0.3 < np.abs(expected).max() < 10  # of order 1
    apply, variables = converted(source, x, **given)
    assert_allclose(apply(variables, x), expected, rtol=0, atol=2e-5)


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

    tensors = load_file(tmp_path / "original" / "model.safetensors")
    exported = parity.export_roundtrip("vit", tmp_path / "original", tmp_path)
    assert exported.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert_array_equal(exported[key], tensor, err_msg=key)

    again, report = getattr(transformers, name).from_pretrained(tmp_path / "exported", output_loading_info=True)
    assert not any(report.values()), report  # missing, unexpected, mismatched
    for expected, found in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(expected, found)


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
        assert_same_features(source, images(), features_of(base, images()), heads=3)
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
    given = {"heads": 3, "activation": "quick_gelu"}
    assert_same_features(source, images(), features_of(network, images()), **given)
    exported = parity.export_roundtrip("vit", write_config(source, network), tmp_path)
    assert exported.keys() == state.keys()


# --- gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, pool", [("ViTModel", "cls"), ("DeiTModel", "mean"), ("CLIPVisionModel", "cls")])
def test_gradients_are_those_of_the_original(name, pool, tmp_path):
    options = {} if name.startswith("CLIP") else {"pooler": False}
    network, x = original(name, **options), images()
    network.save_pretrained(tmp_path / "weights")
    apply, variables = converted(tmp_path / "weights", x, pool=pool)
    weights = np.random.default_rng(0).normal(size=(len(x), 24)).astype(np.float32)
    gradients = jax.jit(jax.grad(lambda variables: (apply(variables, x) * weights).sum()))(variables)

    (features_of(network, x, pool) * torch.from_numpy(weights)).sum().backward()
    of_gradients = original(name, **options)  # takes the same way through the tables as the weights
    for parameter, counted in zip(of_gradients.parameters(), network.parameters(), strict=True):
        parameter.data = counted.grad
    of_gradients.save_pretrained(tmp_path / "gradients")
    _, expected = converted(tmp_path / "gradients", x, pool=pool)
    assert_gradients_close(gradients, expected)


def assert_gradients_close(gradients, expected):
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))

    def compare(path, gradient, expected):
        # Softmax does not see a shift of all keys: the true gradient is 0, and what is there is rounding.
        is_key_bias = jax.tree_util.keystr(path).endswith("['key']['bias']")
        atol = 1e-6 * largest if is_key_bias else 1e-4 * np.abs(expected).max()
        assert_allclose(gradient, expected, rtol=0, atol=atol, err_msg=jax.tree_util.keystr(path))

    jax.tree_util.tree_map_with_path(compare, gradients, expected)


# --- timm -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def timm():
    try:
        import timm
        import timm.models.deit
        import timm.models.vision_transformer
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision was built for another PyTorch
        pytest.skip(f"timm cannot be imported: {error}")
    return timm


def in_timms_names(state):
    """Hugging Face's ViT or DeiT, in memory, under timm's names."""
    renamed = {}
    for name, tensor in state.items():
        for ours, theirs in (
            ("embeddings.cls_token", "cls_token"),
            ("embeddings.distillation_token", "dist_token"),
            ("embeddings.position_embeddings", "pos_embed"),
            ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
            ("layers.", "blocks."),
            ("layernorm_before", "norm1"),
            ("layernorm_after", "norm2"),
            ("attention.o_proj", "attn.proj"),
            ("layernorm.", "norm."),
        ):
            name = name.replace(ours, theirs)
        renamed[name] = tensor
    for name in [name for name in renamed if "q_proj" in name]:
        parts = [renamed.pop(name.replace("q_proj", part)) for part in ("q_proj", "k_proj", "v_proj")]
        renamed[name.replace("attention.q_proj", "attn.qkv")] = torch.cat(parts)
    return renamed


@pytest.mark.parametrize("name", ["ViTModel", "DeiTModel"])
@pytest.mark.parametrize("config", [{}, {"qkv_bias": False}], ids=str)
def test_timms_names_hold_the_same_model(name, config, tmp_path):
    network = original(name, pooler=False, layer_norm_eps=1e-6, **config)
    state = in_timms_names(network.state_dict())
    state |= {"head.weight": torch.randn(5, 24), "head.bias": torch.randn(5)}
    source = parity.save({f"module.{key}": tensor for key, tensor in state.items()}, tmp_path / "timm.safetensors")
    for pool in ("cls", "mean"):
        assert_same_features(source, images(), features_of(network, images(), pool), pool=pool, heads=3)
    x = images(24, 40)
    assert_same_features(source, x, features_of(network, x, interpolate_pos_encoding=True), heads=3)


TIMMS = {
    "class token": {},
    "mean with fc_norm": {"global_pool": "avg"},
    "mean with norm": {"global_pool": "avg", "fc_norm": False},
    "no class token": {"global_pool": "avg", "class_token": False},
    "CLIP": {"pre_norm": True},
    "no qkv_bias": {"qkv_bias": False},
    "oblong": {"img_size": (24, 40)},
    "distilled": {"distilled": True},
}


@pytest.mark.parametrize("options", TIMMS.values(), ids=TIMMS)
def test_features_and_export_are_those_of_timm(options, timm, tmp_path):
    options = dict(options)
    distilled = options.pop("distilled", False)
    network_class = (
        timm.models.deit.VisionTransformerDistilled if distilled else timm.models.vision_transformer.VisionTransformer
    )
    if options.get("pre_norm"):
        options["norm_layer"] = lambda *args, **kwargs: timm.layers.LayerNorm(*args, eps=1e-5, **kwargs)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 192, "depth": 2, "num_heads": 3, "num_classes": 5}
    network = parity.redraw(network_class(**{**sizes, **options}), scale=0.1)
    folder = tmp_path / "original"
    folder.mkdir()
    parity.save(network.state_dict(), folder / "model.safetensors")
    height, width = network.patch_embed.img_size
    card = {
        "architecture": "vit_tiny_patch8_32",
        "global_pool": network.global_pool,
        "pretrained_cfg": {"input_size": [3, height, width]},
    }
    (folder / "config.json").write_text(json.dumps(card))

    x = images(height, width)
    hidden = network.forward_features(torch.from_numpy(x.transpose(0, 3, 1, 2)))
    assert_same_features(folder, x, network.forward_head(hidden, pre_logits=True))

    exported = parity.export_roundtrip("vit", folder, tmp_path)
    state = {name: torch.from_numpy(array.copy()) for name, array in exported.items()}
    again = network_class(**{**sizes, **options})
    again.load_state_dict(state, strict=True)
    for expected, found in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(expected, found)


def test_timms_clips_activation_is_in_their_name(tmp_path):
    network = original("ViTModel", pooler=False, hidden_act="quick_gelu", layer_norm_eps=1e-5)
    state = in_timms_names(network.state_dict())
    state |= {"norm_pre.weight": torch.ones(24), "norm_pre.bias": torch.zeros(24)}
    source = parity.save(state, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="heads, activation cannot be read"):
        converted(source, images())
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit_base_patch32_clip_quickgelu_224"}))
    model, _ = parity.load("vit", source, images(), heads=3)
    assert (model.activation, model.norm_input, model.epsilon) == ("quick_gelu", True, 1e-5)


# --- options ----------------------------------------------------------------------------------------------------------


def test_options_of_speed_change_no_feature(pair):
    _, folder = pair
    x = images()
    apply, variables = converted(folder, x)
    expected = apply(variables, x)
    for given in ({"fused_qkv": False}, {"scan": True, "remat": True}, {"remat": True}):
        apply, variables = converted(folder, x, **given)
        assert_allclose(apply(variables, x), expected, rtol=0, atol=1e-5)

    apply, variables = converted(folder, x, dtype="bfloat16")
    found = apply(variables, x)
    assert found.dtype == np.float32
    assert not np.array_equal(found, expected)
    assert_allclose(found, expected, rtol=0, atol=0.05 * np.abs(expected).max())


def test_a_video_is_the_mean_of_its_frames(pair):
    _, folder = pair
    x = images(batch=6)
    apply, variables = converted(folder, x)
    expected = np.asarray(apply(variables, x)).reshape(2, 3, -1).mean(axis=1)
    mask = np.array([True, False])
    assert_allclose(apply(variables, x.reshape(2, 3, 32, 32, 3), mask), expected, rtol=0, atol=1e-5)


def test_other_channels_on_request(pair):
    _, folder = pair
    x = images(channels=1)
    apply, variables = converted(folder, images())
    expected = apply(variables, np.repeat(x, 3, axis=-1))
    for spectrograms in (x, x[..., 0]):
        model, averaged = parity.load("vit", folder, spectrograms, first_layer="average")
        assert_allclose(model.apply(averaged, spectrograms), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "fields",
    [{}, {"prefix": 0, "pool": "mean"}, {"norm_input": True, "norm_pooled": True, "patch_bias": False}],
    ids=str,
)
def test_absent_rows_are_finite_and_change_no_other(fields):
    model = Model(**{**SMALL, "depth": 1, **fields})
    x = images(16, 24)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    variables = jax.tree.map(lambda leaf: 0.3 * rng.normal(size=leaf.shape).astype(np.float32), shapes)

    @jax.jit
    def features_and_gradients(x):
        def loss(variables):
            features = model.apply(variables, x)
            return (features**2).sum(), features

        gradients, features = jax.grad(loss, has_aux=True)(variables)
        return features, gradients

    features, gradients = features_and_gradients(np.concatenate([x, np.zeros_like(x)]))
    assert features.shape == (6, 24)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((features, gradients)))
    twice, _ = features_and_gradients(np.concatenate([x, x]))
    assert_allclose(features[:3], twice[:3], rtol=0, atol=1e-6)


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
        ({"activation": "silu"}, "activation = 'silu', use one of gelu, "),
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
    with pytest.raises(UserError, match=r"heads cannot be read from the tensors' shapes, and there is no config\.json"):
        converted(tmp_path, images())


def test_positions_that_fit_no_square_image_need_the_config(tmp_path):
    original("ViTModel", image_size=[24, 40]).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_size": 32}))
    with pytest.raises(UserError, match=r"embeddings.position_embeddings of 16 positions, .* is for no square image"):
        converted(tmp_path, images())


def test_an_activation_that_we_do_not_have(tmp_path):
    original("ViTModel", hidden_act="silu").save_pretrained(tmp_path)
    with pytest.raises(UserError, match="activation 'silu' is not supported, only gelu, "):
        converted(tmp_path, images())


def test_layer_scale_is_refused_by_name(tmp_path):
    original("ViTModel").save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    save_file({**state, "encoder.layer.0.lambda_1": np.ones(24, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"not used: encoder\.layer\.0\.lambda_1"):
        converted(tmp_path, images())
