"""Recipes for any prepared dataset: encoders and settings by what its modalities are."""

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from umemma_jax.config import apply_method, default_config, tower_config
from umemma_jax.data import example
from umemma_jax.data.dataset import Dataset, Modality, open_dataset
from umemma_jax.data.info import Info
from umemma_jax.data.ngrams import NGRAMS, NGrams
from umemma_jax.errors import UserError
from umemma_jax.model import encoder_module, field_types
from umemma_jax.weights import files, hub, recognition

PRETRAINED = {"image": ("vit", "resnet"), "video": ("vit", "resnet"), "audio": ("ast", "audionet"), "text": ("bert",)}
PRETRAINED_INPUTS = {  # kind -> lengths and preprocessing
    "image": ({"length": 256}, {"crop": 224, "flip": True}),
    "video": ({"length": 224}, {"frames": 3, "flip": True}),
    "text": ({"length": 128, "buckets": (32, 64)}, {}),
}
SCRATCH_SCALE = 20.0  # on the learning rate of pre-trained encoders
PHOTO_SIDE = 64  # pixels, of frames too
FRAMES = 3  # of a video
LOOKED_AT = 1000  # training texts, for how many n-grams they have
MOST_NGRAMS = 512
WIDEST_TABLE = 4096  # numbers that the embeddings of all columns have together, if there are not many columns


def small(folder: str, method: str = "ume_mma") -> ConfigDict:
    """The recipe of one method for a prepared dataset: encoders that learn from scratch, on a few cores.

    Raises:
      UserError: there is no such dataset, or no such method.
    """
    config, _ = _for_dataset(folder)
    config.unimodal.epochs = 15
    config.unimodal.learning_rate = 1e-3
    config.fusion.epochs = 8
    config.fusion.learning_rate = 5e-4
    config.dropout = 0.3
    apply_method(config, method)
    return config


def base(folder: str, method: str = "ume_mma", checkpoints: str | Mapping[str, str] = "") -> ConfigDict:
    """As `small`, with pre-trained encoders where there is a checkpoint for a modality, in bfloat16 on accelerators.

    Args:
      folder: of the prepared dataset.
      method: name in `METHODS`.
      checkpoints: modality -> a checkpoint's folder or file, or `hf://OWNER/NAME`; or one folder, of whose subfolders
        each modality takes the first, by name, that is of its kind.

    Raises:
      UserError: as `small`, or no modality has a checkpoint.
    """
    config, info = _for_dataset(folder)
    found = {name: _checkpoint(checkpoints, name, modality.kind) for name, modality in info.modalities.items()}
    if not any(found.values()):
        raise UserError(
            f"checkpoints={checkpoints!r}: none for {', '.join(config.modalities)}: name a folder with checkpoints "
            f"({', '.join(PRETRAINED)}), or one for each modality, as in {{'title': 'hf://OWNER/NAME'}}"
        )
    for name, checkpoint in found.items():
        if checkpoint is None:
            # From scratch it learns as fast as in `small`, beside encoders that are only tuned.
            config.inputs[name].learning_rate_scale = {"unimodal": SCRATCH_SCALE, "fusion": SCRATCH_SCALE}
        else:
            config.inputs[name] = _pretrained(*checkpoint, info.modalities[name])
    for stage in (config.unimodal, config.fusion):
        stage.epochs = 5
        stage.learning_rate = 5e-5
        stage.weight_decay = 0.01
    config.dropout = 0.1
    apply_method(config, method)
    return config


def _for_dataset(folder: str) -> tuple[ConfigDict, Info]:
    """What all presets have in common, with encoders from scratch; and what the dataset says of itself."""
    dataset = open_dataset(folder, prep="python -m data_prep.table --table=... --label=...")
    info = dataset.info
    config = default_config()
    config.data.dir = folder
    config.data.validation_split = "val" if "val" in info.splits else ""
    examples = info.splits["train"].examples if "train" in info.splits else 0  # 0: refused when it is built
    eighth = max(1, examples // 8)
    config.data.batch_size = min(64, 1 << (eighth.bit_length() - 1))  # a power of two, for any number of devices
    config.modalities = tuple(info.modalities)
    for name, modality in info.modalities.items():
        config.inputs[name] = TOWERS[modality.kind](dataset, name)
    return config, info


# --- pre-trained encoders ---------------------------------------------------------------------------------------------


def _checkpoint(checkpoints: str | Mapping[str, str], name: str, kind: str) -> tuple[str, str] | None:
    """Family and place of a modality's checkpoint; None where there is none for it."""
    families = PRETRAINED.get(kind, ())
    if isinstance(checkpoints, Mapping):
        if name not in checkpoints:
            return None
        place = str(hub.local(checkpoints[name]))
        return recognition.family_of(files.open_weights(place), families), place
    if checkpoints and not Path(checkpoints).is_dir():
        raise UserError(f"checkpoints={checkpoints!r}: no such folder: name one with checkpoints in it")
    folders = sorted(path for path in Path(checkpoints).iterdir() if path.is_dir()) if checkpoints else []
    for path in folders:
        with contextlib.suppress(UserError):  # a folder of something else
            return recognition.family_of(files.open_weights(path), families), str(path)
    return None


def _pretrained(family: str, checkpoint: str, modality: Modality) -> dict[str, Any]:
    dtype = "bfloat16" if jax.default_backend() != "cpu" else "float32"
    fields = {"dtype": dtype} if "dtype" in field_types(encoder_module(family).Model) else {}
    encoder = {"name": family, "pretrained": checkpoint, **fields}
    lengths, preprocess = PRETRAINED_INPUTS.get(modality.kind, ({}, {}))
    return tower_config(encoder, preprocess, **lengths)


# --- encoders from scratch --------------------------------------------------------------------------------------------


def image(dataset: Dataset, name: str) -> dict[str, Any]:
    """As many convolutions as the size allows, at most four."""
    modality = dataset.info.modalities[name]
    side = min(modality.shape[:2]) if modality.shape else PHOTO_SIDE
    encoder = {"name": "lenet", "channels": 16, "layers": max(1, min(3, side.bit_length() - 2))}
    return tower_config(encoder, {"shift": side / 16}, length=0 if modality.shape else PHOTO_SIDE)


def video(dataset: Dataset, name: str) -> dict[str, Any]:
    """Four convolutions on each of a few frames."""
    encoder = {"name": "lenet", "channels": 16, "layers": 3}
    return tower_config(encoder, {"frames": FRAMES, "shift": PHOTO_SIDE / 16}, length=PHOTO_SIDE)


def audio(dataset: Dataset, name: str) -> dict[str, Any]:
    """Convolutions on a log-mel spectrogram of 25 ms frames, every 10 ms; at most four."""
    modality = dataset.info.modalities[name]
    window, hop = max(2, modality.sample_rate // 40), max(1, modality.sample_rate // 100)
    frames = -(-modality.max_samples // hop)
    channels = (16, 32, 64, 128)[: max(1, frames.bit_length() - 2)]
    spectrogram = {"win_length": window, "hop_length": hop, "n_fft": 1 << window.bit_length(), "n_mels": 32}
    augmentation = {"shift": 0.1, "time_mask": 0.1, "freq_mask": 0.1}
    return tower_config({"name": "spectrogram_cnn", "channels": channels}, {**spectrogram, **augmentation})


def text(dataset: Dataset, name: str) -> dict[str, Any]:
    """TF-IDF of n-grams, of which 99 in 100 training texts have no more than are kept, unless that is MOST_NGRAMS."""
    length = min(MOST_NGRAMS, _ngrams(dataset, name))
    encoder = {"name": "bag_of_words", "width": 64}
    tower = tower_config(encoder, length=length, buckets=(length // 2,), tokenizer=NGRAMS)
    if dataset.info.multi_label:
        tower["learning_rate_scale"]["unimodal"] = 3.0  # its losses are means over classes, most of which are rare
    return tower


def _ngrams(dataset: Dataset, name: str) -> int:
    """The 99 % quantile of the numbers of n-grams in training texts, in steps of 32."""
    if "train" not in dataset.info.splits:
        return MOST_NGRAMS  # refused when it is built
    source = dataset.source("train")
    some = np.unique(np.linspace(0, len(source) - 1, LOOKED_AT).astype(int)) if len(source) else []
    values = (example.bytes_value(row, name) for row in source.examples(some))
    counts = NGrams().count([value.decode() for value in values if value is not None])
    return 32 * max(1, math.ceil(np.quantile(counts, 0.99) / 32)) if len(counts) else 32


def tabular(dataset: Dataset, name: str) -> dict[str, Any]:
    """Two dense layers on embedded columns; or on numbers without names, those of a list, which are of one scale."""
    columns = dataset.info.modalities[name].columns
    if columns is None:
        return tower_config({"name": "mlp"})
    embedding = max(4, min(16, WIDEST_TABLE // len(columns)))
    # Values are dropped so that what stands for a missing one is learned of every column.
    return tower_config({"name": "tabular_mlp", "embedding": embedding}, {"form": "columns", "drop": 0.1})


TOWERS = {"image": image, "video": video, "audio": audio, "text": text, "tabular": tabular}
