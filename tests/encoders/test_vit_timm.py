"""Vision Transformers under timm's names, and against timm's classes where it can be imported."""

import functools
import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.encoders import parity
from umemma_jax.errors import UserError
from umemma_jax.weights import convert
from umemma_jax.weights.pretrained import Converted

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.encoders.hugging_face_vit import features_of, images, original  # noqa: E402, as it needs both

assert_same_features = functools.partial(parity.assert_same_features, "vit")


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
        expected = features_of(network, images(), pool)
        assert_same_features(source, images(), expected, pool=pool, heads=3, grid=(4, 4))


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


def card(network):
    """The config.json that timm writes of a small network."""
    oblong = list(network.patch_embed.img_size)
    name = "vit_tiny_patch8_clip_32" if hasattr(network.norm_pre, "weight") else "vit_tiny_patch8_32"
    return {
        "architecture": "deit_tiny_distilled_patch8_32" if network.num_prefix_tokens == 2 else name,
        "global_pool": network.global_pool,
        "pretrained_cfg": {"input_size": [3, *oblong]},
        "model_args": {"depth": 2, "class_token": network.has_class_token},
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
    (folder / "config.json").write_text(json.dumps(card(network)))

    x = images(height, width)
    hidden = network.forward_features(torch.from_numpy(x.transpose(0, 3, 1, 2)))
    assert_same_features(folder, x, network.forward_head(hidden, pre_logits=True))

    exported = parity.export_roundtrip("vit", folder, tmp_path)
    state = {name: torch.from_numpy(array.copy()) for name, array in exported.items()}
    again = network_class(**{**sizes, **options})
    again.load_state_dict(state, strict=True)
    parity.assert_same_parameters(again, network)


def sketch(folder, width=24, depth=2, prefix=1, patches=16, pooled=False, pre=False, **config):
    """A checkpoint under timm's names, all zeros, and its config.json."""
    shapes = {"patch_embed.proj.weight": (width, 3, 8, 8), "pos_embed": (1, prefix + patches, width)}
    shapes |= {"cls_token": (1, 1, width)} if prefix else {}
    layer = {
        "attn.qkv": (3 * width, width),
        "attn.proj": (width, width),
        "mlp.fc1": (40, width),
        "mlp.fc2": (width, 40),
    }
    norms = ["fc_norm" if pooled else "norm", *(["norm_pre"] if pre else [])]
    biases = [] if pre else ["patch_embed.proj"]
    for index in range(depth):
        norms += [f"blocks.{index}.norm1", f"blocks.{index}.norm2"]
        for name, shape in layer.items():
            shapes[f"blocks.{index}.{name}.weight"] = shape
            shapes[f"blocks.{index}.{name}.bias"] = shape[:1]
    shapes |= {f"{name}.weight": (width,) for name in norms}
    shapes |= {f"{name}.bias": (width,) for name in (*norms, *biases)}
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, folder / "model.safetensors")
    (folder / "config.json").unlink(missing_ok=True)
    if config:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def fields_of(folder, to, **given):
    return convert.convert("vit", folder, to, given).fields


def named(name, **arguments):
    return {"architecture": name, "model_args": {"embed_dim": 24, "depth": 2, "img_size": 32, **arguments}}


@pytest.mark.parametrize(
    "name, prefix, expected",
    [
        ("vit_base_patch8_32", 1, {"heads": 12, "pool": "cls", "activation": "gelu"}),
        ("vit_base_patch8_32.augreg_in1k", 1, {"heads": 12}),
        ("vit_base_patch8_32_in21k", 1, {"heads": 12}),
        ("deit_tiny_patch8_32", 1, {"heads": 3}),
        # Of the same width as `base`, with other heads.
        ("vit_base_patch8_gap_32", 0, {"heads": 16, "pool": "mean"}),
    ],
)
def test_timms_names_tell_what_tensors_do_not(name, prefix, expected, tmp_path):
    fields = fields_of(sketch(tmp_path, prefix=prefix, **named(name)), tmp_path / "out")
    assert {key: fields[key] for key in expected} == expected


def test_timms_clips_have_their_activation_in_their_name(tmp_path):
    sketch(tmp_path, pre=True)
    with pytest.raises(UserError, match="heads, activation, grid cannot be read"):
        fields_of(tmp_path, tmp_path / "out")
    fields = fields_of(sketch(tmp_path, pre=True, **named("vit_base_patch8_clip_quickgelu_32")), tmp_path / "out")
    assert (fields["activation"], fields["norm_input"], fields["epsilon"]) == ("quick_gelu", True, 1e-5)


@pytest.mark.parametrize(
    "config, message",
    [
        # The same tensors, another function: norms elsewhere, another gelu, one that is not known here.
        (named("vit_base_patch8_rpn_32"), "architecture 'vit_base_patch8_rpn_32'"),
        (named("vit_base_patch32_siglip_gap_256"), "architecture 'vit_base_patch32_siglip_gap_256'"),
        (named("vit_base_patch8_new_32"), "architecture 'vit_base_patch8_new_32'"),
        (named("vit_base_patch8_32", act_layer="relu"), "model_args act_layer"),
        (named("vit_base_patch8_32", no_embed_class=True), "model_args no_embed_class"),
        (named("vit_base_patch8_32", global_pool="max"), "global_pool 'max' is not supported"),
        (named("vit_base_patch8_32", depth=12), "has depth = 12, and this checkpoint's is 2"),
        (named("vit_base_patch8_32", num_heads="12"), "num_heads = '12', a int belongs there"),
        (named("vit_base_patch8_gap_32"), "class_token = False, and this checkpoint's is True"),
        (named("deit_base_distilled_patch8_32"), "says deit_base_distilled_patch8_32, which these tensors are not"),
        (named("vit_base_patch8_clip_32"), "says vit_base_patch8_clip_32, which these tensors are not"),
        ({"architecture": "vit_base_patch8_32"}, "leaves it to the default embed_dim = 768, and this"),
        ({"architecture": ["vit"]}, "architecture"),
        ({"architecture": "resnet50"}, "architecture 'resnet50'"),
        ({"model_type": "vit"}, "model_type 'vit'"),
        ({"model_type": "timm_wrapper"}, "no architecture"),
        (named("vit_base_patch8_32") | {"model_type": "timm_wrapper", "architectures": ["ViTModel"]}, "architectures"),
        ({"architecture": "vit_base_patch8_32", "model_args": [1]}, "model_args"),
    ],
)
def test_timms_that_may_compute_something_else_are_refused_by_name(config, message, tmp_path):
    with pytest.raises(UserError) as caught:
        fields_of(sketch(tmp_path, **config), tmp_path / "out")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_timms_models_that_transformers_saved(tmp_path):
    config = {"architecture": "vit_tiny_patch8_224", "model_type": "timm_wrapper", "model_args": None}
    config["architectures"] = ["TimmWrapperForImageClassification"]
    sketch(tmp_path, width=192, depth=12, patches=28 * 28, **config)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({f"timm_model.{name}": array for name, array in tensors.items()}, tmp_path / "model.safetensors")
    assert fields_of(tmp_path, tmp_path / "out")["heads"] == 3


def test_any_other_file_of_that_name_says_nothing_of_the_checkpoint(tmp_path):
    """And what nothing says is asked for, but for what is likely: then the user has the last word."""
    with pytest.raises(UserError, match=r"heads, grid cannot be read .* does not say of what it is"):
        fields_of(sketch(tmp_path, lr=0.1), tmp_path / "out")
    small = sketch(tmp_path, width=384, depth=12, patches=28 * 28, lr=0.1)
    assert fields_of(small, tmp_path / "guessed")["heads"] == 6
    assert fields_of(small, tmp_path / "given", heads=12)["heads"] == 12


def test_2_x_8_patches_are_not_taken_for_4_x_4(tmp_path):
    with pytest.raises(UserError, match="grid cannot be read"):
        fields_of(sketch(tmp_path), tmp_path / "out", heads=3)
    fields_of(sketch(tmp_path), tmp_path / "out", heads=3, grid=(2, 8))
    assert Converted(tmp_path / "out").shapes["params/positions/grid"] == (2, 8, 24)
    with pytest.raises(UserError, match=r"pos_embed .* is not of a shape that it can have"):
        fields_of(sketch(tmp_path), tmp_path / "other", heads=3, grid=(2, 7))


def test_without_a_class_token_a_config_is_needed(tmp_path):
    with pytest.raises(UserError, match="without a class token differ in what tensors do not show"):
        fields_of(sketch(tmp_path, prefix=0), tmp_path / "out", heads=3, grid=(4, 4), activation="gelu")
