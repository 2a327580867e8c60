"""Small datasets with known content."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
