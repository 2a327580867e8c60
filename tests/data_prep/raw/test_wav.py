import numpy as np
import pytest
import scipy.io.wavfile

from tests.data_prep.raw_files import wav_bytes
from umemma_jax.data_prep.raw import ffmpeg
from umemma_jax.data_prep.raw.files import open_file
from umemma_jax.data_prep.raw.wav import read_plain

RATE = 8000
SAMPLES = np.random.default_rng(0).integers(-32768, 32768, 3 * RATE + 7).astype("<i2")


@pytest.fixture
def opened(tmp_path):
    def opened(content):
        path = tmp_path / "a.wav"
        path.write_bytes(content)
        return open_file(path)

    return opened


def test_equals_scipy(opened, tmp_path):
    scipy.io.wavfile.write(tmp_path / "a.wav", RATE, SAMPLES)
    with open_file(tmp_path / "a.wav") as file:
        plain = read_plain(file, RATE)
    np.testing.assert_array_equal(plain.samples, SAMPLES)
    assert plain.duration == len(SAMPLES) / RATE


@pytest.mark.parametrize("seconds", [0.01, 1 / 3, 1, 2.99999, 3, 3.0009, 10])
def test_reads_what_ffmpeg_reads(opened, seconds):
    with opened(wav_bytes(SAMPLES.tobytes())) as file:
        plain = read_plain(file, RATE, round(seconds * RATE))
        frames, samples, damage, duration = ffmpeg.read_part(file, 0, seconds, 1.0, 256, RATE, 10**6)
    np.testing.assert_array_equal(plain.samples, samples)
    assert plain.duration == pytest.approx(duration, abs=1e-6)
    assert not frames and damage is None


@pytest.mark.parametrize("position", range(44))
def test_any_other_header_is_left_to_ffmpeg(opened, position):
    content = bytearray(wav_bytes(SAMPLES.tobytes()))
    content[position] ^= 1
    with opened(bytes(content)) as file:
        assert read_plain(file, RATE) is None


@pytest.mark.parametrize(
    "content",
    [
        wav_bytes(SAMPLES.tobytes())[:-1],
        wav_bytes(SAMPLES.tobytes()) + b"\0",
        wav_bytes(SAMPLES.tobytes() + b"\0"),  # half a sample
        wav_bytes(b""),
        b"RIFF",
        wav_bytes(SAMPLES.tobytes(), sample_rate=2 * RATE),
        wav_bytes(SAMPLES.tobytes(), channels=2),
        wav_bytes(SAMPLES.tobytes(), bits=24),
    ],
    ids=["cut", "longer", "odd", "empty", "no_header", "rate", "stereo", "24"],
)
def test_other_forms_are_left_to_ffmpeg(opened, content):
    with opened(content) as file:
        assert read_plain(file, RATE) is None
