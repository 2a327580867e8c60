import io
import struct
import wave

import av
import numpy as np
import pytest
import scipy.io.wavfile
import scipy.signal

from tests.data_prep.raw_clips import add_sound, encode, sound_frame
from tests.data_prep.raw_files import wav_bytes
from umemma_jax.data_prep.build.prep_report import DAMAGED
from umemma_jax.data_prep.build.tasks import Unreadable
from umemma_jax.data_prep.raw.clips import CUT, ToSound

RATE = 8000
TONE = np.rint(12000 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.int64)  # one second
PCM, FLOAT, MU_LAW, EXTENSIBLE = 1, 3, 7, 0xFFFE


@pytest.fixture
def read(tmp_path):
    def read(content, rate=RATE, seconds=10, name="a.wav"):
        path = tmp_path / name
        path.write_bytes(content)
        clip = ToSound(0, seconds, sample_rate=rate).read(path)
        assert clip.damage is None
        return clip.samples

    return read


def packed(samples, bits):
    """Samples of int16 range as little-endian PCM of another width."""
    if bits == 8:
        return (samples // 256 + 128).astype(np.uint8).tobytes()
    scaled = (samples << (bits - 16)).astype("<i4") if bits > 16 else samples.astype("<i4")
    return scaled.view(np.uint8).reshape(-1, 4)[:, : bits // 8].tobytes()


def riff(kind, bits, data, channels=1, rate=RATE, mask=0, before=b"", after=b""):
    """A WAV file of any format, packed by hand."""
    frame = channels * bits // 8
    stated = EXTENSIBLE if mask else kind
    form = struct.pack("<HHIIHH", stated, channels, rate, rate * frame, frame, bits)
    if mask:
        tail = b"\x00\x00\x00\x00\x10\x00\x80\x00\x00\xaa\x00\x38\x9b\x71"  # of the GUIDs of formats
        form += struct.pack("<HHIH", 22, bits, mask, kind) + tail
    chunks = (
        b"fmt " + struct.pack("<I", len(form)) + form + before + b"data" + struct.pack("<I", len(data)) + data + after
    )
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def rf64(data):
    """The form for more than 4 GB, which can be short as well."""
    whole = riff(PCM, 16, data)
    sizes = b"ds64" + struct.pack("<IQQQI", 28, len(whole) + 36, len(data), len(data) // 2, 0)
    unknown = b"\xff\xff\xff\xff"
    return b"RF64" + unknown + b"WAVE" + sizes + whole[12:].replace(b"data" + whole[40:44], b"data" + unknown)


LAST = b"note\x03\0\0\0abc\0"  # an odd length, and the padding after it
SIXTEEN = packed(TONE, 16)


# --- the forms of WAV -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        wav_bytes(SIXTEEN),
        wav_bytes(packed(TONE, 24), bits=24),
        wav_bytes(packed(TONE, 32), bits=32),
        riff(FLOAT, 32, (TONE / 32768).astype("<f4").tobytes()),
        riff(FLOAT, 64, (TONE / 32768).astype("<f8").tobytes()),
        riff(PCM, 16, SIXTEEN, mask=4),
        riff(PCM, 24, packed(TONE, 24), mask=4),
        riff(FLOAT, 32, (TONE / 32768).astype("<f4").tobytes(), mask=4),
        riff(PCM, 64, (TONE << 48).astype("<i8").tobytes()),
        riff(PCM, 16, SIXTEEN, before=LAST),
        riff(PCM, 16, SIXTEEN, after=LAST),
        riff(PCM, 16, SIXTEEN, after=LAST[:-1]),
        rf64(SIXTEEN),
        wav_bytes(SIXTEEN).replace(b"data" + struct.pack("<I", len(SIXTEEN)), b"data\xff\xff\xff\xff"),
    ],
    ids=[
        "16", "24", "32", "float", "double", "extensible_16", "extensible_24", "extensible_float", "64", "odd_before",
        "odd_after", "without_padding", "rf64", "streamed",
    ],
)  # fmt: skip
def test_exact(read, content):
    np.testing.assert_array_equal(read(content), TONE)


def test_equals_other_readers_on_real_recordings(shared_data):
    to_sound = ToSound(0, 10, sample_rate=RATE)
    paths = sorted((shared_data / "fsdd" / "recordings").glob("*.wav"))[::25]
    assert len(paths) == 120
    for path in paths:
        found = to_sound.read(path).samples
        np.testing.assert_array_equal(found, scipy.io.wavfile.read(path)[1])
        with wave.open(str(path)) as file:
            assert found.tobytes() == file.readframes(file.getnframes())


def test_8_bits(read):
    np.testing.assert_allclose(read(wav_bytes(packed(TONE, 8), bits=8)), TONE, atol=256)


def test_mu_law(read):
    codes = np.arange(256, dtype=np.uint8)
    flipped = ~codes
    magnitude = ((((flipped & 15) << 3) + 132).astype(int) << ((flipped & 112) >> 4)) - 132  # ITU-T G.711
    expected = np.where(flipped & 128, -magnitude, magnitude)
    np.testing.assert_array_equal(read(riff(MU_LAW, 8, codes.tobytes())), expected)


@pytest.mark.parametrize("form", [("wav", "pcm_s16le"), ("flac", "flac"), ("aiff", "pcm_s16be"), ("au", "pcm_s16be")])
def test_any_form_under_any_name(read, form):
    container, codec = form
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = add_sound(output, codec, RATE)
        encode(output, stream, [sound_frame(TONE.astype(np.int16)[:, np.newaxis], stream, RATE)])
    for name in ("a.wav", "a.mp3", "a", "http:a|b"):
        np.testing.assert_array_equal(read(file.getvalue(), name=name), TONE)


# --- rate, channels, length -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [2, 3, 5, 9, 17, 64])
def test_channels_are_averaged(read, channels):
    all_of_them = np.stack([np.roll(TONE, 5 * number) for number in range(channels)], axis=1)
    found = read(wav_bytes(packed(all_of_them.reshape(-1), 16), channels=channels))
    np.testing.assert_allclose(found, all_of_them.mean(axis=1), atol=1)


@pytest.mark.parametrize("rate", [4000, 11025, 16000, 44100])
def test_resampled(read, rate):
    found = read(wav_bytes(SIXTEEN), rate)
    assert found.dtype == np.int16
    assert len(found) == rate
    middle = slice(rate // 4, rate // 2)
    expected = scipy.signal.resample_poly(TONE.astype(float), rate, RATE, window=("kaiser", 12.0))
    np.testing.assert_allclose(found[middle], expected[middle], atol=4)


@pytest.mark.parametrize("samples", [1, 10, 100, 1000])
def test_short_sound_keeps_its_length(read, samples):
    assert len(read(wav_bytes(SIXTEEN[: 2 * samples]), 16000)) == 2 * samples


def test_overshoot_is_clipped(read):
    square = np.where(np.arange(800) % 20 < 10, 32767, -32768)
    found = read(wav_bytes(packed(square, 16)), 16000)
    assert found.max() == 32767
    assert found.min() == -32768


def test_seconds_hold(read):
    np.testing.assert_array_equal(read(wav_bytes(4 * SIXTEEN), seconds=2), np.tile(TONE, 2))


def test_what_seconds_leave_out_is_said(tmp_path):
    path = tmp_path / "long.wav"
    path.write_bytes(wav_bytes(4 * SIXTEEN))
    assert ToSound(0, 2, sample_rate=RATE)(path).notes == {CUT: "4.0 s"}
    assert isinstance(ToSound(0, 4, sample_rate=RATE)(path), bytes)


# --- what is refused, and what is kept of damaged files ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"an mp3, by its name", "not a video or sound file"),
        (wav_bytes(b""), "sound: truncated|no sound"),
        (wav_bytes(SIXTEEN, sample_rate=0), "not a video or sound file"),
        (wav_bytes(SIXTEEN, sample_rate=99), "sound: 99 samples in a second, not 100 to 768,000"),
        (wav_bytes(SIXTEEN, sample_rate=10**6), "sound: 1,000,000 samples in a second"),
        (wav_bytes(257 * SIXTEEN, channels=257), "sound: 257 channels, not 1 to 256"),
    ],
)
def test_unreadable(read, content, reason):
    with pytest.raises(Unreadable, match=reason):
        read(content)


def test_truncated_sound_counts_as_far_as_it_goes(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(wav_bytes(SIXTEEN)[:8044])
    result = ToSound(0, 10, sample_rate=RATE)(path)
    np.testing.assert_array_equal(ToSound(0, 10).value(result.data), TONE[:4000])
    assert result.notes == {DAMAGED: "sound: truncated: 8,044 bytes of 16,044"}
    assert ToSound(0, 0.2, sample_rate=RATE).read(path).damage is None  # what is missing comes later


def test_a_playlist_leads_nowhere(tmp_path):
    """Neither to other files nor to the network."""
    (tmp_path / "secret.wav").write_bytes(wav_bytes(SIXTEEN))
    for content in (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{tmp_path}/secret.wav\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile {tmp_path}/secret.wav\n",
    ):
        (tmp_path / "list.wav").write_text(content)
        with pytest.raises(Unreadable):
            ToSound(0, 10).read(tmp_path / "list.wav")
