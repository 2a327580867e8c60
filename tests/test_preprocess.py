"""Preprocessing against NumPy and SciPy, and the promises about rows, keys and mistakes."""

import dataclasses
import wave

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft
import scipy.ndimage
import scipy.signal
import scipy.stats
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from umemma_jax.data.kinds import Modality
from umemma_jax.errors import UserError
from umemma_jax.preprocess import affine, build, mel_filters

IMAGE = Modality("image", "raw", shape=(28, 28, 1), mean=(33.3,), std=(78.6,))
COLOUR = Modality("image", "raw", shape=(9, 7, 3), mean=(120.0, 110.0, 100.0), std=(60.0, 50.0, 40.0))
AUDIO = Modality("audio", "pcm_s16le", sample_rate=8000)
TABLE = Modality("tabular", "float32", shape=(3,), mean=(1.0, -2.0, 0.0), std=(2.0, 0.5, 0.0))
TEXT = Modality("text", "utf-8")


def preprocess(modality, **config):
    return build(modality.kind, modality, config, "m")


def keys(rows, seed=0):
    return jax.random.split(jax.random.key(seed), rows)


def pixels(rows, modality, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, *modality.shape), np.uint8)


def batch(*waveforms, size=4000):
    """int16 waveforms as the pipeline delivers them: cut or zero-padded to `size`, with their lengths."""
    samples = np.zeros((len(waveforms), size), np.int16)
    for row, waveform in zip(samples, waveforms, strict=True):
        row[: len(waveform)] = waveform[:size]
    return {"samples": samples, "length": np.array([min(len(w), size) for w in waveforms], np.int32)}


def synthetic():
    """Silence, nothing, one sample, a click, full-scale tone, full-scale noise, quiet noise, longer than the batch."""
    rng, time = np.random.default_rng(0), np.arange(5000)
    return batch(
        np.zeros(3000, np.int16),
        np.zeros(0, np.int16),
        np.array([-32768], np.int16),
        np.eye(1, 900, 450).ravel() * 32767,
        np.round(32767 * np.sin(time * 2 * np.pi * 440 / 8000)),
        rng.integers(-32768, 32768, 2500),
        rng.integers(-3, 4, 2500),
        rng.integers(-32768, 32768, 5000),
    )


def recordings(shared_data, count=40):
    """Some real ones, of all speakers."""
    files = sorted((shared_data / "fsdd" / "recordings").glob("*.wav"))[:: 3000 // count]
    waveforms = []
    for file in files:
        with wave.open(str(file)) as opened:
            waveforms.append(np.frombuffer(opened.readframes(opened.getnframes()), np.int16))
    return batch(*waveforms, size=6000)


# --- log-mel ----------------------------------------------------------------------------------------------------------


def reference_log_mel(raw, p):
    """The definition in float64, row by row and frame by frame, with SciPy's transform and a mel matrix of its own."""
    n_fft, top = p.n_fft or p.win_length, p.f_max or p.sample_rate / 2
    window = scipy.signal.get_window("hann", p.win_length)
    to_mel, from_mel = (lambda f: 1127.01048 * np.log1p(f / 700)), (lambda m: 700 * np.expm1(m / 1127.01048))
    corners = from_mel(np.linspace(to_mel(p.f_min), to_mel(top), p.n_mels + 2))
    bins = scipy.fft.rfftfreq(n_fft, 1 / p.sample_rate)
    filters = np.stack([np.interp(bins, corners[i : i + 3], [0, 1, 0], 0, 0) for i in range(p.n_mels)])
    spectrograms = []
    for samples, length in zip(raw["samples"], raw["length"], strict=True):
        padded = np.concatenate([samples / 32768, np.zeros(p.win_length)])
        frames = []
        for start in range(0, len(samples), p.hop_length):
            spectrum = scipy.fft.rfft(padded[start : start + p.win_length] * window / window.sum(), n_fft)
            frames.append(np.log(filters @ np.abs(spectrum) ** 2 + p.floor))
        frames, valid = np.stack(frames), -(-int(length) // p.hop_length)
        kept = frames[:valid]
        if p.normalise == "example" and valid:
            kept = (kept - kept.mean()) / np.sqrt(kept.var() + 1e-6)
        if p.normalise == "fixed":
            kept = (kept - p.mean) / p.std
        spectrograms.append(np.concatenate([kept, np.zeros_like(frames[valid:])]))
    return np.stack(spectrograms)


FORMATS = [
    {},
    {"normalise": "fixed"},
    {"normalise": "fixed", "mean": -9.0, "std": 4.0, "hop_length": 64, "n_mels": 20, "f_min": 60.0, "f_max": 3800.0},
    {"win_length": 200, "n_fft": 512, "hop_length": 71, "n_mels": 64, "floor": 1e-6},
    {"win_length": 101, "hop_length": 150, "n_mels": 12},
]


@pytest.mark.parametrize("config", FORMATS)
def test_log_mel_of_synthetic_sounds_is_the_reference(config):
    p = preprocess(AUDIO, **config)
    raw = synthetic()
    assert_allclose(jax.jit(p)(raw), reference_log_mel(raw, p), atol=1e-4)


@pytest.mark.parametrize("config", FORMATS)
def test_log_mel_of_recordings_is_the_reference(config, shared_data):
    p = preprocess(AUDIO, **config)
    raw = recordings(shared_data)
    assert_allclose(jax.jit(p)(raw), reference_log_mel(raw, p), atol=1e-4)


def test_power_is_that_of_scipys_short_time_fourier_transform():
    p = preprocess(AUDIO, normalise="fixed", hop_length=64)
    raw = synthetic()
    _, _, spectrum = scipy.signal.stft(raw["samples"] / 32768, 8000, "hann", 256, 256 - 64, boundary=None)
    power = np.abs(spectrum.transpose(0, 2, 1)) ** 2  # only the frames that lie within S
    expected = np.log(power @ mel_filters(40, 256, 8000, 0, 4000) + 1e-8)
    actual = np.asarray(jax.jit(p)({**raw, "length": np.full(8, 4000)}))
    assert_allclose(actual[:, : expected.shape[1]], expected, atol=1e-4)


def test_a_full_scale_tone_in_the_middle_of_a_filter_has_a_quarter_of_full_power():
    # |rfft|^2 / sum(window)^2 of a sine of amplitude 1 is (1/2)^2 in the bin at its frequency.
    filters = mel_filters(40, 256, 8000, 0, 4000)
    bin_, mel = np.unravel_index(filters.argmax(), filters.shape)
    tone = np.round(32767 * np.sin(np.arange(4000) * 2 * np.pi * bin_ / 256))
    log_mel = preprocess(AUDIO, normalise="fixed")(batch(tone))
    assert np.exp(log_mel[0, 10, mel]) > 0.25 * filters[bin_, mel]
    assert log_mel[0, 10].argmax() == mel


def test_frames_past_the_end_are_zero_and_silence_is_finite():
    raw = synthetic()
    log_mel = np.asarray(preprocess(AUDIO)(raw))
    assert np.isfinite(log_mel).all()
    for row, length in zip(log_mel, raw["length"], strict=True):
        assert (row[-(-length // 80) :] == 0).all()


def test_level_does_not_matter_to_normalised_spectrograms_well_above_the_floor():
    noise = np.random.default_rng(0).integers(-4000, 4000, 3000)
    loud, quiet = preprocess(AUDIO, floor=1e-12)(batch(8 * noise, noise))
    assert_allclose(loud, quiet, atol=1e-4)


# --- images and tables ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", [IMAGE, COLOUR])
def test_images_are_standardised_per_channel(modality):
    raw = pixels(5, modality)
    expected = (raw.astype(np.float64) - modality.mean) / modality.std
    assert_allclose(preprocess(modality)(raw), expected, atol=1e-5)
    other = preprocess(modality, mean=modality.std, std=modality.mean)
    assert_allclose(other(raw), (raw - np.array(modality.std)) / modality.mean, atol=1e-5)


def test_affine_sampling_is_that_of_scipy():
    image = pixels(1, COLOUR)[0].astype(np.float32)
    matrix, shift = np.array([[0.9, 0.3], [-0.2, 1.1]], np.float32), np.array([1.3, -0.6], np.float32)
    centre = (np.array(image.shape[:2]) - 1) / 2
    expected = np.stack(
        [
            scipy.ndimage.affine_transform(
                channel, matrix, centre + shift - matrix @ centre, order=1, mode="grid-constant"
            )
            for channel in image.transpose(2, 0, 1)
        ],
        axis=-1,
    )
    assert_allclose(affine(image, matrix, shift), expected, atol=1e-2)  # of 255


def test_image_augmentation_moves_pixels_no_further_than_it_says():
    raw = np.zeros((64, 28, 28, 1), np.uint8)
    raw[:, 14, 14] = 255
    black = -IMAGE.mean[0] / IMAGE.std[0]
    moved = np.asarray(preprocess(IMAGE, shift=2)(raw, keys(64), True)) > black + 1e-3
    rows, columns = np.nonzero(moved.any(axis=(0, 3)))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (12, 16, 12, 16)


def test_flip_mirrors_about_half_of_the_rows():
    raw = np.repeat(pixels(1, COLOUR), 200, axis=0)
    flipped = np.asarray(preprocess(COLOUR, flip=True)(raw, keys(200), True))
    plain = np.asarray(preprocess(COLOUR)(raw))
    same = np.isclose(flipped, plain, atol=1e-4).all(axis=(1, 2, 3))
    mirrored = np.isclose(flipped, plain[:, :, ::-1], atol=1e-4).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert 70 < same.sum() < 130


def plain_pixels(raw, keys=None, train=False, **config):
    """What the preprocessing makes of uint8 images before it standardises."""
    channels = raw.shape[-1]
    p = preprocess(IMAGE if channels == 1 else COLOUR, mean=(0.0,) * channels, std=(1.0,) * channels, **config)
    return np.asarray(jax.jit(p, static_argnames="train")(raw, keys, train=train))


@pytest.mark.parametrize("height, width, crop", [(9, 7, 5), (8, 8, 5), (6, 9, 6), (5, 5, 5)])
def test_evaluation_crops_the_centre(height, width, crop):
    raw = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), np.uint8)
    top, left = (height - crop) // 2, (width - crop) // 2
    assert_array_equal(plain_pixels(raw, crop=crop), raw[:, top : top + crop, left : left + crop])


def test_training_crops_anywhere_with_equal_chances():
    image = np.arange(7 * 6, dtype=np.uint8).reshape(1, 7, 6, 1)  # the first pixel tells the position
    cropped = plain_pixels(np.repeat(image, 3000, axis=0), keys(3000), train=True, crop=5)
    windows = np.lib.stride_tricks.sliding_window_view(image[0, ..., 0], (5, 5))
    top, left = np.divmod(cropped[:, 0, 0, 0].astype(int), 6)
    assert_array_equal(cropped[..., 0], windows[top, left])
    assert scipy.stats.chisquare(np.bincount(top * 2 + left, minlength=6)).pvalue > 1e-3


def ramps(rows, height, width):
    """Images whose channels say where a pixel is: its row, its column, nothing."""
    image = np.stack([*np.mgrid[:height, :width], np.zeros((height, width))], axis=-1)
    return np.repeat(image[None].astype(np.uint8), rows, axis=0)


def boxes(resized):
    """(top, left, height, width) of the rectangles that became [B, S, S, 3], from what they did to `ramps`."""
    _, size, _, _ = resized.shape
    inner = slice(size // 4, -(size // 4))  # where the filter does not reach over an edge
    ticks = np.arange(size)[inner] + 0.5
    found = []
    for row in resized:
        lines = [
            np.polynomial.Polynomial.fit(ticks, values, 1).convert().coef
            for values in (row[inner, size // 2, 0], row[size // 2, inner, 1])
        ]
        found.append([*(start + 0.5 for start, _ in lines), *(slope * size for _, slope in lines)])
    return np.array(found)


def test_a_resized_crop_is_a_rectangle_of_the_area_and_shape_that_it_says():
    resized = plain_pixels(ramps(400, 120, 200), keys(400), train=True, crop=40, resized_crop=0.9)
    assert resized.shape == (400, 40, 40, 3)
    top, left, height, width = boxes(resized).T
    assert min(top.min(), left.min()) > -0.01
    assert (top + height).max() < 120.01
    assert (left + width).max() < 200.01
    area, ratio = height * width / (120 * 200), width / height
    assert 0.1 < area.min() < 0.13
    assert 0.8 < area.max() < 1
    free = height < 119.9  # what would be higher than the image is as high as it
    assert 0.74 < ratio[free].min() < 0.78
    assert 1.28 < ratio[free].max() < 1.34
    assert 0.3 < np.mean(area[free] < 0.45) < 0.7
    assert abs(np.corrcoef(top[free], left[free])[0, 1]) < 0.3


@pytest.mark.parametrize("size", [24, 60])
def test_a_resized_crop_is_that_of_pillow(size):
    raw = np.random.default_rng(0).integers(0, 256, (5, 60, 60, 3), np.uint8)
    config = {"resized_crop": 0.5, "crop": size}
    found = boxes(plain_pixels(ramps(5, 60, 60), keys(5), train=True, **config))
    resized = plain_pixels(raw, keys(5), train=True, **config)
    for image, row, (top, left, height, width) in zip(raw, resized, found, strict=True):
        box = np.clip((left, top, left + width, top + height), 0, 60)
        expected = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR, tuple(box)))
        difference = np.abs(row - expected)[3:-3, 3:-3]  # at the box's edges Pillow looks no further
        assert difference.mean() < 1  # of 255; Pillow rounds
        assert difference.max() < 5


def test_a_crop_comes_before_the_other_augmentation():
    raw = np.repeat(pixels(1, COLOUR), 50, axis=0)
    cropped = plain_pixels(raw, keys(50), train=True, crop=5)
    both = plain_pixels(raw, keys(50), train=True, crop=5, flip=True)
    mirrored = (both != cropped).any(axis=(1, 2, 3))
    assert 10 < mirrored.sum() < 40
    assert_array_equal(both, np.where(mirrored[:, None, None, None], cropped[:, :, ::-1], cropped))


def test_a_crop_larger_than_the_images_is_refused():
    with pytest.raises(UserError, match=r"preprocess\.crop: 8 is larger than the images, 9 x 7: lower it"):
        preprocess(COLOUR, crop=8)(pixels(1, COLOUR))


def test_tables_are_standardised_per_column_and_constant_columns_stay_finite():
    raw = np.array([[1, 2, 0], [3, -2, 0]], np.float32)
    assert_allclose(preprocess(TABLE)(raw), [[0, 8, 0], [1, 0, 0]], atol=1e-6)


# --- augmentation, whatever the kind ----------------------------------------------------------------------------------

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


def test_a_delay_keeps_the_whole_recording():
    raw = batch(*np.random.default_rng(0).integers(-9999, 9999, (20, 2000)))
    plain, delayed = preprocess(AUDIO)(raw), preprocess(AUDIO, shift=1.0)(raw, keys(20), True)
    delays = [int(np.flatnonzero(row.any(axis=1))[0]) for row in np.asarray(delayed)]
    assert max(delays) > 15 > 5 > min(delays)
    for before, after, delay in zip(plain, delayed, delays, strict=True):
        assert_array_equal(np.roll(before, delay, axis=0), after)


def test_speed_changes_length_and_pitch():
    tone = np.round(9999 * np.sin(np.arange(2000) * 2 * np.pi * 1000 / 8000))
    p = preprocess(AUDIO, speed=0.25, normalise="fixed")
    spectrograms = np.asarray(p(batch(*[tone] * 50), keys(50), True))
    lengths = (spectrograms != 0).any(axis=2).sum(axis=1)
    assert lengths.min() < 22 < 25 < 30 < lengths.max()  # 25 frames at its own speed
    pitches = spectrograms[:, 5].argmax(axis=1)
    assert np.corrcoef(lengths, pitches)[0, 1] < -0.9


def test_masks_blank_no_more_than_they_say():
    raw = batch(*np.random.default_rng(0).integers(-9999, 9999, (60, 4000)))
    blank = np.asarray(preprocess(AUDIO, time_mask=0.2, freq_mask=0.25)(raw, keys(60), True)) == 0
    frames, bins = blank.all(axis=2).sum(axis=1), blank.all(axis=1).sum(axis=1)
    assert (frames.min(), frames.max()) == (0, 10)
    assert (bins.min(), bins.max()) == (0, 10)


# --- text -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("train", [False, True])
def test_text_is_the_encoders_to_embed(train):
    raw = {"tokens": np.array([[101, 7, 102], [0, 0, 0]], np.int32), "length": np.array([3, 0], np.int32)}
    got = jax.jit(preprocess(TEXT), static_argnames="train")(raw, keys(2), train=train)
    assert got.keys() == raw.keys()
    for name, array in raw.items():
        assert got[name].dtype == array.dtype
        assert_array_equal(got[name], array)


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


# Waveforms and texts.


def test_waveforms_are_scaled_and_silent_after_their_length():
    raw = synthetic()
    raw["samples"][6, 2600:] = 5  # left over behind the end
    found = np.asarray(preprocess(AUDIO, form="waveform")(raw))
    valid = np.arange(4000) < raw["length"][:, None]
    assert_array_equal(found, np.where(valid, raw["samples"] / 32768, 0).astype(np.float32))


def test_waveforms_are_delayed_and_scaled_and_get_noise_in_training_only():
    time = np.arange(2000)
    raw = batch(*[np.round(8000 * np.sin(time / 5))] * 64)
    plain = np.asarray(preprocess(AUDIO, form="waveform")(raw))[0, :2000]
    moved = np.asarray(preprocess(AUDIO, form="waveform", shift=0.25, gain=6.0)(raw, keys(64), train=True))
    starts = (moved != 0).argmax(axis=1) - (plain != 0).argmax()
    assert starts.min() < 100 and 900 < starts.max() <= 1000
    for row, start in zip(moved, starts, strict=True):
        gain = np.linalg.norm(row) / np.linalg.norm(plain)
        assert 10 ** (-6 / 20) <= gain <= 10 ** (6 / 20)
        assert_allclose(row[start : start + 2000], plain * gain, atol=1e-5)
    p = preprocess(AUDIO, form="waveform", noise=0.5)
    noisy = np.asarray(p(raw, keys(64), train=True))[:, :2000] - plain
    assert 0.1 < noisy.std() / plain.std() < 0.5
    assert_array_equal(p(raw)[0, :2000], plain)


def test_a_form_that_does_not_exist():
    with pytest.raises(UserError, match=r"preprocess\.form: 'mfcc' is none of log_mel, waveform"):
        preprocess(AUDIO, form="mfcc")


def test_words_are_dropped_in_training_and_the_rest_stays_in_order():
    tokens = np.tile(np.r_[101, 1:19, 102, np.zeros(4)].astype(np.int32), (500, 1))
    raw = {"tokens": tokens, "length": np.full(500, 20, np.int32)}
    p = preprocess(TEXT, drop=0.3)
    assert p(raw) is raw
    found = jax.jit(lambda raw, keys: p(raw, keys, train=True))(raw, keys(500))
    lengths = np.asarray(found["length"])
    assert abs(lengths.mean() - (2 + 18 * 0.7)) < 0.3 and lengths.min() < lengths.max()
    for row, length in zip(np.asarray(found["tokens"]), lengths, strict=True):
        assert row[0] == 101 and row[length - 1] == 102
        assert (np.diff(row[1 : length - 1]) > 0).all()


@pytest.mark.parametrize("length", [0, 1, 2])
def test_texts_without_words_stay_as_they_are(length):
    raw = {"tokens": np.array([[101, 102, 0, 0]], np.int32), "length": np.array([length], np.int32)}
    found = preprocess(TEXT, drop=0.9)(raw, keys(1), train=True)
    assert found["length"] == length
    assert_array_equal(found["tokens"][0, :length], raw["tokens"][0, :length])


def test_a_share_of_words_that_cannot_be():
    with pytest.raises(UserError, match=r"drop: must be in \[0, 1\)"):
        preprocess(TEXT, drop=1.0)
