"""A prepared dataset of a few dozen examples and a recipe that trains on it in seconds."""

import numpy as np
from ml_collections import ConfigDict

from umemma_jax.config import default_config, tower_config
from umemma_jax.data.dataset import DatasetWriter, Modality

CLASSES = 3


def write_dataset(path, train=96, test=41, missing_share=0.0, seed=0, weights=None, overwrite=False):
    """Images with a bright row, tones and vectors, all by class and in noise; some modalities absent by nature."""
    rng = np.random.default_rng(seed)
    modalities = {
        "image": Modality(kind="image", encoding="raw", shape=(8, 8, 1)),
        "audio": Modality(kind="audio", encoding="pcm_s16le", sample_rate=8000),
        "vector": Modality(kind="tabular", encoding="float32", shape=(CLASSES,)),
    }
    about = {"name": "small", "description": "For tests.", "classes": ["a", "b", "c"]}
    with DatasetWriter(path, **about, modalities=modalities, overwrite=overwrite) as writer:
        for split, count in {"train": train, "test": test}.items():
            for number in range(count):
                label = number % CLASSES
                image = rng.integers(0, 100, (8, 8, 1))
                image[2 * label + 1] += 150
                time = np.arange(int(rng.integers(600, 800))) / 8000
                tone = 3000 * np.sin(2 * np.pi * (500 + 700 * label) * time) + 2000 * rng.normal(size=time.size)
                vector = np.eye(CLASSES)[label] + 0.5 * rng.normal(size=CLASSES)
                values = {
                    "image": image.astype(np.uint8),
                    "audio": tone.astype(np.int16),
                    "vector": vector.astype(np.float32),
                }
                if rng.random() < missing_share:
                    del values[("image", "audio")[number % 2]]
                weight = weights[number] if split == "train" and weights is not None else None
                writer.write(split, id=f"{split}{number}", label=label, sample_weight=weight, **values)


def get_config(path, **changes):
    """The recipe; changes name fields such as `fusion__epochs=1`."""
    config = default_config()
    config.data.dir = str(path)
    config.data.batch_size = 16
    config.modalities = ("image", "audio")
    config.inputs.image = tower_config({"name": "lenet", "channels": 8, "layers": 1})
    config.inputs.audio = tower_config({"name": "lenet", "channels": 4, "layers": 2}, {"n_mels": 16}, length=800)
    config.unimodal.epochs = 4
    config.unimodal.learning_rate = 5e-3
    config.fusion.epochs = 4
    config.evaluation.batch_size = 16
    config.evaluation.seeds = 2
    config.log_every = 1
    config.checkpoint_every = 3
    for field, value in changes.items():
        *parents, last = field.split("__")
        target = config
        for parent in parents:
            target = target[parent]
        target[last] = value
    return ConfigDict(config)
