import io
import os
from fractions import Fraction

import av
import numpy as np
import pytest
import scipy.signal
from av.stream import Disposition
from PIL import Image

from tests.data_prep.raw_clips import (
    FORMS,
    add_pictures,
    add_sound,
    clock,
    encode,
    sound_frame,
    time_of,
    tone,
    video_frames,
    write_video,
)
from tests.data_prep.raw_files import wav_bytes
from umemma_jax.data import jpeg
from umemma_jax.data_prep.build.prep_report import DAMAGED
from umemma_jax.data_prep.build.results import Noted
from umemma_jax.data_prep.build.tasks import Unreadable
from umemma_jax.data_prep.raw.clips import NO_SOUND, Clip, ToClip, ToFrames, ToFramesAndSound, ToSound
from umemma_jax.data_prep.raw.tracks import Track

FPS, RATE = 25, 16000
TOLERANCE = 2.5 / 40  # s: levels of brightness that an encoder may be off


@pytest.fixture
def video(tmp_path):
    """Writes a clock with a tone of 440 Hz and returns its path."""

    def write(suffix=".mkv", seconds=4.0, **options):
        sound = options.pop("sound", tone(seconds))
        pictures = options.pop("pictures", clock(np.arange(round(seconds * FPS)) / FPS))
        return write_video(tmp_path / f"clock{suffix}", pictures, sound, fps=FPS, **options)

    return write


def times(clip):
    return [time_of(frame) for frame in clip.frames]


def pixels(frame):
    return np.asarray(Image.open(io.BytesIO(frame)))


def phase(samples, hertz=440.0, start=0.0):
    """Radians by which a sine that is 0 at time 0 is ahead, and its amplitude as a share of full scale."""
    turning = np.exp(-2j * np.pi * hertz * (start + np.arange(len(samples)) / RATE))
    mean = (samples[800:-800] * turning[800:-800]).mean()
    return np.angle(mean * 1j), 2 * abs(mean) / 32767


# --- what is taken, and when ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FORMS)
def test_frames_on_display_in_the_middle_of_each_interval(video, suffix):
    instants = np.arange(8) / 2 + 0.25
    on_display = np.floor(instants * FPS) / FPS
    # MPEG's layer 2 begins before the picture, and so does the clip; program streams do not time each frame.
    tolerance = TOLERANCE + {".mpg": 0.08, ".ts": 0.04}.get(suffix, 0)
    clip = ToClip(0, 4, frame_rate=2).read(video(suffix))
    np.testing.assert_allclose(times(clip), on_display, atol=tolerance)
    assert clip.damage is None


@pytest.mark.parametrize("suffix", FORMS)
def test_tone_of_every_codec(video, suffix):
    clip = ToClip(0, 10).read(video(suffix))
    assert clip.samples.dtype == np.int16
    assert len(clip.samples) == pytest.approx(4 * RATE, abs=0.03 * RATE)
    hertz, power = scipy.signal.periodogram(clip.samples[: 4 * RATE], RATE, window="hann")
    assert hertz[np.argmax(power)] == 440
    _, amplitude = phase(clip.samples[: 4 * RATE])
    assert amplitude == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])  # the others do not say how late their codec begins
@pytest.mark.parametrize(("start", "end"), [(0.0, 4.0), (0.7, 2.2), (2.6, 3.6)])
def test_part_of_a_file_in_time(video, suffix, start, end):
    clip = ToClip(start, end, frame_rate=4).read(video(suffix))
    instants = start + (np.arange(round((end - start) * 4)) + 0.5) / 4
    np.testing.assert_allclose(times(clip), np.floor(instants * FPS + 1e-6) / FPS, atol=TOLERANCE + 0.5 / FPS)
    assert len(clip.samples) == round((end - start) * RATE)
    ahead, _ = phase(clip.samples, start=start)
    assert abs(ahead) / (2 * np.pi * 440) < 0.0006  # s; the timestamps of Matroska are in milliseconds


def test_long_file_is_not_read_from_its_beginning(video, monkeypatch):
    path = video(".mp4", 30.0, pictures=clock(np.arange(30 * FPS) % (5 * FPS) / FPS))
    whole = ToClip(0, 30).read(path)
    read = []
    decode = Track.decode
    monkeypatch.setattr(Track, "decode", lambda track, packet: read.append(packet) or decode(track, packet))
    part = ToClip(21, 23).read(path)
    np.testing.assert_allclose(times(part), times(whole)[21:23], atol=TOLERANCE)
    half_a_sample = 1200  # of the tone's steepest part
    np.testing.assert_allclose(part.samples, whole.samples[21 * RATE : 23 * RATE], atol=half_a_sample)
    packets = 30 * FPS + 30 * 48000 / 1024  # of the whole file
    assert len(read) < packets / 2


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_part_of_a_long_file_with_few_key_frames(video, suffix):
    """In a transport stream seeking leads to any frame, from which there is nothing to be seen until the next key."""
    path = video(suffix, 24.0, pictures=clock(np.arange(24 * FPS) % (5 * FPS) / FPS))
    part = ToClip(13.6, 16.6).read(path)
    np.testing.assert_allclose(times(part), [4.08, 0.08, 1.08], atol=TOLERANCE + 1 / FPS)
    assert (len(part.samples), part.damage) == (3 * RATE, None)


@pytest.mark.parametrize(("suffix", "every"), [(".ts", 1000), (".ts", 130), (".mp4", 1000), (".mkv", 1000)])
def test_clip_after_the_last_key_frame(tmp_path, suffix, every):
    """In a transport stream seeking finds the place, and from there on nothing that a picture could be decoded from."""
    path, options = tmp_path / f"late{suffix}", {"preset": "ultrafast", "x264-params": f"keyint={every}:scenecut=0"}
    with av.open(str(path), "w") as file:
        video, sound = add_pictures(file), add_sound(file, FORMS[suffix][1])
        video.codec_context.options = options
        pictures = list(video_frames(clock(np.arange(8 * FPS) % (4 * FPS) / FPS), video))
        for second in range(8):
            encode(file, video, pictures[second * FPS : (second + 1) * FPS], last=False)
            encode(file, sound, [sound_frame(tone(1.0), sound, 48000, second)], last=False)
        for stream in file.streams:
            encode(file, stream, [])
    for clip in (ToClip(6, 8).read(path), ToFrames(6, 8).read(path)):
        np.testing.assert_allclose(times(clip), [2.48, 3.48], atol=0.16)
        assert clip.damage is None


def test_variable_frame_rate(video):
    at = [0.0, 0.1, 0.45, 0.55, 1.2, 1.3, 2.9, 3.0]
    path = video(pictures=clock(at), times=at, sound=None)
    clip = ToClip(0, 3).read(path)
    np.testing.assert_allclose(times(clip), [0.45, 1.3, 1.3], atol=TOLERANCE)


def test_first_frame_stands_before_its_time(video):
    at = [1.6, 2.6, 2.8]
    clip = ToClip(0, 3).read(video(pictures=clock(at), times=at))
    np.testing.assert_allclose(times(clip), [1.6, 1.6, 1.6], atol=TOLERANCE)
    assert len(clip.samples) == 3 * RATE


def test_clip_shorter_than_an_interval_has_one_frame(video):
    path = video()
    np.testing.assert_allclose(times(ToClip(1, 1.2).read(path)), [1.08], atol=TOLERANCE)
    np.testing.assert_allclose(times(ToClip(0, 9).read(video(seconds=0.4))), [0.36], atol=TOLERANCE)


def test_the_picture_ends_where_it_ends(video):
    """The last instants without a picture give no frame."""
    assert len(ToClip(0, 10).read(video(seconds=2.4)).frames) == 2
    assert len(ToClip(0, 10).read(video(seconds=2.6)).frames) == 3


@pytest.mark.parametrize("fraction", [0.25, 1.0])
def test_sound_shorter_than_the_picture_is_as_long_as_it_is(video, fraction):
    clip = ToClip(0, 10).read(video(sound=tone(4 * fraction)))
    assert (len(clip.frames), len(clip.samples)) == (4, 4 * fraction * RATE)
    assert clip.damage is None


def test_sound_that_begins_later(video):
    clip = ToClip(0, 10).read(video(sound=tone(2.0), delay=1.5))
    assert np.all(clip.samples[: round(1.49 * RATE)] == 0)
    assert len(clip.samples) == 3.5 * RATE
    expected = tone(2.0, rate=RATE)[:, 0]
    np.testing.assert_allclose(clip.samples[round(1.5 * RATE) :][100:-100], expected[100:-100], atol=5)


def test_pause_in_the_sound(tmp_path):
    path = tmp_path / "pause.mkv"
    with av.open(str(path), "w") as file:
        stream = add_sound(file)
        for start in (0, 3):
            for at in start + 0.096 * np.arange(11):  # a frame of FLAC at a time, since its encoder fills gaps
                encode(file, stream, [sound_frame(tone(0.096), stream, 48000, at)], last=False)
        encode(file, stream, [])
    samples = ToClip(0, 10).read(path).samples
    loud = np.abs(samples[: len(samples) // 800 * 800].reshape(-1, 800).astype(int)).max(axis=1) > 3000
    seconds = np.arange(len(loud)) * 0.05
    assert np.all(loud[seconds < 1.0])
    assert not np.any(loud[(seconds > 1.1) & (seconds < 2.9)])
    assert np.all(loud[(seconds > 3.01) & (seconds < 4.0)])


def test_channels_are_averaged_and_tones_above_the_new_rate_removed(video):
    left, right = tone(4.0, 440)[:, 0], tone(4.0, 9000)[:, 0]
    samples = ToClip(0, 10).read(video(sound=np.stack([left, right], axis=1))).samples
    _, amplitude = phase(samples)
    assert amplitude == pytest.approx(0.2, abs=0.001)
    assert (
        np.abs(samples - 0.5 * np.interp(np.arange(len(samples)) * 3, np.arange(len(left)), left))[800:-800].max() < 4
    )


@pytest.mark.parametrize("rate", [8000, 11025, 48000])
def test_other_rates(video, rate):
    samples = ToClip(0, 10, sample_rate=rate).read(video()).samples
    assert len(samples) == 4 * rate
    hertz, power = scipy.signal.periodogram(samples, rate, window="hann")
    assert hertz[np.argmax(power)] == 440


def test_silent_film_and_sound_alone(video):
    silent = ToClip(0, 10).read(video(sound=None))
    assert (len(silent.frames), len(silent.samples), silent.damage) == (4, 0, None)
    alone = ToClip(0, 10).read(video(pictures=None))
    assert (len(alone.frames), len(alone.samples), alone.damage) == (0, 4 * RATE, None)


def test_no_timestamps(tmp_path):
    """A stream of nothing but pictures, whose rate is known from elsewhere."""
    path = tmp_path / "raw.h264"
    with av.open(str(path), "w", format="h264") as file:
        stream = add_pictures(file)
        encode(file, stream, video_frames(clock(np.arange(100) / FPS), stream))
    np.testing.assert_allclose(times(ToClip(0, 10).read(path)), [0.48, 1.48, 2.48, 3.48], atol=TOLERANCE + 1 / FPS)
    np.testing.assert_allclose(times(ToClip(2, 4).read(path)), [2.48, 3.48], atol=TOLERANCE + 1 / FPS)


def test_first_of_several_streams(tmp_path):
    path = tmp_path / "several.mkv"
    with av.open(str(path), "w") as file:
        videos, sounds = [add_pictures(file) for _ in range(2)], [add_sound(file) for _ in range(2)]
        for stream, level in zip(videos, (50, 200), strict=True):
            encode(file, stream, video_frames([np.full((64, 96, 3), level, np.uint8)] * 50, stream))
        for stream, hertz in zip(sounds, (440, 880), strict=True):
            encode(file, stream, [sound_frame(tone(2.0, hertz), stream, 48000)])
    clip = ToClip(0, 10).read(path)
    assert pixels(clip.frames[0]).mean() == pytest.approx(50, abs=3)
    assert phase(clip.samples, 440)[1] == pytest.approx(0.4, abs=0.01)


def test_cover_of_an_album_is_no_picture(tmp_path):
    path = tmp_path / "album.mp4"
    with av.open(str(path), "w") as file:
        sound, cover = add_sound(file, "aac"), add_pictures(file, "mjpeg", 1)
        cover.disposition = Disposition.attached_pic
        encode(file, cover, video_frames([np.full((64, 96, 3), 99, np.uint8)], cover))
        encode(file, sound, [sound_frame(tone(2.0), sound, 48000)])
    clip = ToClip(0, 10).read(path)
    assert (len(clip.frames), clip.damage) == (0, None)
    assert len(clip.samples) >= 2 * RATE


# --- what a frame looks like ------------------------------------------------------------------------------------------


def quadrants(size=(96, 64)):
    """A picture of four colours, red, green, blue, grey, from the upper left along the rows."""
    width, height = size
    colours = np.array([[[220, 40, 40], [40, 220, 40]], [[40, 40, 220], [128, 128, 128]]], np.uint8)
    return np.asarray(Image.fromarray(colours).resize((width, height), Image.Resampling.NEAREST))


def assert_shows(frame, expected):
    found = pixels(frame).astype(int)
    assert found.shape == expected.shape
    height, width, _ = found.shape
    for row in (height // 4, 3 * height // 4):
        for column in (width // 4, 3 * width // 4):
            np.testing.assert_allclose(found[row, column], expected[row, column], atol=25)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_upright(video, rotation):
    clip = ToClip(0, 1).read(video(".mp4", pictures=[quadrants()] * FPS, rotation=rotation))
    assert_shows(clip.frames[0], np.rot90(quadrants(), rotation // 90))


@pytest.mark.parametrize(
    ("size", "expected"), [((96, 64), (96, 64)), ((97, 65), (97, 65)), ((600, 400), (75, 50)), ((400, 602), (50, 75))]
)
def test_size(video, size, expected):
    limit = 50 if max(size) > 100 else 256
    clip = ToClip(0, 1, size=limit).read(video(pictures=[quadrants(size)] * FPS))
    assert_shows(clip.frames[0], quadrants(expected))


@pytest.mark.parametrize(("aspect", "expected"), [(Fraction(2), (192, 64)), (Fraction(1, 2), (96, 128))])
def test_pixels_become_square(video, aspect, expected):
    clip = ToClip(0, 1).read(video(pictures=[quadrants()] * FPS, pixel_aspect=aspect))
    assert_shows(clip.frames[0], quadrants(expected))


def test_frames_are_what_a_dataset_takes(video):
    for frame in ToClip(0, 4).read(video()).frames:
        jpeg.check(frame)


# --- damage -----------------------------------------------------------------------------------------------------------


def noisy(seconds):
    """A clock whose pictures are hard to compress, so that a file's bytes are spread evenly over its time."""
    rng = np.random.default_rng(0)
    pictures = clock(np.arange(round(seconds * FPS)) / FPS)
    return [np.clip(picture + rng.integers(-9, 10, picture.shape), 0, 255).astype(np.uint8) for picture in pictures]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".mpg", ".avi"])
def test_truncated(video, suffix):
    path = video(suffix, pictures=noisy(4))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    clip = ToClip(0, 10).read(path)
    assert len(clip.frames) in (2, 3)
    np.testing.assert_allclose(times(clip), [0.48, 1.48, 2.48][: len(clip.frames)], atol=0.16)
    assert 2.0 < len(clip.samples) / RATE < 2.9
    assert clip.damage.startswith(("picture: ", "sound: "))
    if suffix == ".mp4":  # knows how long its packets should be
        assert "a damaged packet" in clip.damage


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".avi"])
def test_truncated_between_two_packets(video, suffix):
    """Nothing in it is damaged: only the header tells that there was more."""
    path = video(suffix, pictures=noisy(4))
    with av.open(str(path)) as file:
        packets = [packet for packet in file.demux(video=0) if packet.pos is not None]
    header = 8 if suffix == ".avi" else 0  # before a packet
    os.truncate(path, packets[round(2.4 * FPS)].pos - header)
    for to_clip in (ToClip(0, 10), ToFrames(0, 10), ToSound(0, 10)):
        assert "not at 4.0" in to_clip.read(path).damage
    np.testing.assert_allclose(times(ToClip(0, 10).read(path)), [0.48, 1.48], atol=0.16)
    assert ToClip(0, 1).read(path).damage is None


def test_pictures_that_a_header_counts_too_many_of_are_not_missed(video):
    """As long as the file is as large as it says."""
    path = video(".avi")
    content = bytearray(path.read_bytes())
    length = content.index(b"vids") + 32  # of the stream, in the header of it that begins there
    assert content[length : length + 4] == (4 * FPS).to_bytes(4, "little")
    content[length : length + 4] = (9 * FPS).to_bytes(4, "little")
    path.write_bytes(content)
    clip = ToClip(0, 10).read(path)
    assert (len(clip.frames), clip.damage) == (4, None)


class Pipe(io.RawIOBase):
    """What is written cannot be written again, as in a recording that is sent while it is made."""

    def __init__(self):
        self.content = b""

    def writable(self):
        return True

    def write(self, data):
        self.content += bytes(data)
        return len(data)


@pytest.mark.parametrize(
    ("form", "codecs", "options"),
    [
        ("matroska", ("libx264", "flac"), {}),
        ("webm", ("libvpx-vp9", "libopus"), {}),
        ("mp4", ("libx264", "aac"), {"movflags": "frag_keyframe+empty_moov+default_base_moof"}),
        ("avi", ("mpeg4", "mp2"), {}),
        ("flv", ("libx264", "aac"), {}),
    ],
)
def test_recordings_that_do_not_say_how_long_they_are_are_whole(tmp_path, form, codecs, options):
    pipe = Pipe()
    with av.open(pipe, "w", format=form, options=options) as file:
        video, sound = add_pictures(file, codecs[0]), add_sound(file, codecs[1])
        for second in range(4):
            pictures = clock(np.arange(FPS) / FPS + second)
            frames = list(video_frames(pictures, video))
            for frame in frames:
                frame.pts += second * FPS
            encode(file, video, frames, last=False)
            encode(file, sound, [sound_frame(tone(1.0), sound, 48000, second)], last=False)
        for stream in file.streams:
            encode(file, stream, [])
    path = tmp_path / "recording"
    path.write_bytes(pipe.content)
    clip = ToClip(0, 10).read(path)
    assert (len(clip.frames), clip.damage) == (4, None)
    assert len(clip.samples) == pytest.approx(4 * RATE, abs=0.06 * RATE)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_pictures_at_odd_times_are_whole(video, suffix):
    """The last picture stands until the file ends, which sound does later."""
    at = [0.0, 0.1, 0.45, 0.55, 1.2, 1.3, 2.9, 3.0]
    assert ToClip(0, 10).read(video(suffix, pictures=clock(at), times=at)).damage is None


def test_damage_after_the_clip_does_not_matter(video):
    path = video(".mp4", pictures=noisy(4))
    whole = ToClip(0, 1).read(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    cut = ToClip(0, 1).read(path)
    assert (cut.frames, cut.samples.tolist(), cut.damage) == (whole.frames, whole.samples.tolist(), None)


def test_damage_in_the_middle(video):
    """What came before is there, and nothing of what comes after."""
    path = video(".mp4", pictures=noisy(4))
    whole = ToClip(0, 10, frame_rate=10).read(path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = np.random.default_rng(0).bytes(3000)
    path.write_bytes(content)
    clip = ToClip(0, 10, frame_rate=10).read(path)
    assert 10 < len(clip.frames) < 25
    assert clip.frames[:10] == whole.frames[:10]
    np.testing.assert_array_equal(clip.samples[:RATE], whole.samples[:RATE])
    assert "damaged" in clip.damage or "Invalid data" in clip.damage


def test_damaged_frame(video):
    """The sound goes on where only the picture is damaged."""
    path = video(pictures=noisy(4))
    whole = ToClip(0, 10).read(path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = np.random.default_rng(0).bytes(200)
    path.write_bytes(content)
    clip = ToClip(0, 10).read(path)
    assert clip.damage == "picture: a damaged frame"
    assert clip.frames == whole.frames[: len(clip.frames)] and len(clip.frames) in (1, 2)
    np.testing.assert_array_equal(clip.samples, whole.samples)


def test_no_moov(video):
    """An MP4 file that ends before its index, which is at the end, says nothing at all."""
    path = video(".mp4")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"moov", b"none", 1))
    with pytest.raises(Unreadable, match="not a video or sound file"):
        ToClip(0, 10).read(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"<html>Video unavailable</html>" * 100, "not a video or sound file: Invalid data"),
        (np.random.default_rng(0).bytes(5000), "not a video or sound file"),
        (wav_bytes(b"\0\1" * 8000, sample_rate=0), "not a video or sound file: Invalid data"),
        (b"1\n00:00:00,000 --> 00:00:02,000\nA subtitle\n", "neither picture nor sound in it"),
    ],
)
def test_unreadable(tmp_path, content, reason):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(Unreadable, match=reason):
        ToClip(0, 10).read(path)


def test_absent_file_and_folder(tmp_path):
    with pytest.raises(Unreadable, match="No such file"):
        ToClip(0, 10).read(tmp_path / "absent.mp4")
    with pytest.raises(Unreadable, match="directory"):
        ToClip(0, 10).read(tmp_path)


@pytest.mark.parametrize("suffix", [".mp4", ".mpg"])
def test_clip_after_the_end(video, suffix):
    with pytest.raises(Unreadable, match="neither picture nor sound from 7 s to 9 s"):
        ToClip(7, 9).read(video(suffix))


def test_unknown_codec(video):
    path = video()
    path.write_bytes(path.read_bytes().replace(b"V_MPEG4/ISO/AVC", b"V_OTHER/ISO/AVC"))
    clip = ToClip(0, 10).read(path)
    assert (len(clip.frames), len(clip.samples), clip.damage) == (0, 4 * RATE, "picture: no decoder for it")


def test_huge_pictures(video):
    path = video()
    with pytest.raises(Unreadable, match="picture: 96x64 pixels, more than --max-pixels=6,143"):
        ToFrames(0, 10, max_pixels=96 * 64 - 1).read(path)
    clip = ToClip(0, 10, max_pixels=96 * 64 - 1).read(path)
    assert (len(clip.frames), len(clip.samples)) == (0, 4 * RATE)
    assert len(ToFrames(0, 10, max_pixels=96 * 64).read(path).frames) == 4


def test_sound_without_a_rate(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as file:
        video, sound = add_pictures(file), add_sound(file, "pcm_s16le")
        encode(file, video, video_frames(clock(np.arange(100) / FPS), video))
        encode(file, sound, [sound_frame(tone(4.0), sound, 48000)])
    content = path.read_bytes()
    rate = bytes([0xB5, 0x88]) + np.array(48000, ">f8").tobytes()  # Matroska's SamplingFrequency
    assert content.count(rate) == 1
    path.write_bytes(content.replace(rate, rate[:2] + bytes(8)))
    clip = ToClip(0, 10).read(path)
    assert (len(clip.frames), len(clip.samples)) == (4, 0)
    assert clip.damage.startswith("sound: ")


# --- frames alone, sound alone ----------------------------------------------------------------------------------------


def frames_alone(path, **options):
    return converted(ToFrames(0, 10, **options), path)


def sound_alone(path, **options):
    return converted(ToSound(0, 10, **options), path)


def converted(conversion, path):
    """What of a file comes to the dataset, and what the report says of damage."""
    result = conversion(path)
    data, notes = (result.data, result.notes) if isinstance(result, Noted) else (result, {})
    return conversion.value(data), notes.get(DAMAGED)


@pytest.mark.parametrize("suffix", FORMS)
def test_alone_as_together(video, suffix):
    """Neither is thought to be damaged because it ends before the other."""
    for path in (video(suffix), video(suffix, sound=tone(1.5)), video(suffix, seconds=1.5, sound=tone(4.0))):
        together = ToClip(0, 10, frame_rate=2, sample_rate=8000).read(path)
        assert together.damage is None
        assert frames_alone(path, frame_rate=2) == (together.frames, None)
        np.testing.assert_array_equal(sound_alone(path, sample_rate=8000)[0], together.samples)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_what_is_left_of_a_damaged_file(video, suffix):
    path = video(suffix, pictures=noisy(4))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    together = ToClip(0, 10).read(path)
    (frames, lost_picture), (sound, lost_sound) = frames_alone(path), sound_alone(path)
    assert frames == together.frames and lost_picture
    np.testing.assert_array_equal(sound, together.samples)
    assert lost_sound
    if suffix == ".mp4":  # the others only say how long all of it is
        assert lost_picture.startswith("picture: ") and "sound" not in lost_picture
        assert lost_sound.startswith("sound: ") and "picture" not in lost_sound


def test_both_of_which_one_may_be_absent(video):
    to_both = ToFramesAndSound(0, 10, names=("seen", "heard"))
    together = ToClip(0, 10).read(path := video())
    found = to_both.value(to_both(path))
    assert found["seen"] == together.frames
    np.testing.assert_array_equal(found["heard"], together.samples)
    silent = to_both(video(sound=None))
    assert list(to_both.value(silent.data)) == ["seen"]
    assert silent.notes == {NO_SOUND: "from 0 s to 10 s"}


def test_nothing_of_what_is_wanted(video):
    with pytest.raises(Unreadable, match="no sound from 0 s to 10 s"):
        sound_alone(video(sound=None))
    with pytest.raises(Unreadable, match="no picture from 0 s to 10 s"):
        frames_alone(video(pictures=None))


# --- second by second -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame_rate", "instants"),
    [
        (1, [[0.5], [1.5], [2.5], [3.5]]),
        (2.5, [[0.2, 0.6], [1.0, 1.4, 1.8], [2.2, 2.6], [3.0, 3.4, 3.8]]),
        (4, [np.arange(0.125, 1, 0.25) + second for second in range(4)]),
    ],
)
def test_second_by_second(video, frame_rate, instants):
    to_clip = ToClip(0, 4, frame_rate)
    clip = to_clip.read(video())
    for second, found in enumerate(to_clip.seconds(clip)):
        on_display = np.floor(np.array(instants[second]) * FPS + 1e-6) / FPS
        np.testing.assert_allclose(times(found), on_display, atol=TOLERANCE)
        np.testing.assert_array_equal(found.samples, clip.samples[second * RATE : (second + 1) * RATE])


@pytest.mark.parametrize(
    ("seen", "heard", "frames", "samples"),
    [
        (2.0, 2.0, [2, 2, 0, 0], [RATE, RATE, 0, 0]),
        (2.2, 2.4, [2, 2, 0, 0], [RATE, RATE, 0, 0]),  # 2.2 s is before the first of the instants 2.25 and 2.75
        (2.4, 2.5, [2, 2, 1, 0], [RATE, RATE, RATE // 2, 0]),
        (0.4, 0.4, [1, 0, 0, 0], [0, 0, 0, 0]),
        (None, 1.0, [0, 0, 0, 0], [RATE, 0, 0, 0]),
    ],
)
def test_less_than_half_of_a_second_does_not_count(video, seen, heard, frames, samples):
    pictures = seen and clock(np.arange(round(seen * FPS)) / FPS)
    to_clip = ToClip(0, 4, frame_rate=2)
    found = to_clip.seconds(to_clip.read(video(pictures=pictures, sound=tone(heard))))
    assert [len(second.frames) for second in found] == frames
    assert [len(second.samples) for second in found] == samples


# --- packing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "clip",
    [
        Clip([b"one", b"\n{}", b"3"], np.array([1, -2, 32767], np.int16)),
        Clip([], np.array([5], np.int16), "the damage is not packed"),
        Clip([b"one"], np.zeros(0, np.int16)),
    ],
)
def test_packed_and_unpacked(clip):
    found = Clip.unpack(clip.pack())
    assert (found.frames, found.samples.tolist()) == (clip.frames, clip.samples.tolist())
    assert found.samples.dtype == np.int16


def test_conversion_gives_the_clip(video):
    to_clip = ToClip(0, 2)
    path = video()
    clip = to_clip.value(to_clip(path))
    assert clip.frames == to_clip.read(path).frames
    assert repr(to_clip) != repr(ToClip(0, 3))  # by which finished work is found again
