"""Audio Spectrogram Transformers against Hugging Face's classes: features, gradients, export; sizes; bad input."""

import functools

import jax
import numpy as np
import pytest

from tests.encoders import parity
from umemma_jax.encoders.ast import Model
from umemma_jax.errors import UserError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TINY = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "patch_size": 6,
    "frequency_stride": 4,
    "time_stride": 5,
    "max_length": 26,
    "num_mel_bins": 14,
}
SMALL = {"width": 24, "depth": 1, "heads": 3, "mlp_width": 40, "patch": 6}

assert_same_features = functools.partial(parity.assert_same_features, "ast")


def original(name="ASTModel", **config):
    """A tiny model of a Hugging Face class, every parameter drawn anew."""
    return parity.redraw(getattr(transformers, name)(transformers.ASTConfig(**{**TINY, **config})), scale=0.3)


def spectrograms(frames=26, bins=14, batch=3, seed=0):
    return parity.normal(batch, frames, bins, seed=seed)


def features_of(network, x, pool="cls"):
    """What the original makes of spectrograms; it has no mean of its own."""
    output = network(torch.from_numpy(x))
    return output.pooler_output if pool == "cls" else output.last_hidden_state[:, 2:].mean(1)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Original and the folder that it was saved in."""
    folder, network = tmp_path_factory.mktemp("original"), original()
    network.save_pretrained(folder)
    return network, folder


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"max_length": 29, "num_mel_bins": 17},  # no patch ends where the spectrogram does
        {"patch_size": 4, "frequency_stride": 4, "time_stride": 4},  # nor do they overlap
        {"patch_size": 5, "frequency_stride": 7, "time_stride": 2},
        {"qkv_bias": False},
        {"hidden_act": "relu", "layer_norm_eps": 0.1},
    ],
    ids=str,
)
def test_features_are_those_of_the_original(config, tmp_path):
    network = original(**config)
    network.save_pretrained(tmp_path)
    x = spectrograms(network.config.max_length, network.config.num_mel_bins)
    for pool in ("cls", "mean"):
        assert_same_features(tmp_path, x, features_of(network, x, pool), pool=pool)


@pytest.mark.parametrize("frames, bins", [(41, 14), (11, 14), (26, 20), (52, 6)])
def test_positions_are_resized_to_other_spectrograms(pair, frames, bins, tmp_path):
    """The original cannot; so it gets what PyTorch makes of its positions."""
    network, folder = pair
    larger = original(max_length=frames, num_mel_bins=bins)
    prefix, grid = (network.embeddings.position_embeddings[:, part] for part in (slice(2), slice(2, None)))
    grid = grid.reshape(1, 3, 5, 24).permute(0, 3, 1, 2)
    shape = larger.embeddings.get_shape(larger.config)
    resized = torch.nn.functional.interpolate(grid, shape, mode="bicubic", align_corners=False)
    resized = torch.cat([prefix, resized.flatten(2).transpose(1, 2)], dim=1)
    larger.load_state_dict({**network.state_dict(), "embeddings.position_embeddings": resized})
    x = spectrograms(frames, bins)
    assert_same_features(folder, x, features_of(larger, x))


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_gradients_are_those_of_the_original(pool, tmp_path):
    network, x = original(), spectrograms()
    parity.assert_same_gradients("ast", network, features_of(network, x, pool), x, tmp_path, pool=pool)


@pytest.mark.parametrize("name", ["ASTModel", "ASTForAudioClassification"])
def test_every_class_converts_and_loads_again_what_is_exported(name, tmp_path):
    network = original(name)
    network.save_pretrained(tmp_path / "original")
    base = getattr(network, "audio_spectrogram_transformer", network)
    assert_same_features(tmp_path / "original", spectrograms(), features_of(base, spectrograms()))
    parity.assert_export_is_the_original("ast", network, tmp_path / "original", tmp_path)


def test_a_state_dict_may_have_the_names_that_transformers_5_has_in_memory(tmp_path):
    network = original("ASTForAudioClassification")
    parity.save(network.state_dict(), tmp_path / "model.safetensors")
    network.config.save_pretrained(tmp_path)
    x = spectrograms()
    assert_same_features(tmp_path, x, features_of(network.audio_spectrogram_transformer, x))
    exported = parity.export_roundtrip("ast", tmp_path, tmp_path / "exports")
    network.load_state_dict({key: torch.from_numpy(value.copy()) for key, value in exported.items()}, strict=True)


def test_options_of_speed_change_no_feature(pair):
    options = {"fused_qkv": False}, {"scan": True, "remat": True}
    parity.assert_options_of_speed_change_no_feature("ast", pair[1], spectrograms(), *options)


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_absent_rows_are_finite_and_change_no_other(pool):
    model, x = Model(**SMALL, pool=pool), spectrograms()
    variables = parity.random_variables(model, x)
    parity.assert_absent_rows_are_finite_and_change_no_other(model.apply, variables, x, SMALL["width"])


@pytest.mark.parametrize(
    "fields, shape, message",
    [
        ({"patch": 16}, (3, 26, 14), "26x14 inputs, need frames x bins, both of at least `patch` = 16"),
        ({}, (3, 26, 14, 1), "26x14x1 inputs, need frames x bins"),
        ({"pool": "max"}, (3, 26, 14), "pool = 'max', use one of cls, mean"),
        ({"heads": 5}, (3, 26, 14), "width = 24 is not a multiple of heads = 5"),
        ({"activation": "swish"}, (3, 26, 14), "activation = 'swish', use one of gelu, "),
    ],
)
def test_fields_and_inputs_that_cannot_be(fields, shape, message):
    with pytest.raises(UserError, match=message) as error:
        jax.eval_shape(Model(**{**SMALL, **fields}).init, jax.random.key(0), np.zeros(shape))
    assert "\n" not in str(error.value)


def test_what_neither_shapes_nor_config_say_is_asked_for(tmp_path):
    original().save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match="heads, frequency_stride, time_stride cannot be read"):
        parity.features("ast", tmp_path, spectrograms())
    given = {"heads": 3, "frequency_stride": 4, "time_stride": 5}
    with pytest.raises(UserError, match="is for 15 patches, not for the 31x204 of 128 bins and 1024 frames"):
        parity.features("ast", tmp_path, spectrograms(), **given)


def test_a_vision_transformer_is_another_family(tmp_path):
    config = transformers.ViTConfig(**{**TINY, "image_size": 12, "patch_size": 6})
    transformers.ViTModel(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is no checkpoint of family ast, it looks like vit"):
        parity.features("ast", tmp_path, spectrograms())
