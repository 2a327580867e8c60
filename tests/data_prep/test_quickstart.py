import numpy as np
import pytest
import scipy.signal
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.data_prep.prepared import contents, read_split
from umemma_jax.data.dataset import open_dataset
from umemma_jax.data_prep import quickstart

KEYPAD = {1209: "147", 1336: "2580", 1477: "369"}, {697: "123", 770: "456", 852: "789", 941: "0"}  # ITU-T Q.23


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    out = tmp_path_factory.mktemp("quickstart") / "out"
    quickstart.prepare(str(out))
    return out


def test_every_digit_is_in_one_split(prepared):
    digits = load_digits()
    used = []
    for split, size in (("train", 1347), ("test", 450)):
        examples = read_split(prepared, split)
        assert len(examples) == size
        for example in examples:
            row = int(example.id)
            assert example.label == digits.target[row]
            np.testing.assert_allclose(example.image[..., 0] * (16 / 255), digits.images[row], atol=16 / 255 / 2)
        used += [int(example.id) for example in examples]
    assert sorted(used) == list(range(1797))


def test_classes_in_proportion(prepared):
    info = open_dataset(prepared).info
    everyone = np.bincount(load_digits().target)
    np.testing.assert_allclose(info.splits["test"].classes, everyone * (450 / 1797), atol=1)


def test_pixels_use_the_whole_range(prepared):
    images = np.stack([example.image for example in read_split(prepared, "train")])
    assert images.shape == (1347, 8, 8, 1)
    assert (images.min(), images.max()) == (0, 255)


@pytest.mark.parametrize("digit", range(10))
def test_tones_are_the_keys(digit):
    rng = np.random.default_rng(digit)
    clips = [quickstart.touch_tone(digit, rng) for _ in range(40)]
    hertz, power = scipy.signal.periodogram(clips, fs=8000)
    power = power / power.mean(axis=1, keepdims=True)  # levels differ
    for band in KEYPAD:
        loudest = max(band, key=lambda frequency: power.mean(axis=0)[np.argmin(np.abs(hertz - frequency))])
        assert str(digit) in band[loudest]


def test_signal_to_noise_ratio(monkeypatch):
    monkeypatch.setattr(quickstart, "TONE_SAMPLES", (1600, 1600))  # the whole clip
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(200):
        hertz, power = scipy.signal.periodogram(quickstart.touch_tone(5, rng), window="hann", fs=8000)
        tone = (np.abs(hertz - 770) < 25) | (np.abs(hertz - 1336) < 25)
        floor = power[~tone].mean()
        ratios.append((power[tone] - floor).sum() / (floor * len(power)))
    assert 10 * np.log10(np.mean(ratios)) == pytest.approx(quickstart.SNR_DB, abs=0.3)


def test_start_length_and_level_vary():
    rng = np.random.default_rng(0)
    levels = [20 * np.log10(quickstart.touch_tone(7, rng).std() / 32768) for _ in range(200)]
    assert max(levels) - min(levels) > 10
    assert max(levels) < -15


def test_sound_alone_is_not_solved(prepared):
    def features(split):
        examples = read_split(prepared, split)
        clips = np.stack([example.audio for example in examples]).astype(float)
        _, _, spectrum = scipy.signal.stft(clips, fs=8000, nperseg=256, noverlap=192)
        power = np.abs(spectrum[:, 20:50]) ** 2 / np.mean(clips**2, axis=1)[:, None, None]  # 625 to 1,560 Hz
        return np.log(power + 1e-6).reshape(len(clips), -1), [example.label for example in examples]

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)).fit(*features("train"))
    assert 0.80 < model.score(*features("test")) < 0.90


def test_seed(tmp_path, prepared):
    quickstart.prepare(str(tmp_path / "same"))
    assert contents(tmp_path / "same") == contents(prepared)
    quickstart.prepare(str(tmp_path / "other"), seed=1)
    ids = [{example.id for example in read_split(folder, "test")} for folder in (prepared, tmp_path / "other")]
    assert ids[0] != ids[1]
