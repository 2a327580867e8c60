"""Small datasets with known content."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from umemma_jax import checksums
from umemma_jax.data import example, tfrecord
from umemma_jax.data.dataset import Dataset, DatasetWriter, Modality, open_dataset
from umemma_jax.data.tokenizer import Tokenizer, load_tokenizer

CLASSES = ("zero", "one", "two")
MODALITIES = {
    "image": Modality(kind="image", encoding="raw", shape=(3, 4, 2)),
    "audio": Modality(kind="audio", encoding="pcm_s16le", sample_rate=8000),
    "table": Modality(kind="tabular", encoding="float32", shape=(5,)),
}


def make_examples(n: int, *, missing: bool = False, multi_label: bool = False) -> list[dict[str, Any]]:
    """Arguments for `DatasetWriter.write`. With `missing`, each modality is absent from about a third."""
    rng = np.random.default_rng(n)
    examples = []
    for i in range(n):
        values = {
            "image": rng.integers(0, 256, (3, 4, 2), np.uint8),
            "audio": rng.integers(-(2**15), 2**15, rng.integers(1, 40)).astype(np.int16),
            "table": rng.normal(size=5).astype(np.float32),
        }
        if missing and rng.random() < 0.9:
            del values[("image", "audio", "table")[i % 3]]
        label = np.flatnonzero(rng.random(3) < 0.4).tolist() if multi_label else i % 3
        examples.append({"id": f"example {i}", "label": label, **values})
    return examples


def write_dataset(path: Path, *, overwrite: bool = False, **splits: list[dict[str, Any]]) -> Dataset:
    """Writes examples in several small shards per split; multi-label if the first label is a list."""
    first = next(iter(splits.values()))[0]
    with DatasetWriter(
        path,
        name="small",
        description="Random values.",
        classes=CLASSES,
        modalities=MODALITIES,
        multi_label=isinstance(first["label"], list),
        source={"seed": 0},
        overwrite=overwrite,
        shard_bytes=1500,
    ) as writer:
        for split, examples in splits.items():
            for example in examples:
                writer.write(split, **example)
    return open_dataset(path)


def edit(path: Path, **changes) -> None:
    """Changes fields of dataset.json, checksum and all, as who means harm can; None removes one."""
    data = json.loads((path / "dataset.json").read_text()) | changes
    data = {name: value for name, value in data.items() if value is not None}
    (path / "dataset.json").write_text(json.dumps(checksums.seal(data)))


def unsealed(dataset: Dataset) -> Dataset:
    """What lies in the dataset's folder now, described as in version 1: without checksums."""
    file, rows = dataset.path / "dataset.json", dataset.path / "rows.npz"
    data = json.loads(file.read_text()) | {"format_version": 1}
    for split in data["splits"].values():
        for shard in split["shards"]:
            for name in ("crc32c", "last_crc32c", "index_crc32c"):
                del shard[name]
            shard["bytes"] = (dataset.path / shard["file"]).stat().st_size
    del data["crc32c"], data["files"]
    file.write_text(json.dumps(data))
    if rows.exists():
        arrays = dict(np.load(rows))
        np.savez(rows, **{name: array for name, array in arrays.items() if not name.endswith("/checksums")})
    return open_dataset(dataset.path)


def replace_records(dataset: Dataset, features: dict[str, Any]) -> Dataset:
    """A dataset of version 1 without rows.npz, whose training shard has two records: a good one, and one of these."""
    writer = tfrecord.RecordWriter(dataset.path / dataset.info.splits["train"].shards[0].file)
    writer.write(example.encode({"id": b"good", "label": [1]}))
    writer.write(example.encode(features))
    writer.close()
    (dataset.path / "rows.npz").unlink()
    return unsealed(dataset)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory) -> Tokenizer:
    """BERT's, with few words: padding is 1, a text is 2 ... 3, an unknown word 0, "red" 4 ... "é" 8."""
    file = tmp_path_factory.mktemp("tokenizer") / "vocab.txt"
    file.write_text("[UNK]\n[PAD]\n[CLS]\n[SEP]\nred\nblue\nshoe\n##s\né\n", encoding="utf-8")
    (file.parent / "tokenizer_config.json").write_text('{"strip_accents": false}')
    return load_tokenizer(file.parent)


@pytest.fixture
def flip_byte() -> Callable[[Path, int], None]:
    """Changes one byte of a file."""

    def flip(path: Path, position: int) -> None:
        data = bytearray(path.read_bytes())
        data[position] ^= 0x10
        path.write_bytes(data)

    return flip
