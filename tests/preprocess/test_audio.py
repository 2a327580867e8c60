"""Spectrograms against NumPy, SciPy and AST's feature extractor, and waveforms."""

import wave

import jax
import numpy as np
import pytest
import scipy.fft
import scipy.signal
from numpy.testing import assert_allclose, assert_array_equal

from tests.preprocess.raw_rows import AUDIO, batch, keys, preprocess, synthetic
from umemma_jax.data.kinds import Modality
from umemma_jax.errors import UserError
from umemma_jax.preprocess import kaldi_filters, mel_filters

SPEECH = Modality("audio", "pcm_s16le", sample_rate=16000)


def recordings(shared_data, count=40, rate=8000):
    """Some real ones, of all speakers, at a multiple of their 8 kHz."""
    files = sorted((shared_data / "fsdd" / "recordings").glob("*.wav"))[:: 3000 // count]
    waveforms = []
    for file in files:
        with wave.open(str(file)) as opened:
            waveform = np.frombuffer(opened.readframes(opened.getnframes()), np.int16)
        waveform = scipy.signal.resample_poly(waveform.astype(float), rate // 8000, 1)
        waveforms.append(np.clip(np.round(waveform), -32768, 32767))
    return batch(*waveforms, size=6000 * rate // 8000)


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


# --- Kaldi's filter bank ----------------------------------------------------------------------------------------------


def reference_fbank(raw, p):
    """Kaldi's definition in float64 on each row alone, as torchaudio states it, padded as AST does."""
    top, n_fft = p.f_max or p.sample_rate / 2, 2 ** int(np.ceil(np.log2(p.win_length)))
    window = scipy.signal.get_window("hann", p.win_length, fftbins=False) ** {"hann": 1, "povey": 0.85}[p.window]
    corners = np.linspace(*(1127 * np.log(1 + f / 700) for f in (p.f_min, top)), p.n_mels + 2)
    bins = 1127 * np.log(1 + scipy.fft.rfftfreq(n_fft, 1 / p.sample_rate) / 700)
    filters = np.stack([np.interp(bins, corners[i : i + 3], [0, 1, 0], 0, 0) for i in range(p.n_mels)])
    count = p.frames or 1 + (raw["samples"].shape[1] - p.win_length) // p.hop_length
    spectrograms = np.zeros((len(raw["length"]), count, p.n_mels))
    for row, samples, length in zip(spectrograms, raw["samples"], raw["length"], strict=True):
        starts = range(0, length - p.win_length + 1, p.hop_length)[:count]
        for values, start in zip(row, starts, strict=False):
            frame = samples[start : start + p.win_length] / 32768
            frame = frame - frame.mean()
            frame = np.append(frame[0] - 0.97 * frame[0], frame[1:] - 0.97 * frame[:-1]) * window
            power = np.abs(scipy.fft.rfft(frame, n_fft)) ** 2
            values[:] = np.log(np.maximum(filters @ power, np.finfo(np.float32).eps))
        valid = len(starts)
        if p.normalise == "fixed":
            row[:] = (row - p.mean) / p.std
        elif valid:
            row[:valid] = (row[:valid] - row[:valid].mean()) / np.sqrt(row[:valid].var() + 1e-6)
    return spectrograms


FBANKS = [
    {},
    {"mean": -4.503877, "std": 2 * 5.141276},
    {"window": "povey", "n_mels": 23, "frames": 0},
    {"frames": 20, "f_min": 60.0, "f_max": 7000.0},
    {"win_length": 256, "hop_length": 100, "n_mels": 40, "normalise": "example", "frames": 100},
]


@pytest.mark.parametrize("config", FBANKS)
def test_fbank_of_synthetic_sounds_is_the_reference(config):
    p = preprocess(SPEECH, form="fbank", **config)
    raw = synthetic()
    assert_allclose(jax.jit(p)(raw), reference_fbank(raw, p), atol=1e-3)


@pytest.mark.parametrize("config", FBANKS)
def test_fbank_of_recordings_is_the_reference(config, shared_data):
    p = preprocess(SPEECH, form="fbank", **config)
    raw = recordings(shared_data, rate=16000)
    assert_allclose(jax.jit(p)(raw), reference_fbank(raw, p), atol=1e-3)


@pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")
def test_fbank_is_what_asts_feature_extractor_makes_of_recordings(shared_data):
    audio_utils = pytest.importorskip("transformers.audio_utils")
    raw = recordings(shared_data, rate=16000)
    filters = audio_utils.mel_filter_bank(257, 128, 20, 8000, 16000, mel_scale="kaldi", triangularize_in_mel_space=True)
    assert_allclose(kaldi_filters(128, 512, 16000, 20, 8000), filters, atol=1e-5)
    expected = np.zeros((len(raw["length"]), 1024, 128))
    for row, samples, length in zip(expected, raw["samples"], raw["length"], strict=True):
        log_mel = audio_utils.spectrogram(
            samples[:length] / 32768,
            audio_utils.window_function(400, "hann", periodic=False),
            frame_length=400,
            hop_length=160,
            fft_length=512,
            power=2.0,
            center=False,
            preemphasis=0.97,
            mel_filters=filters,
            log_mel="log",
            mel_floor=1.192092955078125e-07,
            remove_dc_offset=True,
        )
        row[: log_mel.shape[1]] = log_mel.T
    found = jax.jit(preprocess(SPEECH, form="fbank"))(raw)
    assert_allclose(found, (expected + 4.2677393) / (2 * 4.5689974), atol=1e-3)


@pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")
def test_fbank_is_what_asts_feature_extractor_makes_of_a_recording_itself(shared_data):
    pytest.importorskip("torch", reason="the feature extractor needs PyTorch")
    transformers = pytest.importorskip("transformers")
    raw = recordings(shared_data, count=4, rate=16000)
    extract = transformers.ASTFeatureExtractor()
    for samples, length, row in zip(raw["samples"], raw["length"], preprocess(SPEECH, form="fbank")(raw), strict=True):
        expected = extract(samples[:length] / 32768, sampling_rate=16000, return_tensors="np")["input_values"][0]
        assert_allclose(row, expected, atol=1e-3)


def test_a_batch_without_room_for_one_frame():
    with pytest.raises(UserError, match=r"win_length: frames of 400 samples are longer than the input's 399: lower it"):
        preprocess(SPEECH, form="fbank")(batch(np.zeros(9), size=399))


# --- short-time Fourier transform -------------------------------------------------------------------------------------


def reference_stft(samples, p):
    """`np.log(np.abs(librosa.stft(...)) + floor)` of one waveform by its documented formula: frames x bins."""
    padded = np.pad(samples / 32768, p.win_length // 2 if p.centre else 0)
    window = scipy.signal.get_window("hann", p.win_length)
    starts = range(0, len(padded) - p.win_length + 1, p.hop_length)
    spectrum = [scipy.fft.rfft(padded[start : start + p.win_length] * window) for start in starts]
    return np.log(np.abs(np.reshape(spectrum, (-1, p.win_length // 2 + 1))) + p.floor)


STFTS = [{}, {"hop_length": 159, "centre": False}, {"win_length": 401, "hop_length": 160, "floor": 1e-5}]


@pytest.mark.parametrize("config", STFTS)
def test_stft_of_each_recording_is_the_reference_of_it_alone(config, shared_data):
    """With the recipe's normalisation, which is of the size of the values: quiet bins beside loud ones lose digits."""
    p = preprocess(SPEECH, form="stft", mean=-4.503877, std=2 * 5.141276, **config)
    raw = recordings(shared_data)  # as if they were of 16 kHz
    for samples, length, row in zip(raw["samples"], raw["length"], np.asarray(jax.jit(p)(raw)), strict=True):
        expected = (reference_stft(samples[:length], p) + 4.503877) / (2 * 5.141276)
        assert_allclose(row[: len(expected)], expected, atol=1e-3)
        assert (row[len(expected) :] == 0).all()


@pytest.mark.parametrize("config", STFTS)
def test_stft_of_synthetic_sounds_is_finite_and_of_nothing_is_blank(config):
    raw = synthetic()
    found = np.asarray(jax.jit(preprocess(SPEECH, form="stft", **config))(raw))
    assert np.isfinite(found).all()
    assert (found[1] == 0).all()


@pytest.mark.parametrize(
    "seconds, rate, config, shape",
    [(3, 22050, {}, (188, 257)), (3, 16000, {"hop_length": 159, "centre": False}, (299, 257))],
)
def test_sizes_are_those_of_the_published_recipe(seconds, rate, config, shape):
    raw = batch(np.zeros(9), size=seconds * rate)
    assert preprocess(SPEECH, form="stft", **config)(raw).shape == (1, *shape)


def test_the_recipes_normalisation():
    raw = batch(np.random.default_rng(0).integers(-9999, 9999, 4000))
    plain = preprocess(SPEECH, form="stft")(raw)
    found = preprocess(SPEECH, form="stft", mean=-4.503877, std=2 * 5.141276)(raw)
    assert_allclose(found, (plain + 4.503877) / (2 * 5.141276), atol=1e-5)


# --- whatever the definition ------------------------------------------------------------------------------------------

FORMS = ["log_mel", "fbank", "stft"]
STRENGTHS = {"speed": 0.2, "gain": 6.0, "noise": 0.5, "shift": 0.4, "time_mask": 0.3, "freq_mask": 0.3}
FRAMES = {"log_mel": {}, "fbank": {"frames": 23}, "stft": {}}


def computed(raw, row_keys=None, **config):
    """The spectrograms of a batch; in training if keys are given."""
    p = preprocess(SPEECH, **config)
    return np.asarray(jax.jit(p, static_argnames="train")(raw, row_keys, train=row_keys is not None))


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_nothing_beyond_the_length_of_a_row_matters(form, train):
    raw = synthetic()
    padding = np.arange(4000) >= raw["length"][:, None]
    other = {**raw, "samples": np.where(padding, 12345, raw["samples"]).astype(np.int16)}
    row_keys = keys(8) if train else None
    assert_array_equal(
        computed(raw, row_keys, form=form, **STRENGTHS), computed(other, row_keys, form=form, **STRENGTHS)
    )


@pytest.mark.parametrize("form", FORMS)
def test_every_definition_augments_each_row_by_its_own_key(form):
    raw, rows = synthetic(), np.array([6, 2, 5])
    config = {"form": form, **FRAMES[form]}
    together = computed(raw, keys(8), **config, **STRENGTHS)
    apart = computed({name: x[rows] for name, x in raw.items()}, keys(8)[rows], **config, **STRENGTHS)
    assert np.isfinite(together).all()
    assert_allclose(apart, together[rows], atol=1e-4)
    plain = computed(raw, **config)
    assert_array_equal(computed(raw, **config, **STRENGTHS), plain)
    for row in (4, 5):
        assert np.abs(together[row] - plain[row]).mean() > 0.05


@pytest.mark.parametrize("form, of_power", [("log_mel", True), ("fbank", True), ("stft", False)])
def test_random_volume_moves_loud_bins_by_its_decibels(form, of_power):
    raw = batch(*[np.random.default_rng(0).integers(-9999, 9999, 4000)] * 40)
    plain = {"form": form, "normalise": "fixed", "mean": 0.0, "std": 1.0, **FRAMES[form]}
    before, after = computed(raw, **plain), computed(raw, keys(40), gain=6.0, **plain)
    loud = before[0] > before[0].max() - 3
    change = (after - before)[:, loud] * 10 / np.log(10) * (1 if of_power else 2)  # in dB
    assert_allclose(change, np.repeat(change[:, :1], loud.sum(), axis=1), atol=1e-2)
    assert -6 <= change.min() < -4 < 4 < change.max() <= 6


@pytest.mark.parametrize("form, blank", [("log_mel", 0.0), ("fbank", 4.2677393 / (2 * 4.5689974)), ("stft", 0.0)])
def test_masks_blank_stretches_of_time_and_frequency(form, blank):
    raw = batch(*np.random.default_rng(0).integers(-9999, 9999, (60, 4000)))
    found = computed(raw, keys(60), form=form, time_mask=0.4, freq_mask=0.3, **FRAMES[form])
    blanked = found != computed(raw, form=form, **FRAMES[form])
    assert_allclose(found[blanked], blank, atol=1e-6)
    frames, bins = blanked.all(axis=2).mean(axis=1), blanked.all(axis=1).mean(axis=1)
    assert frames.min() < 0.1 < 0.3 < frames.max() < 0.45
    assert bins.min() < 0.1 < 0.2 < bins.max() < 0.35


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


# --- waveforms --------------------------------------------------------------------------------------------------------


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
