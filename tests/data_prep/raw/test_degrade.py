import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import scipy.stats
from sklearn.decomposition import PCA

from umemma_jax.data_prep.raw.degrade import Degradation, add_white_noise, fit_energy_removal
from umemma_jax.data_prep.raw.mnist import read_mnist
from umemma_jax.errors import UserError


def deviations(degraded):
    """From stored pixels back to deviations from the mean image, [N, P]."""
    return 2 * (degraded.reshape(len(degraded), -1) - 128.0)


def clouds(count):
    """Smooth random images."""
    noise = np.random.default_rng(0).standard_normal((count, 12, 10))
    return np.clip(128 + 300 * scipy.ndimage.gaussian_filter(noise, (0, 2, 2)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("energy_removed", [0.1, 0.5, 0.75, 0.99])
def test_keeps_the_leading_components_of_scikit_learns_pca(energy_removed):
    images = clouds(2000)
    pca = PCA().fit(images.reshape(2000, -1))
    original = pca.transform(images.reshape(2000, -1))
    left = deviations(fit_energy_removal(images, energy_removed)(images)) @ pca.components_.T
    assert left.var(axis=0).sum() / original.var(axis=0).sum() == pytest.approx(1 - energy_removed, abs=0.005)
    whole = np.searchsorted(np.cumsum(pca.explained_variance_ratio_), 1 - energy_removed)
    rounding = 8  # of 120 pixels by up to 0.5, doubled: about 0.6 each
    np.testing.assert_allclose(left[:, :whole], original[:, :whole], atol=rounding)
    np.testing.assert_allclose(left[:, whole + 1 :], 0, atol=rounding)


def test_fitted_on_train_images_alone():
    images = clouds(2000)
    removal = fit_energy_removal(images[:1000], 0.75)
    np.testing.assert_array_equal(removal(images)[:1000], removal(images[:1000]))
    assert removal.components.shape[1] == len(removal.gains)
    np.testing.assert_allclose(removal.mean, images[:1000].reshape(1000, -1).mean(axis=0))


def test_mnist_keeps_a_quarter_of_its_energy(shared_data):
    splits = read_mnist(shared_data / "mnist")
    train, test = splits["train"][0][:10_000], splits["test"][0]
    removal = fit_energy_removal(train, 0.75)
    assert removal.components.shape == (784, 4)
    pca = PCA(n_components=5, random_state=0).fit(train.reshape(-1, 784))
    for images, tolerance in ((train, 0.001), (test, 0.01)):
        left = deviations(removal(images))
        assert left.var(axis=0).sum() / images.reshape(-1, 784).var(axis=0).sum() == pytest.approx(0.25, abs=tolerance)
    left = (deviations(removal(train)) @ pca.components_.T).var(axis=0)
    np.testing.assert_allclose(left[:3], pca.explained_variance_[:3], rtol=0.005)
    assert left[4] < 1e-4 * left[0]


@pytest.mark.parametrize("snr_db", [-20.0, -10.0, 0.0, 15.0])
def test_signal_to_noise_ratio(snr_db):
    quiet = (500 * np.sin(np.arange(4000) / 7)).astype(np.int16)
    noisy = add_white_noise(quiet, snr_db, np.random.default_rng(0))
    noise = noisy.astype(float) - quiet
    assert noisy.dtype == np.int16
    measured = 10 * np.log10(np.mean(quiet.astype(float) ** 2) / np.mean(noise**2))
    assert measured == pytest.approx(snr_db, abs=0.01)


def test_noise_is_white_and_gaussian():
    signal = np.full(2**17, 1000, np.int16)
    noise = add_white_noise(signal, 0.0, np.random.default_rng(0)).astype(float) - signal
    _, spectrum = scipy.signal.welch(noise, nperseg=256)
    np.testing.assert_allclose(spectrum[2:-1], spectrum[2:-1].mean(), rtol=0.2)
    assert scipy.stats.kurtosis(noise) == pytest.approx(0, abs=0.05)


def test_loud_recording_is_scaled_down_and_keeps_its_ratio():
    loud = np.round(30000 * np.sin(np.arange(2**16) / 7)).astype(np.int16)
    noisy = add_white_noise(loud, -10.0, np.random.default_rng(0)).astype(float)
    assert np.abs(noisy).max() == 32767
    correlation = np.corrcoef(loud, noisy)[0, 1]
    assert 10 * np.log10(correlation**2 / (1 - correlation**2)) == pytest.approx(-10, abs=0.2)


def test_silence_stays_silent():
    assert not add_white_noise(np.zeros(100, np.int16), -10.0, np.random.default_rng(0)).any()


@pytest.mark.parametrize(
    ("field", "value"), [("image_energy_removed", 0.0), ("image_energy_removed", 75.0), ("snr_db", float("nan"))]
)
def test_impossible_values(field, value):
    with pytest.raises(UserError, match=f"--{field}={value}: give a"):
        Degradation(**{field: value})
