"""Recipes for any prepared dataset: encoders and settings by what its modalities are."""

from typing import Any

from ml_collections import ConfigDict

from umemma_jax.config import apply_method, default_config, tower_config
from umemma_jax.data.dataset import Modality, open_dataset

PHOTO_SIDE = 64  # pixels, of frames too
FRAMES = 3  # of a video
LONGEST_TEXT = 64  # tokens


def small(folder: str, method: str = "ume_mma") -> ConfigDict:
    """The recipe of one method for a prepared dataset: encoders that learn from scratch, on a few cores.

    Raises:
      UserError: there is no such dataset, or no such method.
    """
    info = open_dataset(folder, prep="python -m data_prep.table --table=... --label=...").info
    config = default_config()
    config.data.dir = folder
    config.data.validation_split = "val" if "val" in info.splits else ""
    examples = info.splits["train"].examples if "train" in info.splits else 0  # 0: refused when it is built
    eighth = max(1, examples // 8)
    config.data.batch_size = min(64, 1 << (eighth.bit_length() - 1))  # a power of two, for any number of devices

    config.modalities = tuple(info.modalities)
    for name, modality in info.modalities.items():
        config.inputs[name] = TOWERS[modality.kind](modality)
        config.inputs[name].learning_rate_scale.unimodal = 3.0 if modality.kind == "text" else 1.0

    config.unimodal.epochs = 15
    config.unimodal.learning_rate = 1e-3
    config.fusion.epochs = 8
    config.fusion.learning_rate = 5e-4
    config.dropout = 0.3

    apply_method(config, method)
    return config


def image(modality: Modality) -> dict[str, Any]:
    """As many convolutions as the size allows, at most four."""
    side = min(modality.shape[:2]) if modality.shape else PHOTO_SIDE
    encoder = {"name": "lenet", "channels": 16, "layers": max(1, min(3, side.bit_length() - 2))}
    return tower_config(encoder, {"shift": side / 16}, length=0 if modality.shape else PHOTO_SIDE)


def video(modality: Modality) -> dict[str, Any]:
    """Four convolutions on each of a few frames."""
    encoder = {"name": "lenet", "channels": 16, "layers": 3}
    return tower_config(encoder, {"frames": FRAMES, "shift": PHOTO_SIDE / 16}, length=PHOTO_SIDE)


def audio(modality: Modality) -> dict[str, Any]:
    """Convolutions on a log-mel spectrogram of 25 ms frames, every 10 ms; at most four."""
    window, hop = max(2, modality.sample_rate // 40), max(1, modality.sample_rate // 100)
    frames = -(-modality.max_samples // hop)
    channels = (16, 32, 64, 128)[: max(1, frames.bit_length() - 2)]
    spectrogram = {"win_length": window, "hop_length": hop, "n_fft": 1 << window.bit_length(), "n_mels": 32}
    augmentation = {"shift": 0.1, "time_mask": 0.1, "freq_mask": 0.1}
    return tower_config({"name": "spectrogram_cnn", "channels": channels}, {**spectrogram, **augmentation})


def text(modality: Modality) -> dict[str, Any]:
    """Sum of word embeddings."""
    return tower_config({"name": "word_embeddings"}, length=LONGEST_TEXT, buckets=(16, 32))


def tabular(modality: Modality) -> dict[str, Any]:
    """Two dense layers."""
    return tower_config({"name": "mlp"})


TOWERS = {"image": image, "video": video, "audio": audio, "text": text, "tabular": tabular}
