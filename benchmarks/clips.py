"""Reading video clips: umemma_jax.data_prep.raw.clips against FFmpeg's own command line doing the same extraction.

python -m benchmarks.clips [--clips=N]

Both take from clips of 10 s (h264 and aac in mp4, 25 frames in a second) one frame of each second as a JPEG file whose
shorter side is 256 at most, and the sound as mono int16 at 16 kHz; each works on one file after another in one thread.
FFmpeg starts anew for each, as in a shell script, and writes files; raw.clips keeps the result in memory. The
table gives medians. Without the command `ffmpeg` there is nothing to compare with, and its rows are left out.
"""

import argparse
import functools
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from benchmarks import timing, workload
from benchmarks.jpeg import synthetic_photo
from umemma_jax import command
from umemma_jax.data_prep.raw.clips import ToClip

SIZES = ((340, 256), (1280, 720))  # of Kinetics' usual copies, and as YouTube has them
QUICK_SIZES = ((96, 64),)
CLIPS = 6
SIDE = 256
FRAME_RATE, SAMPLE_RATE, SOURCE_RATE = 25, 16000, 44100
SECONDS = 60.0  # per size
DURATION, QUICK_DURATION = 10, 2  # s of a clip


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = parse(argv)
    quick, count = arguments.quick, 2 if arguments.quick else arguments.clips
    duration = QUICK_DURATION if quick else DURATION
    rows = []
    with tempfile.TemporaryDirectory(prefix="umemma_jax_benchmark_") as folder:
        for size in QUICK_SIZES if quick else SIZES:
            paths = [
                write_clip(Path(folder) / f"{size[0]}x{size[1]}-{number}.mp4", size, duration, number)
                for number in range(count)
            ]
            runs = {"raw.clips": functools.partial(read_all, paths, ToClip(0, duration, size=SIDE))}
            if shutil.which("ffmpeg"):
                runs["ffmpeg"] = functools.partial(extract_all, paths, duration)
            seconds = timing.interleaved(runs, 0 if quick else SECONDS)
            reference = np.median(seconds["ffmpeg"]) if "ffmpeg" in seconds else None
            for name, values in seconds.items():
                taken = np.median(values)
                ratio = f"{taken / reference:.2f}" if reference else "-"
                rows.append((f"{size[0]}x{size[1]}, {name}", f"{count / taken:.2f}", str(len(values)), ratio))
    if not shutil.which("ffmpeg"):
        print("ffmpeg is not installed: nothing to compare with")
    timing.print_table(
        f"Clips of {duration} s to frames and sound: medians", ("", "clips/s per core", "rounds", "time / ffmpeg"), rows
    )


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    summary, _, rest = __doc__.partition("\n\n")
    parser = command.Parser(description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=CLIPS, help="of a run, default %(default)s")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, to see that it works; the figures mean nothing"
    )
    return parser.parse_args(argv)


def write_clip(path: Path, size: tuple[int, int], duration: int, seed: int) -> Path:
    """Encodes a view that wanders over a synthetic photo, with noise to be heard; returns the path."""
    width, height = size
    rng = np.random.default_rng(seed)
    photo = synthetic_photo(seed)
    tiles = np.tile(photo, (-(-2 * height // photo.shape[0]), -(-2 * width // photo.shape[1]), 1))
    with av.open(str(path), "w") as file:
        video = file.add_stream("libx264", FRAME_RATE, options={"preset": "veryfast"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = file.add_stream("aac", SOURCE_RATE)
        audio.layout = "stereo"
        for number in range(duration * FRAME_RATE):
            top, left = number * height // (duration * FRAME_RATE), number * width // (duration * FRAME_RATE)
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(tiles[top : top + height, left : left + width]), "rgb24"
            )
            frame.pts, frame.time_base = number, Fraction(1, FRAME_RATE)
            file.mux(video.encode(frame))
        file.mux(video.encode(None))
        sound = rng.integers(-(2**13), 2**13, (1, 2 * duration * SOURCE_RATE), np.int16)
        frame = av.AudioFrame.from_ndarray(sound, "s16", "stereo")
        frame.sample_rate, frame.pts, frame.time_base = SOURCE_RATE, 0, Fraction(1, SOURCE_RATE)
        file.mux(audio.encode(frame))
        file.mux(audio.encode(None))
    return path


def read_all(paths: Sequence[Path], to_clip: ToClip) -> None:
    """Each file to its frames and sound, as a process of the preparation does it."""
    for path in paths:
        to_clip(path)


def extract_all(paths: Sequence[Path], duration: int) -> None:
    """Each file to JPEG and WAV files, by one command."""
    for path in paths:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            subprocess.run(ffmpeg(path, Path(folder), duration), check=True)


def ffmpeg(path: Path, folder: Path, duration: int) -> list[str]:
    """FFmpeg's, for one thread."""
    scale = f"scale='if(gt(iw,ih),-2,min({SIDE},iw))':'if(gt(iw,ih),min({SIDE},ih),-2)':flags=lanczos"
    options = ["-nostdin", "-loglevel", "error", "-threads", "1", "-filter_threads", "1"]
    picture = ["-map", "0:v:0", "-vf", f"fps=1:start_time=0,{scale}", "-threads", "1", "-q:v", "2"]
    sound = ["-map", "0:a:0", "-ac", "1", "-ar", str(SAMPLE_RATE), "-c:a", "pcm_s16le"]
    return [
        "ffmpeg", *options, "-t", str(duration), "-i", str(path),
        *picture, str(folder / "%03d.jpg"), *sound, str(folder / "sound.wav"),
    ]  # fmt: skip


if __name__ == "__main__":
    workload.run(main)
