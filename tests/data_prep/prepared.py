"""Reading prepared datasets back."""

from typing import NamedTuple

import numpy as np

from umemma_jax.data.dataset import open_dataset
from umemma_jax.data.example import bytes_value, int64_values


class Example(NamedTuple):
    id: str
    label: int
    image: np.ndarray  # uint8 [H, W, C]
    audio: np.ndarray  # int16 [S]

    @property
    def recording(self):
        return self.id.split("+")[0]

    @property
    def image_number(self):
        return int(self.id.split("+")[1])


def read_split(folder, split):
    dataset = open_dataset(folder)
    shape = dataset.info.modalities["image"].shape
    source = dataset.source(split)
    examples = []
    for row in range(len(source)):
        features = source.features(row)
        (label,) = int64_values(features, "label")
        image = np.frombuffer(bytes_value(features, "image"), np.uint8).reshape(shape)
        audio = np.frombuffer(bytes_value(features, "audio"), "<i2")
        examples.append(Example(bytes_value(features, "id").decode(), label, image, audio))
    return examples


def contents(folder):
    """File name -> bytes, of the shards."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tfrecord"))}


def read_features(folder, split):
    """Every example as a dict: id, label (list or None), and the modalities present; text as str, others as stored."""
    dataset = open_dataset(folder)
    source = dataset.source(split)
    examples = []
    for row in range(len(source)):
        features = source.features(row)
        example = {"id": bytes_value(features, "id").decode(), "label": int64_values(features, "label")}
        for name, modality in dataset.info.modalities.items():
            value = bytes_value(features, name)
            if value is not None:
                example[name] = value.decode() if modality.kind == "text" else bytes(value)
        examples.append(example)
    return examples
