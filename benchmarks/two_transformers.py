"""Recipe of two transformers of 12 layers, narrow: deep enough that compiling takes a while, and trained on any core.

28x28 pixels in patches of 4, and a spectrogram of 112x112 in patches of 16: about 50 tokens each.
"""

from ml_collections import ConfigDict

from benchmarks.multibench import HOP, SIDE
from umemma_jax.config import default_config, tower_config

ENCODER = {"name": "vit", "width": 128, "depth": 12, "heads": 4, "mlp_width": 512}


def get_config(argument: str = "") -> ConfigDict:
    """The recipe; `:scan` compiles one layer of each encoder, which is scanned over the others."""
    encoder = {**ENCODER, "scan": argument == "scan"}
    config = default_config()
    config.data.batch_size = 6
    config.modalities = ("image", "audio")
    config.inputs.image = tower_config({**encoder, "patch": 4})
    config.inputs.audio = tower_config(
        {**encoder, "patch": 16}, {"n_mels": SIDE, "hop_length": HOP, "n_fft": 512}, length=SIDE * HOP
    )
    return config
