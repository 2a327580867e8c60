"""AV-MNIST: a written digit (MNIST, 28x28) and the same digit spoken (FSDD, 8 kHz), either of which may be missing.

python -m data_prep.av_mnist --mnist=DIR --fsdd=DIR --out=DATA
python main.py --config=configs/av_mnist.py --config.data.dir=DATA --workdir=DIR

About a minute on 2 cores. On `small`, mean of 5 seeds: 99.8 % complete, 97.2 % image alone, 98.6 % sound alone.

Arguments `:late_fusion`, `:ume`, `:augmentation` and `:ume_mma` (the default) choose the method.
"""

from ml_collections import ConfigDict

from umemma_jax.config import apply_method, default_config, tower_config


def get_config(method: str = "ume_mma") -> ConfigDict:
    """The recipe of one method, for the small variant (1,050 training pairs)."""
    config = default_config()
    config.data.dir = "runs/data/av_mnist"
    config.data.prep = "umemma_jax.data_prep.av_mnist --mnist=DIR --fsdd=DIR"
    config.data.batch_size = 64

    config.modalities = ("image", "audio")
    config.inputs.image = tower_config(
        encoder={"name": "lenet", "channels": 8, "layers": 2},
        preprocess={"shift": 3},
    )
    config.inputs.audio = tower_config(
        encoder={"name": "spectrogram_cnn", "channels": (8, 16, 32, 64)},
        preprocess={"n_mels": 32, "hop_length": 125, "shift": 0.2, "time_mask": 0.1, "freq_mask": 0.1},
        length=8000,
    )

    config.unimodal.epochs = 60
    config.unimodal.learning_rate = 2e-3
    config.fusion.epochs = 30
    config.fusion.learning_rate = 1e-3

    apply_method(config, method)
    return config
