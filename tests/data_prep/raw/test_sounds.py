import numpy as np
import pytest
import scipy.signal

from data_prep.build.parallel import Unreadable
from data_prep.raw.sounds import ToPcm
from tests.data_prep.raw_files import wav_bytes

TONE = np.rint(12000 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)).astype(np.int64)  # one second


def packed(samples, bits):
    """Samples of int16 range as little-endian PCM of another width."""
    if bits == 8:
        return (samples // 256 + 128).astype(np.uint8).tobytes()
    scaled = (samples << (bits - 16)).astype("<i4") if bits > 16 else samples.astype("<i4")
    return scaled.view(np.uint8).reshape(-1, 4)[:, : bits // 8].tobytes()


def read(tmp_path, content, rate=8000):
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    return ToPcm(rate).value(ToPcm(rate)(path))


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_bits(tmp_path, bits):
    np.testing.assert_array_equal(read(tmp_path, wav_bytes(packed(TONE, bits), bits=bits)), TONE)


def test_8_bits(tmp_path):
    np.testing.assert_allclose(read(tmp_path, wav_bytes(packed(TONE, 8), bits=8)), TONE, atol=256)


def test_channels_are_averaged(tmp_path):
    both = np.stack([TONE, np.roll(TONE, 5)], axis=1)
    found = read(tmp_path, wav_bytes(packed(both.reshape(-1), 16), channels=2))
    np.testing.assert_allclose(found, both.mean(axis=1), atol=0.5)


@pytest.mark.parametrize("rate", [4000, 11025, 16000, 44100])
def test_resampled(tmp_path, rate):
    found = read(tmp_path, wav_bytes(packed(TONE, 16)), rate)
    assert found.dtype == np.int16
    assert len(found) == rate
    hertz, power = scipy.signal.periodogram(found, fs=rate, window="hann")
    assert hertz[np.argmax(power)] == 440
    middle = slice(rate // 4, rate // 2)
    expected = 12000 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    np.testing.assert_allclose(found[middle], expected[middle], atol=30)


def test_overshoot_is_clipped(tmp_path):
    square = np.where(np.arange(800) % 20 < 10, 32767, -32768)
    found = read(tmp_path, wav_bytes(packed(square, 16)), 16000)
    assert found.max() == 32767
    assert found.min() == -32768


@pytest.mark.parametrize("content", [b"", b"ID3 an mp3", wav_bytes(packed(TONE, 16))[:-2]])
def test_unreadable(tmp_path, content):
    with pytest.raises(Unreadable, match=r"^(not a RIFF WAVE file|truncated)"):
        read(tmp_path, content)
