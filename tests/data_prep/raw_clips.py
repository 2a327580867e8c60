"""Hand-made video files that can be read like a clock: pictures whose brightness, and sound whose pitch, are known."""

import io
from fractions import Fraction

import av
import numpy as np
from PIL import Image

from umemma_jax.data.dataset import open_dataset
from umemma_jax.data.example import bytes_value, bytes_values, int64_values

DARKEST, PER_SECOND = 30, 40  # brightness at 0 s, and what each second adds
FORMS = {  # suffix -> codecs of picture and sound
    ".mp4": ("libx264", "aac"),
    ".mkv": ("libx264", "flac"),
    ".webm": ("libvpx-vp9", "libopus"),
    ".mpg": ("mpeg1video", "mp2"),
    ".avi": ("mpeg4", "mp2"),
    ".ts": ("libx264", "mp2"),
}
FASTEST = {"libx264": {"preset": "ultrafast", "crf": "12"}, "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"}}


def brightness(time):
    return np.clip(DARKEST + PER_SECOND * np.asarray(time), 0, 255)


def time_of(frame):
    """The time, in seconds, that a JPEG file of a clock's picture shows."""
    return (np.asarray(Image.open(io.BytesIO(frame)).convert("L")).mean() - DARKEST) / PER_SECOND


def clock(times, size=(96, 64)):
    """Pictures uint8 [H, W, 3], as bright as their times say."""
    width, height = size
    return [np.full((height, width, 3), round(float(brightness(time))), np.uint8) for time in times]


def tone(seconds, hertz=440.0, rate=48000, channels=1, amplitude=0.4):
    """Sound, int16 [S, channels]."""
    wave = 32767 * amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    return np.repeat(np.rint(wave).astype(np.int16)[:, np.newaxis], channels, axis=1)


def write_video(
    path, pictures=None, sound=None, fps=25, rate=48000, times=None, rotation=0, pixel_aspect=None, delay=0
):
    """Writes a file with a stream of pictures, or of sound, or both; returns its path.

    Args:
      path: its suffix is a key of FORMS.
      pictures: uint8 [H, W, 3] each.
      sound: int16 [S, channels].
      fps: pictures in a second.
      rate: Hz.
      times: seconds of the pictures; None goes by `fps`.
      rotation: degrees counter-clockwise to turn the pictures by for display.
      pixel_aspect: width of a pixel by its height.
      delay: seconds by which the sound comes later.
    """
    video_codec, audio_codec = FORMS[path.suffix]
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"movflags": "+faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=options) as file:
        if pictures is not None:
            height, width, _ = pictures[0].shape
            video = add_pictures(file, video_codec, 1000 if times else fps, (width, height))
            if rotation:
                video.set_display_rotation(rotation)
            if pixel_aspect:
                video.codec_context.sample_aspect_ratio = pixel_aspect
        if sound is not None:
            audio = add_sound(file, audio_codec, rate, sound.shape[1])
        frames = []  # second by second, or what comes late in a long file would be found too late
        if pictures is not None:
            frames += [(frame.time, video, frame) for frame in video_frames(pictures, video, times)]
        if sound is not None:
            seconds = [sound[start : start + rate] for start in range(0, len(sound), rate)]
            frames += [
                (delay + at, audio, sound_frame(part, audio, rate, delay + at)) for at, part in enumerate(seconds)
            ]
        for _, stream, frame in sorted(frames, key=lambda entry: entry[0]):
            encode(file, stream, [frame], last=False)
        for stream in file.streams:
            encode(file, stream, [])
    return path


def add_pictures(file, codec="libx264", fps=25, size=(96, 64)):
    """A stream whose timestamps count in 1 / `fps` s."""
    stream = file.add_stream(codec, fps, options=FASTEST.get(codec, {}))
    stream.width, stream.height = size
    odd = size[0] % 2 or size[1] % 2
    stream.pix_fmt = {"libx264": "yuv444p" if odd else "yuv420p", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
    stream.codec_context.time_base = Fraction(1, fps)
    stream.codec_context.bit_rate = 2_000_000
    return stream


def add_sound(file, codec="flac", rate=48000, channels=1):
    stream = file.add_stream(codec, rate)
    stream.layout = {1: "mono", 2: "stereo"}[channels]
    return stream


def video_frames(pictures, stream, times=None):
    """Frames to encode, one after another or at `times`."""
    for number, picture in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(picture, "rgb24")
        frame.time_base = stream.codec_context.time_base
        frame.pts = round(times[number] / frame.time_base) if times else number
        yield frame


def sound_frame(sound, stream, rate, delay=0):
    """A frame to encode, all of the sound, from `delay` seconds on."""
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound.reshape(1, -1)), "s16", stream.layout.name)
    frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), round(delay * rate)
    return frame


def encode(file, stream, frames, last=True):
    """Writes frames; with `last`, also what the encoder holds back."""
    for frame in [*frames, None] if last else frames:
        file.mux(stream.encode(frame))


def write_clip(path, number):
    """A file of 0.4 s whose picture and sound tell its number, from 0 to 30."""
    picture = np.full((32, 48, 3), round(float(brightness(number / 6))), np.uint8)
    return write_video(path, [picture] * 10, tone(0.4, 400 + 100 * number))


def read_clips(folder, split):
    """Every example as a dict: id, label, and what is present of video (a list of JPEG files) and audio (int16 [S])."""
    source = open_dataset(folder).source(split)
    examples = []
    for row in range(len(source)):
        features = source.features(row)
        example = {"id": bytes_value(features, "id").decode(), "label": int64_values(features, "label")[0]}
        if (frames := bytes_values(features, "video")) is not None:
            example["video"] = frames
        if (sound := bytes_value(features, "audio")) is not None:
            example["audio"] = np.frombuffer(sound, "<i2")
        examples.append(example)
    return examples


def numbers_of(example):
    """The numbers that picture and sound of an example tell; None for what is missing."""
    seen = heard = None
    if "video" in example:
        seen = round(6 * time_of(example["video"][0]))
    if "audio" in example:
        samples = example["audio"]
        hertz = np.argmax(np.abs(np.fft.rfft(samples * np.hanning(len(samples))))) * 16000 / len(samples)
        heard = round((hertz - 400) / 100)
    return seen, heard


AVE_CLASSES = ("Bark", "Church bell", "Flute")
AVE_LISTS = {"train": "trainSet.txt", "val": "valSet.txt", "test": "testSet.txt"}


def write_ave(folder, per_class=(4, 1, 2), suffix=".mkv"):
    """Clips and lists of a few classes in the layout of AVE; returns split -> rows (category, video, start, end)."""
    rows, number = {}, 0
    for split, count in zip(AVE_LISTS, per_class, strict=True):
        rows[split] = []
        for _ in range(count):
            for category in AVE_CLASSES:
                video = f"video{number:06d}"
                write_clip(folder / "AVE" / f"{video}{suffix}", number)
                rows[split].append((category, video, 0, 10))
                number += 1
    write_ave_lists(folder, rows)
    return rows


def write_ave_lists(folder, rows):
    lines = {
        split: [f"{category}&{video}&good&{start}&{end}\n" for category, video, start, end in of_split]
        for split, of_split in rows.items()
    }
    for split, of_split in lines.items():
        (folder / AVE_LISTS[split]).write_text("".join(of_split))
    every = "".join(line for of_split in lines.values() for line in of_split)
    (folder / "Annotations.txt").write_text("Category&VideoID&Quality&StartTime&EndTime\n" + every)
