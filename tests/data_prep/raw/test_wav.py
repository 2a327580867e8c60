import numpy as np
import pytest
import scipy.io.wavfile

from data_prep.raw.wav import read_wav
from tests.data_prep.raw_files import wav_bytes
from umemma_jax.errors import UserError

SAMPLES = np.array([0, 1, -1, 32767, -32768, 1234], "<i2")
PCM = SAMPLES.tobytes()


def test_reads_what_was_packed(tmp_path):
    path = tmp_path / "0_theo_0.wav"
    path.write_bytes(wav_bytes(PCM))
    read = read_wav(path, 8000)
    assert read.dtype == np.int16
    np.testing.assert_array_equal(read, SAMPLES)


def test_other_chunks_are_skipped(tmp_path):
    whole = wav_bytes(PCM)
    note = b"LIST" + (4).to_bytes(4, "little") + b"note"
    size = (len(whole) - 8 + len(note)).to_bytes(4, "little")
    path = tmp_path / "0_theo_0.wav"
    path.write_bytes(whole[:4] + size + whole[8:12] + note + whole[12:])
    np.testing.assert_array_equal(read_wav(path, 8000), SAMPLES)


def test_equals_scipy_on_real_recordings(shared_data):
    paths = sorted((shared_data / "fsdd" / "recordings").glob("*.wav"))[::25]
    assert len(paths) == 120
    for path in paths:
        np.testing.assert_array_equal(read_wav(path, 8000), scipy.io.wavfile.read(path)[1])


@pytest.mark.parametrize("kept", range(len(wav_bytes(PCM))))
def test_every_truncation_is_noticed(tmp_path, kept):
    path = tmp_path / "0_theo_0.wav"
    path.write_bytes(wav_bytes(PCM)[:kept])
    with pytest.raises(UserError, match="truncated" if kept >= 12 else "not a RIFF WAVE file") as error:
        read_wav(path, 8000)
    assert str(path) in str(error.value)


def data_size_field(content, size):
    """The file with another length in the header of its data chunk."""
    at = content.index(b"data") + 4
    return content[:at] + size.to_bytes(4, "little") + content[at + 4 :]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"OggS" + wav_bytes(PCM)[4:], "not a RIFF WAVE file"),
        (b"RIFF\x04\0\0\0AVI ", "not a RIFF WAVE file"),
        (b"RIFF\x04\0\0\0WAVE", "not a readable PCM file"),
        (wav_bytes(PCM).replace(b"fmt \x10\0\0\0\1", b"fmt \x10\0\0\0\7"), "not a readable PCM file"),  # mu-law
        (data_size_field(wav_bytes(PCM), len(PCM) + 2), "truncated: 6 samples instead of 7"),
        (wav_bytes(b""), "holds no samples"),
        (wav_bytes(PCM, sample_rate=44100), "sample rate 44100 Hz instead of 8000: convert it"),
        (wav_bytes(PCM, channels=2), "2 channels instead of 1: convert it"),
        (wav_bytes(PCM, bits=8), "8 bits a sample instead of 16: convert it"),
    ],
)
def test_names_file_and_fault(tmp_path, content, complaint):
    path = tmp_path / "0_theo_0.wav"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_wav(path, 8000)
    assert str(error.value).startswith(f"{path}: {complaint}")
