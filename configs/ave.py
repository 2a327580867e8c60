"""AVE: what is seen and what is heard of an event, in clips of 10 s, either of which may be missing.

python -m data_prep.ave --raw=DIR --out=DATA
python main.py --config=configs/ave.py --config.data.dir=DATA --workdir=DIR \\
    --config.inputs.video.encoder.pretrained=resnet18.pth --config.inputs.audio.encoder.pretrained=resnet18.pth

Arguments, joined by commas: the encoders, and the method, `late_fusion`, `ume`, `augmentation` or `ume_mma` (the
default). E.g. --config=configs/ave.py:small,ume

- `resnets` (the default): two ResNet-18s on 3 frames and a spectrogram, as github.com/GeWu-Lab/OGM-GE_CVPR2022; from
  scratch, or from torchvision's ImageNet weights when they are given as above.
- `resnet_audionet`: ResNet-18 on 1 frame, AudioNet on the waveform, as github.com/YapengTian/AV-Robustness-CVPR21. The
  data are prepared with --rate=11025.
- `vit_ast`: ViT-B/16 and AST from checkpoints, in bfloat16, for accelerators.
- `small`: encoders that learn from scratch on a few hundred clips, on 2 cores. On 600 of data_prep.rendered_clips, mean
  of 3 seeds: 96 % complete, 84 % video alone, 90 % sound alone, in about three minutes each.

Data of --clip=segment train as they are, to classify seconds. A recipe that takes more than that gets the one frame
several times, and silence after the sound; to spare its computation:
--config.inputs.video.preprocess.frames=1 --config.inputs.audio.length=16000
"""

from ml_collections import ConfigDict

from umemma_jax.config import apply_method, default_config, form_and_method, tower_config

# Of ImageNet's pixels; torchvision's weights do not state it.
IMAGENET = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}


def get_config(argument: str = "ume_mma") -> ConfigDict:
    """The recipe of one method with one pair of encoders."""
    encoders, method = form_and_method(argument, tuple(ENCODERS))
    config = default_config()
    config.data.dir = "runs/data/ave"
    config.data.prep = "umemma_jax.data_prep.ave --raw=DIR"
    config.data.validation_split = "val"
    config.data.batch_size = 64
    config.modalities = ("video", "audio")
    ENCODERS[encoders](config)
    apply_method(config, method)
    return config


def resnets(config: ConfigDict) -> None:
    """Two ResNet-18s: 3 frames of 224x224 pixels, and 3 s of sound as 257 bins in 299 frames."""
    config.inputs.video = tower_config(
        encoder={"name": "resnet"},
        preprocess={**IMAGENET, "frames": 3, "crop": 224, "resized_crop": 0.92, "flip": True},
        length=256,
    )
    config.inputs.audio = tower_config(
        encoder={"name": "resnet", "first_layer": "average"},  # ImageNet's has three channels
        preprocess={"form": "stft", "hop_length": 159, "centre": False, "mean": -4.503877, "std": 2 * 5.141276},
        length=3 * 16000,
    )
    # There, 100 epochs at 1e-3, and at a tenth of it from the 70th on. Here the rate warms up and falls as a cosine in
    # each of the two stages, and gradients are clipped.
    config.unimodal.epochs = 70
    config.fusion.epochs = 30
    for stage in (config.unimodal, config.fusion):
        stage.optimizer = "sgd"
        stage.learning_rate = 1e-3
        stage.weight_decay = 1e-4


def resnet_audionet(config: ConfigDict) -> None:
    """ResNet-18 on a frame of 224x224 pixels, AudioNet on 5.9 s of sound at 11,025 Hz."""
    config.data.prep = "umemma_jax.data_prep.ave --raw=DIR --rate=11025"
    config.inputs.video = tower_config(
        encoder={"name": "resnet", "pool": "max"},
        preprocess={**IMAGENET, "frames": 1, "crop": 224, "flip": True},
        length=256,
    )
    config.inputs.audio = tower_config(
        encoder={"name": "audionet"},
        preprocess={"form": "waveform"},
        length=65535,
    )
    for scale in ("unimodal", "fusion"):
        config.inputs.video.learning_rate_scale[scale] = 0.1  # 1e-4
    # There, 30 epochs, with the rate at a tenth from the 10th on and at a hundredth from the 20th. Here it warms up and
    # falls as a cosine in each of the two stages, and gradients are clipped.
    config.unimodal.epochs = 20
    config.fusion.epochs = 10
    for stage in (config.unimodal, config.fusion):
        stage.optimizer = "sgd"
        stage.learning_rate = 1e-3
        stage.weight_decay = 1e-4


def vit_ast(config: ConfigDict) -> None:
    """ViT-B/16 on 3 frames and AST on 10 s of sound, from checkpoints, in bfloat16."""
    config.inputs.video = tower_config(
        encoder={"name": "vit", "pretrained": "runs/checkpoints/vit-base-patch16-224", "dtype": "bfloat16"},
        preprocess={"frames": 3, "crop": 224, "flip": True},
        length=256,
    )
    config.inputs.audio = tower_config(
        encoder={"name": "ast", "pretrained": "runs/checkpoints/ast-audioset-10-10-0.4593", "dtype": "bfloat16"},
        preprocess={"form": "fbank", "time_mask": 0.19, "freq_mask": 0.37},  # 192 frames and 48 bins, as AST's authors
        length=10 * 16000,
    )
    config.unimodal.epochs = 10
    config.fusion.epochs = 5
    for stage in (config.unimodal, config.fusion):
        stage.learning_rate = 5e-5
        stage.weight_decay = 0.01
        stage.label_smoothing = 0.1
    config.dropout = 0.1


def small(config: ConfigDict) -> None:
    """Four convolutions on 3 frames of 48x48 pixels, and four on a log-mel spectrogram."""
    config.data.batch_size = 32
    config.inputs.video = tower_config(
        encoder={"name": "lenet", "channels": 12, "layers": 3},
        preprocess={"frames": 3, "shift": 4},
        length=48,
        framing="whole",
    )
    config.inputs.audio = tower_config(
        encoder={"name": "spectrogram_cnn", "channels": (12, 24, 48, 96)},
        preprocess={"win_length": 512, "hop_length": 160, "n_mels": 40, "time_mask": 0.2, "freq_mask": 0.2},
    )
    config.unimodal.epochs = 25
    config.unimodal.learning_rate = 2e-3
    config.fusion.epochs = 10
    config.fusion.learning_rate = 5e-4
    for stage in (config.unimodal, config.fusion):
        stage.label_smoothing = 0.1
    config.dropout = 0.3


ENCODERS = {"resnets": resnets, "resnet_audionet": resnet_audionet, "vit_ast": vit_ast, "small": small}
