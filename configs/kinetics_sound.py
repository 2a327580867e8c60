"""Kinetics-Sound: what is seen and what is heard in clips of 10 s, of 31 or 27 classes; either may be missing.

python -m data_prep.kinetics_sound --raw=DIR --out=DATA
python main.py --config=configs/kinetics_sound.py --config.data.dir=DATA --workdir=DIR \\
    --config.inputs.video.encoder.pretrained=resnet18.pth --config.inputs.audio.encoder.pretrained=resnet18.pth

The recipes and the arguments are those of configs/ave.py, as in the public code, which trains on both datasets alike:
`resnets` (the default), `resnet_audionet`, `vit_ast` or `small`, and the method. E.g.
--config=configs/kinetics_sound.py:resnet_audionet,ume

Two ResNet-18s on complete data, as published: 65.6 % joint, 74.6 % for the best balanced training.
"""

from pathlib import Path

from ml_collections import ConfigDict

from umemma_jax.config import load

AVE = Path(__file__).with_name("ave.py")


def get_config(argument: str = "ume_mma") -> ConfigDict:
    """The recipe of one method with one pair of encoders."""
    config = load(f"{AVE}:{argument}")
    config.data.dir = "runs/data/kinetics_sound"
    config.data.prep = config.data.prep.replace("data_prep.ave", "data_prep.kinetics_sound")
    return config
