"""Recipe of MultiBench's AV-MNIST models: a 28x28 image and a 112x112 spectrogram, each through a LeNet.

Batches have 48 rows, and not the 40 of MultiBench, so that thirds of them come out even.

Source: Liang et al., 2021, arXiv 2107.07502, `LeNet(1, 6, 3)` and `LeNet(1, 6, 5)`.
"""

from ml_collections import ConfigDict

from umemma_jax.config import default_config, tower_config

SIDE = 112  # of the spectrogram
HOP = 80  # samples at 8 kHz


def get_config() -> ConfigDict:
    """The recipe, for `--config=benchmarks/multibench.py`."""
    config = default_config()
    config.data.batch_size = 48
    config.modalities = ("image", "audio")
    config.inputs.image = tower_config({"name": "lenet", "channels": 6, "layers": 3})
    config.inputs.audio = tower_config(
        {"name": "lenet", "channels": 6, "layers": 5},
        {"n_mels": SIDE, "hop_length": HOP, "n_fft": 512},
        length=SIDE * HOP,
    )
    return config
