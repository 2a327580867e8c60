import numpy as np
import pytest
import scipy.io.wavfile

from data_prep.raw.fsdd import find_recordings, read_recording, split_recordings
from tests.data_prep.raw_files import wav_bytes, write_fsdd
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


def test_equals_scipy_on_real_recordings(shared_data):
    paths = sorted((shared_data / "fsdd" / "recordings").glob("*.wav"))[::25]
    assert len(paths) == 120
    for path in paths:
        np.testing.assert_array_equal(read_recording(path), scipy.io.wavfile.read(path)[1])


@pytest.mark.parametrize("kept", range(len(wav_bytes(PCM))))
def test_every_truncation_is_noticed(read, kept):
    with pytest.raises(UserError, match=r"0_theo_0\.wav: (empty file|damaged, or not a WAV file)"):
        read(wav_bytes(PCM)[:kept])


@pytest.mark.parametrize(
    "content",
    [
        b"OggS" + wav_bytes(PCM)[4:],
        wav_bytes(PCM).replace(b"fmt \x10\0\0\0\1", b"fmt \x10\0\0\0\7"),  # mu-law
        wav_bytes(b""),
        wav_bytes(PCM, sample_rate=44100),
        wav_bytes(PCM, channels=2),
        wav_bytes(PCM, bits=8),
    ],
)
def test_other_forms_are_refused(read, content):
    with pytest.raises(UserError, match="not a WAV file of 16 bits, one channel and 8000 Hz"):
        read(content)


@pytest.mark.parametrize("position", range(44))
def test_every_damaged_header_is_refused(read, position):
    damaged = bytearray(wav_bytes(PCM))
    damaged[position] ^= 1
    with pytest.raises(UserError, match="damaged, or not"):
        read(bytes(damaged))
