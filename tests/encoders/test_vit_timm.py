"""Vision Transformers under timm's names, and against timm's classes where it can be imported."""

import functools
import json

import pytest

from tests.encoders import parity
from umemma_jax.errors import UserError

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
    parity.assert_same_parameters(again, network)


def test_timms_clips_activation_is_in_their_name(tmp_path):
    network = original("ViTModel", pooler=False, hidden_act="quick_gelu", layer_norm_eps=1e-5)
    state = in_timms_names(network.state_dict())
    state |= {"norm_pre.weight": torch.ones(24), "norm_pre.bias": torch.zeros(24)}
    source = parity.save(state, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="heads, activation cannot be read"):
        parity.features("vit", source, images())
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit_base_patch32_clip_quickgelu_224"}))
    model, _ = parity.load("vit", source, images(), heads=3)
    assert (model.activation, model.norm_input, model.epsilon) == ("quick_gelu", True, 1e-5)
