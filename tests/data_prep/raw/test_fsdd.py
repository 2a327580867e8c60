import numpy as np
import pytest
import scipy.io.wavfile

from tests.data_prep.raw_files import wav_bytes, write_fsdd
from umemma_jax.data_prep.raw.fsdd import find_recordings, read_recording, split_recordings
from umemma_jax.errors import UserError

SAMPLES = np.array([0, 1, -1, 32767, -32768, 1234], "<i2")
PCM = SAMPLES.tobytes()


def test_real_recordings(shared_data):
    recordings = find_recordings(shared_data / "fsdd")
    assert len(recordings) == 3000
    assert recordings == find_recordings(shared_data / "fsdd" / "recordings") == sorted(recordings)
    assert {r.speaker for r in recordings} == {"george", "jackson", "lucas", "nicolas", "theo", "yweweler"}
    for recording in recordings[::97]:
        assert recording.path.name == f"{recording.digit}_{recording.speaker}_{recording.index}.wav"


def test_only_the_speakers_and_takes_wanted(tmp_path):
    write_fsdd(tmp_path, speakers=("theo", "lucas"))
    (tmp_path / "recordings" / "6_theo_50.wav").touch()  # FSDD once had such a 51st recording
    (tmp_path / "recordings" / "0_lucas_1.wav").unlink()  # not asked for
    (tmp_path / "recordings" / "README.md").touch()
    recordings = find_recordings(tmp_path, ("theo",))
    assert [(r.digit, r.speaker, r.index) for r in recordings] == [(d, "theo", i) for d in range(10) for i in range(50)]


def test_split(digits):
    recordings = find_recordings(digits / "fsdd")
    splits = split_recordings(recordings, range(5))
    assert {r.index for r in splits["test"]} == set(range(5))
    assert {r.index for r in splits["train"]} == set(range(5, 50))
    assert sorted(splits["train"] + splits["test"]) == recordings


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def read(tmp_path):
    def read(content):
        path = tmp_path / "0_theo_0.wav"
        path.write_bytes(content)
        return read_recording(path)

    return read


def test_reads_what_was_packed(read):
    found = read(wav_bytes(PCM))
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, SAMPLES)


def test_other_chunks_are_skipped(read):
    whole = wav_bytes(PCM)
    note = b"LIST" + (4).to_bytes(4, "little") + b"note"
    size = (len(whole) - 8 + len(note)).to_bytes(4, "little")
    np.testing.assert_array_equal(read(whole[:4] + size + whole[8:12] + note + whole[12:]), SAMPLES)


def test_equals_scipy_on_real_recordings(shared_data):
    paths = sorted((shared_data / "fsdd" / "recordings").glob("*.wav"))[::25]
    assert len(paths) == 120
    for path in paths:
        np.testing.assert_array_equal(read_recording(path), scipy.io.wavfile.read(path)[1])


@pytest.mark.parametrize("kept", range(len(wav_bytes(PCM))))
def test_every_truncation_is_noticed(read, kept):
    with pytest.raises(UserError, match=r"(empty file|truncated|not a WAV file)") as error:
        read(wav_bytes(PCM)[:kept])
    assert "0_theo_0.wav: " in str(error.value)


def data_size_field(content, size):
    """The file with another length in the header of its data chunk."""
    at = content.index(b"data") + 4
    return content[:at] + size.to_bytes(4, "little") + content[at + 4 :]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"OggS" + wav_bytes(PCM)[4:], "not a WAV file"),
        (b"RIFF\x04\0\0\0AVI ", "not a WAV file"),
        (b"RIFF\x04\0\0\0WAVE", "truncated, or its header is damaged"),
        (wav_bytes(PCM).replace(b"fmt \x10\0\0\0\1", b"fmt \x10\0\0\0\7"), "format 7, channels: 1"),  # mu-law
        (data_size_field(wav_bytes(PCM), len(PCM) + 2), "truncated: its last part has 12 bytes instead of 14"),
        (wav_bytes(b""), "0 bytes of samples"),
        (
            wav_bytes(PCM, sample_rate=44100),
            "format 1, channels: 1, 44100 Hz, 16 bits: bring another copy, or convert it to PCM, mono, 8000 Hz",
        ),
        (wav_bytes(PCM, channels=2), "format 1, channels: 2"),
        (wav_bytes(PCM, bits=8), "format 1, channels: 1, 8000 Hz, 8 bits"),
    ],
)
def test_names_file_and_fault(read, tmp_path, content, complaint):
    with pytest.raises(UserError) as error:
        read(content)
    assert str(error.value).startswith(f"{tmp_path}/0_theo_0.wav: {complaint}")


def test_any_header_gives_samples_or_one_line(read):
    whole, rng = wav_bytes(PCM), np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.integers(44)] = rng.integers(256)
        try:
            assert len(read(bytes(damaged))) <= len(SAMPLES)
        except UserError as error:
            assert "\n" not in str(error)
