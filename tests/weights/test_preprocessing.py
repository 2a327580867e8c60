"""What the files beside a checkpoint say of its inputs, against the processors that they are for."""

import json
import types

import jax
import numpy as np
import pytest

from umemma_jax import preprocess
from umemma_jax.errors import UserError
from umemma_jax.weights import preprocessing


def write(folder, name, contents):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(contents if isinstance(contents, str) else json.dumps(contents))
    return folder


PIXELS = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
PROCESSORS = {
    "usual": {},
    "not normalised": {"do_normalize": False},
    "not rescaled": {"do_rescale": False},
    "another factor": {"rescale_factor": 1 / 127.5},
    "one number": {"image_mean": 0.4, "image_std": 0.2},
    "neither": {"do_normalize": False, "do_rescale": False},
}


@pytest.mark.parametrize("options", PROCESSORS.values(), ids=PROCESSORS)
def test_pixels_become_what_transformers_makes_of_them(options, tmp_path):
    transformers = pytest.importorskip("transformers")
    processor = transformers.ViTImageProcessor(**{"do_resize": False, "image_mean": [0.1, 0.2, 0.3], **options})
    processor.save_pretrained(tmp_path)
    expected = processor(list(PIXELS), return_tensors="np", input_data_format="channels_last")["pixel_values"]
    stated = preprocessing.stated(tmp_path, {})
    mean, std = (np.broadcast_to(stated[key], 3) for key in ("mean", "std"))
    np.testing.assert_allclose((PIXELS - mean) / std, expected.transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-5)


def test_a_processor_of_transformers_5_is_nested_and_goes_before_the_old_file(tmp_path):
    nested = {"image_mean": [0.5], "image_std": [0.25], "do_rescale": True, "rescale_factor": 0.5}
    write(tmp_path, "processor_config.json", {"processor_class": "CLIPProcessor", "image_processor": nested})
    write(tmp_path, "preprocessor_config.json", {"image_mean": [0.1], "image_std": [0.1]})
    assert preprocessing.stated(tmp_path, {}) == {"mean": [1.0], "std": [0.5]}


def test_timms_card_states_the_statistics(tmp_path):
    config = {"pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25] * 3}}
    assert preprocessing.stated(tmp_path, config) == {"mean": [127.5] * 3, "std": [63.75] * 3}
    assert preprocessing.stated(tmp_path, {"pretrained_cfg": None}) == {}


@pytest.mark.parametrize("options", [{}, {"mean": -6.0, "std": 3.0, "max_length": 40, "num_mel_bins": 64}])
@pytest.mark.parametrize("normalised", [True, False])
def test_sound_becomes_what_asts_feature_extractor_makes_of_it(options, normalised, tmp_path):
    transformers = pytest.importorskip("transformers")
    extractor = transformers.ASTFeatureExtractor(do_normalize=normalised, **options)
    extractor.save_pretrained(tmp_path)
    samples = np.random.default_rng(0).integers(-9000, 9000, 16000).astype(np.int16)
    expected = extractor(samples / np.float32(32768), sampling_rate=16000, return_tensors="np")["input_values"][0]
    modality = types.SimpleNamespace(sample_rate=16000)
    made = preprocess.build("audio", modality, preprocessing.stated(tmp_path, {}), "sound")
    found = jax.jit(made)({"samples": samples[None], "length": np.array([16000], np.int32)})[0]
    np.testing.assert_allclose(found, expected, atol=2e-3)


@pytest.mark.parametrize(
    "contents, message",
    [
        ({"image_mean": "half", "image_std": 0.5}, "image_mean = 'half', a number or a list of them"),
        ({"image_mean": [0.5, None], "image_std": 0.5}, "image_mean"),
        ({"image_mean": 0.5, "image_std": 0}, "image_std = 0, a positive number"),
        ({"image_mean": 0.5}, "image_std = None"),
        ({"image_mean": [], "image_std": []}, "image_mean"),
        ('{"image_mean": NaN, "image_std": 1}', "image_mean = nan"),
        ({"image_mean": 0.5, "image_std": 0.5, "rescale_factor": 0}, "rescale_factor = 0"),
        (
            {"image_mean": 0.5, "image_std": 0.5, "do_flip_channel_order": True},
            "do_flip_channel_order is not supported",
        ),
        ({"image_mean": 0.5, "image_std": 0.5, "offset": True}, "offset is not"),
        ({"feature_extractor_type": "ASTFeatureExtractor", "std": -1}, "std = -1"),
        ({"feature_extractor_type": "ASTFeatureExtractor", "max_length": "long"}, "max_length = 'long'"),
        ("[" * 100_000, "damaged"),
        ("[]", "holds no JSON object"),
        ("version https://git-lfs.github.com/spec/v1\n", "is a Git-LFS pointer"),
    ],
    ids=range(14),
)
def test_what_cannot_be_is_one_line(contents, message, tmp_path):
    write(tmp_path, "preprocessor_config.json", contents)
    with pytest.raises(UserError) as caught:
        preprocessing.stated(tmp_path, {})
    assert "preprocessor_config.json" in str(caught.value) and message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "contents, expected",
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"word_embedding_dimension": 384}, ""),
    ],
)
def test_pooling_of_sentence_transformers(contents, expected, tmp_path):
    assert preprocessing.pooling(tmp_path) == ""
    assert preprocessing.pooling(write(tmp_path, preprocessing.POOLING, contents)) == expected


@pytest.mark.parametrize(
    "contents",
    [
        {"pooling_mode_max_tokens": True},
        {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
        {"pooling_mode": "weightedmean"},
    ],
)
def test_other_pooling_is_refused_by_name(contents, tmp_path):
    with pytest.raises(UserError, match=r"1_Pooling/config\.json: pooling_mode_.* cannot be loaded"):
        preprocessing.pooling(write(tmp_path, preprocessing.POOLING, contents))


def modules(*kinds):
    return [
        {"idx": number, "path": "", "type": f"sentence_transformers.models.{kind}"} for number, kind in enumerate(kinds)
    ]


def test_unit_length_of_sentence_transformers(tmp_path):
    assert not preprocessing.unit_length(tmp_path)
    write(tmp_path, preprocessing.POOLING, {"pooling_mode_mean_tokens": True})
    assert not preprocessing.unit_length(write(tmp_path, preprocessing.MODULES, modules("Transformer", "Pooling")))
    normalised = modules("Transformer", "Pooling", "Normalize")
    assert preprocessing.unit_length(write(tmp_path, preprocessing.MODULES, normalised))


@pytest.mark.parametrize(
    "contents, message",
    [
        (modules("Transformer", "Pooling", "Dense", "Normalize"), "'Dense' is not applied here"),
        ([{"type": "my_code.Special"}], "'Special' is not applied here"),
        ([5], "'None' is not applied here"),
        ({"type": "x"}, "holds no JSON list"),
        (modules("Transformer", "Pooling"), r"there is no 1_Pooling/config\.json beside it"),
    ],
)
def test_other_modules_are_refused_by_name(contents, message, tmp_path):
    with pytest.raises(UserError, match=rf"modules\.json: .*{message}"):
        preprocessing.unit_length(write(tmp_path, preprocessing.MODULES, contents))
