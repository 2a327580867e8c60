"""Recipe of two transformers of 12 layers, narrow: deep enough that compiling takes a while, and trained on any core.

28x28 pixels in patches of 4, and a spectrogram of 112x112 in patches of 16: about 50 tokens each. `:vit_small` has the
layers of ViT-Small (Touvron et al. 2021) and half the patches' side, so as many tokens as that has of 224x224 pixels.
"""

from ml_collections import ConfigDict

from benchmarks.multibench import HOP, SIDE
from umemma_jax.config import default_config, tower_config

ENCODER = {"name": "vit", "width": 128, "depth": 12, "heads": 4, "mlp_width": 512}


VIT_SMALL = {"name": "vit", "width": 384, "depth": 12, "heads": 6, "mlp_width": 1536}


def get_config(argument: str = "") -> ConfigDict:
    """The recipe; `:scan` compiles one layer of each encoder, which is scanned over the others. Also `:vit_small`."""
    is_small = argument == "vit_small"
    encoder = {**(VIT_SMALL if is_small else ENCODER), "scan": argument == "scan"}
    image_patch, audio_patch = (2, 8) if is_small else (4, 16)
    config = default_config()
    config.data.batch_size = 6
    config.modalities = ("image", "audio")
    config.inputs.image = tower_config({**encoder, "patch": image_patch})
    config.inputs.audio = tower_config(
        {**encoder, "patch": audio_patch}, {"n_mels": SIDE, "hop_length": HOP, "n_fft": 512}, length=SIDE * HOP
    )
    return config
