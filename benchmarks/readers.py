"""The pipeline alone by the number of threads that read: arrays, photos and clips, from disk and over HTTP.

python -m benchmarks.readers [--threads=1,2,4,...] [--latency=SECONDS]

- arrays: 28x28 pixels and up to a second of sound at 8 kHz, stored as they are;
- photos: JPEG files whose shorter side is 256, to squares of 224;
- clips: ten such photos each;
- texts: as long as a plot of a film, to 128 tokens;
- disk: from files that the operating system holds in memory; http: from a server on this machine; far: from one that
  answers each request so many seconds late, as an object store does.

A run reads batches from a fresh iterator, more of them the more threads there are. The table gives the median of the
examples in a second; `auto` says how many threads `config.data.threads = 0` takes.
"""

import argparse
import contextlib
import dataclasses
import functools
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks import http_server, timing, workload
from benchmarks.jpeg import synthetic_photo
from umemma_jax import command
from umemma_jax.data import jpeg
from umemma_jax.data.dataset import Dataset, DatasetWriter, Modality, open_dataset
from umemma_jax.data.pipeline import reading_threads, train_batches
from umemma_jax.data.tokenizer import Tokenizer, load_tokenizer

SECONDS = 120.0
LATENCY = 0.03


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of data: how many examples there are, how many make a batch, and what a batch needs to know."""

    examples: int
    batch_size: int
    batches: int  # of a run, per thread
    lengths: Mapping[str, int] = dataclasses.field(default_factory=dict)


KINDS = {
    "arrays": Kind(2000, 64, 30),
    "photos": Kind(512, 64, 8, {"image": 224}),
    "clips": Kind(64, 8, 6, {"frames": 224}),
    "texts": Kind(2000, 64, 30, {"text": 128}),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    arguments = parse(argv)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="umemma_jax_benchmark_")))
        write(folder, arguments.quick)
        places = {
            "disk": str(folder),
            "http": stack.enter_context(http_server.serving(folder)),
            "far": stack.enter_context(http_server.serving(folder, arguments.latency)),
        }
        tokenizer = load_tokenizer(folder / "vocab.txt")
        runs, chosen, sizes = {}, {}, {}
        for place, root in places.items():
            for name, kind in KINDS.items():
                if arguments.quick:
                    kind = dataclasses.replace(kind, batch_size=2, batches=2)
                data = open_dataset(f"{root}/{name}")
                chosen[name, place] = reading_threads(data, tuple(data.info.modalities))
                for threads in arguments.threads:
                    runs[name, place, threads] = functools.partial(read, data, kind, tokenizer, threads)
                    sizes[name, place, threads] = kind.batch_size * kind.batches * threads
        seconds = timing.interleaved(runs, 0 if arguments.quick else SECONDS)
    rates = {key: sizes[key] / np.median(values) for key, values in seconds.items()}
    timing.print_table(
        f"Examples/s by threads that read: medians of {len(next(iter(seconds.values())))} runs each",
        ("", *map(str, arguments.threads), "auto"),
        [
            (f"{name}, {place}", *[f"{rates[name, place, threads]:,.0f}" for threads in arguments.threads], str(auto))
            for (name, place), auto in chosen.items()
        ],
    )


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    summary, _, rest = __doc__.partition("\n\n")
    parser = command.Parser(description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    powers = ",".join(str(2**n) for n in range((2 * cores).bit_length()))
    parser.add_argument("--threads", type=numbers, default=powers, metavar="N,N,...", help="default %(default)s")
    parser.add_argument("--latency", type=float, default=LATENCY, help="of `far`, in seconds, default %(default)s")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, to see that it works; the figures mean nothing"
    )
    return parser.parse_args(argv)


def numbers(text: str) -> list[int]:
    """1,2,4 -> [1, 2, 4]."""
    return [int(number) for number in text.split(",")]


def write(folder: Path, quick: bool) -> None:
    """One prepared dataset per kind, and a vocabulary."""
    counts = {name: 8 if quick else kind.examples for name, kind in KINDS.items()}
    workload.write_synthetic(folder / "arrays", {"train": counts["arrays"]})
    rng = np.random.default_rng(0)
    files = [jpeg.encode(synthetic_photo(seed), quality=90) for seed in range(counts["photos"])]
    words = [f"w{number}" for number in range(1000)]
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words]))
    values = {
        "photos": ("image", Modality("image", "jpeg"), files),
        "clips": (
            "frames",
            Modality("video", "jpeg", frame_rate=1.0),
            [[files[i] for i in rng.integers(len(files), size=10)] for _ in range(counts["clips"])],
        ),
        "texts": (
            "text",
            Modality("text", "utf-8"),
            [" ".join(rng.choice(words, 120)) for _ in range(counts["texts"])],
        ),
    }
    for name, (modality, description, examples) in values.items():
        with DatasetWriter(
            folder / name, name=name, description="Noise.", classes=["0"], modalities={modality: description}
        ) as writer:
            for number, value in enumerate(examples):
                writer.write("train", id=str(number), label=0, **{modality: value})


def read(data: Dataset, kind: Kind, tokenizer: Tokenizer, threads: int) -> None:
    """Takes batches from a new iterator, so many per thread."""
    tokenizers = {"text": tokenizer} if "text" in kind.lengths else None
    batches = train_batches(
        data,
        "train",
        tuple(data.info.modalities),
        kind.batch_size,
        seed=0,
        lengths=kind.lengths,
        tokenizers=tokenizers,
        threads=threads,
    )
    for _ in range(kind.batches * threads):
        next(batches)
    batches.close()


if __name__ == "__main__":
    workload.run(main)
