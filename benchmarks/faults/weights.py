"""Bits flipped in a converted folder that the user names, in one of the cache, and bytes in the source's headers.

The source has no checksums, so what is flipped in its values cannot be found: only that nothing ends in a traceback is
looked at there.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.trial import flipped, outcome
from umemma_jax.data.tokenizer import load_tokenizer
from umemma_jax.weights import convert, files
from umemma_jax.weights.pretrained import Converted, obtain

COUNT = 600  # half of them in the folder
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz")
WIDTH, MLP, DEPTH, POSITIONS = 8, 12, 2, 16
CONFIG = {
    "model_type": "distilbert",
    "dim": WIDTH,
    "hidden_dim": MLP,
    "n_layers": DEPTH,
    "n_heads": 2,
    "max_position_embeddings": POSITIONS,
}


def run(rng: np.random.Generator, count: int, folder: Path) -> Iterator[tuple[str, str, str]]:
    """Yields (kind, outcome, what was said) for `count` damaged files."""
    source, ours, cache = folder / "source", folder / "ours", folder / "cache"
    write_source(source, rng)
    convert.convert("bert", source, ours)
    expected = read(Converted(ours))
    cached = obtain("bert", source, {}, cache).folder

    def same(found: Any) -> bool:
        return all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))

    places = [
        ("converted folder", ours, lambda: read(Converted(ours)), same, 2),
        ("cache", cached, lambda: read(obtain("bert", source, {}, cache)), same, 4),
        ("source, tracebacks alone", source, lambda: obtain("bert", source, {}, folder / "other"), lambda _: True, 4),
    ]
    for kind, place, reading, is_same, share in places:
        for _ in range(count // share):
            path = rng.choice(sorted(file for file in place.rglob("*") if file.is_file()))
            with flipped(path, rng, whole_byte=place == source):
                yield kind, *outcome(reading, is_same)


def read(converted: Converted) -> list[Any]:
    """All that comes out of a converted folder."""
    card, tokenizer = converted.card, load_tokenizer(converted.folder)
    tokens = tokenizer.encode(["a b", "c"], 8)
    arrays = converted.arrays
    return [*(arrays[name] for name in sorted(arrays)), *tokens.values(), json.dumps(vars(card), sort_keys=True)]


def write_source(folder: Path, rng: np.random.Generator) -> None:
    """A small DistilBERT with its config.json and tokenizer."""
    shapes = {
        "embeddings.word_embeddings.weight": (len(WORDS), WIDTH),
        "embeddings.position_embeddings.weight": (POSITIONS, WIDTH),
    }
    norms = ["embeddings.LayerNorm"]
    for index in range(DEPTH):
        layer = f"transformer.layer.{index}"
        norms += [f"{layer}.sa_layer_norm", f"{layer}.output_layer_norm"]
        linear = {f"attention.{name}_lin": (WIDTH, WIDTH) for name in "qkv"} | {"attention.out_lin": (WIDTH, WIDTH)}
        for name, shape in (linear | {"ffn.lin1": (MLP, WIDTH), "ffn.lin2": (WIDTH, MLP)}).items():
            shapes |= {f"{layer}.{name}.weight": shape, f"{layer}.{name}.bias": shape[:1]}
    shapes |= {f"{name}.{part}": (WIDTH,) for name in norms for part in ("weight", "bias")}
    folder.mkdir()
    arrays = (rng.normal(size=shape).astype(np.float32) for shape in shapes.values())
    files.write_safetensors(folder / "model.safetensors", list(shapes), arrays)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "DistilBertTokenizer"}')
