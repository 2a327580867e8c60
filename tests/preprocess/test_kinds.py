"""What holds for every kind: the promises about rows, keys and mistakes."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tests.preprocess.raw_rows import AUDIO, IMAGE, TABLE, TEXT, keys, pixels, preprocess, synthetic
from umemma_jax.data.kinds import Modality
from umemma_jax.errors import UserError

AUDIO_STRENGTHS = {"speed": 0.2, "gain": 6.0, "noise": 0.5, "shift": 0.4, "time_mask": 0.3, "freq_mask": 0.3}
IMAGE_STRENGTHS = {"shift": 3.0, "rotation": 20.0, "scale": 0.2, "shear": 0.2, "flip": True, "resized_crop": 0.5}
RANDOM = [
    *((IMAGE, {name: value}) for name, value in IMAGE_STRENGTHS.items()),
    (IMAGE, IMAGE_STRENGTHS),
    *((AUDIO, {"normalise": "fixed", name: value}) for name, value in AUDIO_STRENGTHS.items()),
    (AUDIO, AUDIO_STRENGTHS),
]
RANDOM_IDS = [f"{modality.kind}-{'-'.join(config)}" for modality, config in RANDOM]


def raw_rows(modality):
    if modality.kind == "image":
        return pixels(8, modality)
    return synthetic()


@pytest.mark.parametrize("modality, config", RANDOM, ids=RANDOM_IDS)
def test_a_row_depends_on_its_own_key_only(modality, config):
    p, raw, rows = preprocess(modality, **config), raw_rows(modality), np.array([6, 2, 5])
    augment = jax.jit(p, static_argnums=2)
    together = np.asarray(augment(raw, keys(8), True))
    apart = np.asarray(augment(jax.tree.map(lambda x: x[rows], raw), keys(8)[rows], True))
    assert np.isfinite(together).all()
    assert_allclose(apart, together[rows], atol=1e-5)
    assert not np.allclose(augment(raw, keys(8, seed=1), True), together)  # other keys, other draws
    assert not np.allclose(augment(raw, keys(8), True), p(raw))  # and something does happen


@pytest.mark.parametrize("modality, config", RANDOM, ids=RANDOM_IDS)
def test_nothing_is_random_outside_training(modality, config):
    raw = raw_rows(modality)
    plain = {"normalise": config["normalise"]} if "normalise" in config else {}
    assert_array_equal(preprocess(modality, **config)(raw), preprocess(modality, **plain)(raw))


# --- configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", [IMAGE, AUDIO, TABLE, TEXT])
def test_preprocess_objects_are_static_under_jit(modality):
    p = preprocess(modality)
    assert hash(p) == hash(preprocess(modality))
    assert p == preprocess(modality)
    assert dataclasses.replace(p) == p


@pytest.mark.parametrize(
    "modality, config, message",
    [
        (IMAGE, {"shfit": 2}, "config.inputs.m.preprocess.shfit: unknown, kind 'image' takes mean, std, crop"),
        (IMAGE, {"shift": "2"}, "config.inputs.m.preprocess.shift: expected float, got '2'"),
        (IMAGE, {"shift": -1}, "config.inputs.m.preprocess.shift: must not be negative, got -1.0"),
        (IMAGE, {"flip": 1}, "config.inputs.m.preprocess.flip: expected bool, got 1"),
        (IMAGE, {"mean": 3.0}, "config.inputs.m.preprocess.mean: expected a list of numbers, got 3.0"),
        (IMAGE, {"mean": (1, 2, 3)}, "config.inputs.m.preprocess.mean: 3 values, the dataset has 1 channels"),
        (IMAGE, {"crop": 8.0}, "config.inputs.m.preprocess.crop: expected int, got 8.0"),
        (IMAGE, {"crop": -8}, "config.inputs.m.preprocess.crop: must not be negative, got -8"),
        (IMAGE, {"resized_crop": 1.0}, "config.inputs.m.preprocess.resized_crop: must be below 1"),
        (AUDIO, {"n_mels": 40.0}, "config.inputs.m.preprocess.n_mels: expected int, got 40.0"),
        (AUDIO, {"n_mels": True}, "config.inputs.m.preprocess.n_mels: expected int, got True"),
        (AUDIO, {"hop_length": 0}, "config.inputs.m.preprocess.hop_length: must be positive, got 0"),
        (AUDIO, {"n_mels": 120}, "config.inputs.m.preprocess.n_mels: 120 filters are narrower"),
        (AUDIO, {"f_max": 5000.0}, "config.inputs.m.preprocess.f_max: 5000 Hz is not between"),
        (AUDIO, {"normalise": "exmaple"}, "config.inputs.m.preprocess.normalise: 'exmaple' is neither"),
        (AUDIO, {"n_fft": 128}, "config.inputs.m.preprocess.n_fft: 128 points are fewer than win_length 256"),
        (AUDIO, {"speed": 1.0}, "config.inputs.m.preprocess.speed: must be below 1"),
        (AUDIO, {"n_mels": 10**7}, "config.inputs.m.preprocess.n_mels: this takes 41.3 GB, which is more than"),
        (AUDIO, {"n_fft": 2**30}, "config.inputs.m.preprocess.n_fft: this takes "),
        (AUDIO, {"win_length": 10**9}, "config.inputs.m.preprocess.win_length: this takes 32.0 GB"),
        (AUDIO, {"win_length": 1}, "config.inputs.m.preprocess.win_length: a window of 1 sample is 0"),
        (AUDIO, {"hop_length": 2**31}, "config.inputs.m.preprocess.hop_length: 2147483648 does not fit into 31 bits"),
        (AUDIO, {"gain": math.inf}, "config.inputs.m.preprocess.gain: inf is not finite"),
        (AUDIO, {"gain": 1e9}, "config.inputs.m.preprocess.gain: must be 200 or less"),
        (AUDIO, {"std": 1e-300}, "config.inputs.m.preprocess.std: must be positive"),
        (AUDIO, {"mean": -1e300}, "config.inputs.m.preprocess.mean: -1e+300 does not fit into float32"),
        (AUDIO, {"form": ["stft"]}, "config.inputs.m.preprocess.form: '['stft']' is none of log_mel"),
        (IMAGE, {"std": (-1.0,)}, "config.inputs.m.preprocess.std: must not be negative"),
        (IMAGE, {"mean": (math.nan,)}, "config.inputs.m.preprocess.mean: nan is not finite"),
        (TEXT, {"lower": True}, "config.inputs.m.preprocess.lower: unknown, kind 'text' takes drop"),
        (Modality("image", "jpeg"), {}, "config.inputs.m.preprocess.mean: the dataset does not state it, give it here"),
        (Modality("smell", "raw"), {}, "config.inputs.m.preprocess: no preprocessing for kind 'smell'"),
    ],
)
def test_mistakes_are_named_in_one_line(modality, config, message):
    with pytest.raises(UserError) as caught:
        preprocess(modality, **config)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_integers_are_fine_where_a_number_is_expected():
    assert preprocess(IMAGE, shift=2) == preprocess(IMAGE, shift=2.0)
    assert preprocess(IMAGE, mean=[0], std=[255])(np.full((1, 28, 28, 1), 255, np.uint8)).max() == pytest.approx(1)


def test_bfloat16_is_not_involved():
    for modality in (IMAGE, AUDIO):
        assert preprocess(modality)(raw_rows(modality)).dtype == jnp.float32


def test_a_form_that_does_not_exist():
    with pytest.raises(UserError, match=r"preprocess\.form: 'mfcc' is none of log_mel, fbank, stft, waveform"):
        preprocess(AUDIO, form="mfcc")
