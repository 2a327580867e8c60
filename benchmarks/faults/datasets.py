"""Bits flipped and bytes replaced in any file of a prepared dataset, which is then read from its first to its last."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.faults.trial import flipped, outcome
from umemma_jax.data.dataset import DatasetWriter, Modality, open_dataset
from umemma_jax.data.tokenizer import TOKENIZER, load_tokenizer

COUNT = 10_000
EXAMPLES = {"train": 30, "test": 6}
_MODALITIES = {
    "image": Modality(kind="image", encoding="raw", shape=(3, 4, 2)),
    "audio": Modality(kind="audio", encoding="pcm_s16le", sample_rate=8000),
    "table": Modality(kind="tabular", encoding="float32", shape=(5,)),
    "title": Modality(kind="text", encoding="utf-8"),
}
_TOKENIZER = """{"version": "1.0", "pre_tokenizer": {"type": "Whitespace"}, "model": {"type": "WordLevel",
"vocab": {"[PAD]": 0, "[UNK]": 1, "title": 2, "red": 3}, "unk_token": "[UNK]"}}"""


def run(rng: np.random.Generator, count: int, folder: Path) -> Iterator[tuple[str, str, str]]:
    """Yields (kind of file, outcome, what was said) of so many damaged datasets."""
    path = folder / "dataset"
    write(path, rng)
    expected = read(path)
    for file in sorted(path.rglob("*")):  # so that what is made anew while reading does not take part
        file.chmod(0o444)
    path.chmod(0o555)
    files = sorted(path.iterdir())
    for number in range(count):
        file = files[number % len(files)]
        with flipped(file, rng, whole_byte=bool(rng.integers(2))):
            yield (file.suffix, *outcome(lambda: read(path), lambda found: found == expected))


def write(path: Path, rng: np.random.Generator) -> None:
    """Makes a dataset of several shards, in which every modality is absent now and then."""
    with DatasetWriter(
        path, name="small", description="Ünicode.", classes=("a", "b"), modalities=_MODALITIES, shard_bytes=2000
    ) as writer:
        writer.add_file(TOKENIZER, _TOKENIZER.encode())
        for split, number in EXAMPLES.items():
            for i in range(number):
                values = {
                    "image": rng.integers(0, 256, (3, 4, 2), np.uint8),
                    "audio": rng.integers(-(2**15), 2**15, 1 + i).astype(np.int16),
                    "table": rng.normal(size=5).astype(np.float32),
                    "title": f"title {i}",
                }
                values.pop(list(values)[i % 5], None) if i % 5 < 4 else None
                writer.write(split, id=f"{split} {i}", label=i % 2, **values)


def read(path: Path) -> str:
    """A digest of all that can be read of a dataset."""
    dataset = open_dataset(path)
    digest = hashlib.sha256(repr(dataset.info).encode())
    for name, mean in sorted(dataset.statistics.items()):
        digest.update(name.encode() + mean.tobytes())
    dataset.check_file(TOKENIZER)
    for ids in load_tokenizer(path).encode(["red title"], 4).values():
        digest.update(ids.tobytes())
    for split in dataset.info.splits:
        source = dataset.source(split)
        digest.update(source.labels().tobytes() + source.present(list(_MODALITIES)).tobytes())
        digest.update(repr(source.ids()).encode())
        for record in source.records(range(len(source))):
            digest.update(record)
    return digest.hexdigest()
