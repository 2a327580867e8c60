"""Reading photos: the pipeline against a plain loop in threads with Pillow, and the decoders alone.

python -m benchmarks.jpeg [--data=DIR] [--side=224] [--threads=N]

- loop: each thread opens a file's bytes with Pillow, decodes, resizes the shorter side, cuts the centre square; the
  squares are stacked to a batch;
- pipeline: the training batches of `umemma_jax.data.pipeline` from disk, which also reads and checks records;
- square: one photo's bytes to the square, one thread, by each of the two;
- decode: the same without resizing, by each library that is installed.

Photos are those of the training split of a prepared dataset with JPEG images, or else synthetic ones whose shorter
side is 256, what data_prep stores. The table gives medians; `per thread` is the rate of a core while there are no more
threads than cores.
"""

import argparse
import contextlib
import functools
import importlib.util
import io
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

from benchmarks import timing, workload
from umemma_jax import command
from umemma_jax.data import example, jpeg
from umemma_jax.data.dataset import Dataset, DatasetWriter, Modality, open_dataset
from umemma_jax.data.pipeline import train_batches
from umemma_jax.errors import UserError

WIDTH, HEIGHT = 341, 256
SYNTHETIC_PHOTOS = 512
BATCH_SIZE = 64
BATCHES = 16  # of a run; a few lie ready when it starts
PHOTOS = 128  # of a run of a decoder alone
SECONDS = 30.0


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = parse(argv)
    quick, side, threads = arguments.quick, arguments.side, arguments.threads
    batch_size, num_batches, num_photos = (8, 2, 8) if quick else (BATCH_SIZE, BATCHES, PHOTOS)
    with (
        dataset(arguments.data, 2 * batch_size if quick else SYNTHETIC_PHOTOS) as data,
        ThreadPoolExecutor(threads) as pool,
    ):
        name = photo_modality(data)
        files = list(itertools.islice(stored(data, name), num_batches * batch_size))
        some = files[:num_photos]
        batches = train_batches(data, "train", (name,), batch_size, 0, lengths={name: side}, threads=threads)
        runs = {
            f"loop, Pillow, {threads} thread(s)": (len(files), functools.partial(loop, files, batch_size, side, pool)),
            f"pipeline, {threads} thread(s)": (num_batches * batch_size, lambda: skip(batches, num_batches)),
            "square, Pillow": (len(some), lambda: [pillow_square(file, side) for file in some]),
            "square, ours": (len(some), lambda: [jpeg.decode(file, side) for file in some]),
        }
        for decoder, decode in decoders().items():
            runs[f"decode, {decoder}"] = (len(some), functools.partial(each, decode, some))
        seconds = timing.interleaved({name: run for name, (_, run) in runs.items()}, 0 if quick else SECONDS)
    rates = {name: count / np.median(seconds[name]) for name, (count, _) in runs.items()}
    print_rates(rates, side, threads, len(next(iter(seconds.values()))))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    summary, _, rest = __doc__.partition("\n\n")
    parser = command.Parser(description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="prepared dataset with JPEG images; default: synthetic photos")
    parser.add_argument("--side", type=int, default=224, help="of the squares, pixels, default %(default)s")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="that read, default %(default)s")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, to see that it works; the figures mean nothing"
    )
    return parser.parse_args(argv)


@contextlib.contextmanager
def dataset(path: str | None, photos: int) -> Iterator[Dataset]:
    """The prepared dataset named, or so many synthetic photos that are gone afterwards."""
    if path:
        yield open_dataset(path)
        return
    with tempfile.TemporaryDirectory(prefix="umemma_jax_benchmark_") as parent:
        folder = Path(parent) / "synthetic"
        modalities = {"image": Modality(kind="image", encoding="jpeg")}
        with DatasetWriter(
            folder, name="synthetic", description="Noise.", classes=["0"], modalities=modalities
        ) as writer:
            for number in range(photos):
                writer.write("train", id=str(number), label=0, image=jpeg.encode(synthetic_photo(number), quality=90))
        yield open_dataset(folder)


def synthetic_photo(seed: int) -> np.ndarray:
    """uint8 [256, 341, 3]: noise of equal variance at each of six scales, which takes about a photo's bytes."""
    rng, photo = np.random.default_rng(seed), np.full((HEIGHT, WIDTH, 3), 128.0)
    for scale in 2 ** np.arange(1, 7):
        noise = rng.integers(0, 256, (-(-HEIGHT // scale), -(-WIDTH // scale), 3), np.uint8)
        grown = Image.fromarray(noise).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        photo += 0.2 * (np.asarray(grown) - 128.0)
    return np.clip(photo, 0, 255).astype(np.uint8)


def photo_modality(data: Dataset) -> str:
    """The first modality that is JPEG images."""
    for name, modality in data.info.modalities.items():
        if (modality.kind, modality.encoding) == ("image", "jpeg"):
            return name
    raise UserError(f"--data={data.path}: no modality of JPEG images, choose another dataset")


def stored(data: Dataset, name: str) -> Iterator[bytes]:
    """The training split's files, over and over."""
    source = data.source("train")
    for row in itertools.cycle(range(len(source))):
        if file := example.bytes_value(source.features(row), name):
            yield file


def loop(files: Sequence[bytes], batch_size: int, side: int, pool: ThreadPoolExecutor) -> None:
    """All files to batches uint8 [B, S, S, 3]."""
    squares = pool.map(functools.partial(pillow_square, side=side), files)
    while len(batch := list(itertools.islice(squares, batch_size))):
        np.stack(batch)


def pillow_square(file: bytes, side: int) -> np.ndarray:
    """uint8 [S, S, 3], as a plain script would do it: decode, resize the shorter side, cut the centre."""
    with Image.open(io.BytesIO(file)) as opened:
        image = opened.convert("RGB")
    shorter = min(image.size)
    width, height = (round(size * side / shorter) for size in image.size)
    left, top = (width - side) // 2, (height - side) // 2
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized.crop((left, top, left + side, top + side)))


def decoders() -> dict[str, Callable[[bytes], np.ndarray]]:
    """Library -> file to pixels [H, W, 3], of those that are installed."""
    found = {"Pillow": lambda file: np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))}
    if importlib.util.find_spec("cv2"):
        import cv2

        found["OpenCV"] = lambda file: cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)
    return found | {"simplejpeg": simplejpeg.decode_jpeg}


def each(function: Callable[[bytes], Any], files: Sequence[bytes]) -> None:
    """Calls the function with each file."""
    for file in files:
        function(file)


def skip(batches: Iterator[Any], count: int) -> None:
    """Takes so many batches."""
    for _ in range(count):
        next(batches)


def print_rates(rates: dict[str, float], side: int, threads: int, rounds: int) -> None:
    """The table; each row is compared with Pillow's of the same group."""
    rows, reference = [], 1.0
    for name, rate in rates.items():
        if "Pillow" in name:
            reference = rate
        workers = threads if "thread" in name else 1
        rows.append((name, f"{rate:,.0f}", f"{rate / workers:,.0f}", f"{rate / reference:.2f}"))
    timing.print_table(
        f"JPEG photos to squares of {side} pixels: medians of {rounds} runs each",
        ("", "photos/s", "per thread", "rate / Pillow"),
        rows,
    )


if __name__ == "__main__":
    workload.run(main)
