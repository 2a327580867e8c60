"""UPMC Food101: a photo of a dish and the title of the web page it is from, either of which may be missing.

python -m data_prep.food101 --raw=DIR --out=DATA
python main.py --config=configs/food101.py --config.data.dir=DATA --workdir=DIR \\
    --config.inputs.image.encoder.pretrained=DIR/vit-base-patch16-224 \\
    --config.inputs.text.encoder.pretrained=DIR/bert-base-uncased

Arguments, joined by commas: `small`, encoders that learn from scratch on a few thousand examples, on 2 cores; and the
method, `late_fusion`, `ume`, `augmentation` or `ume_mma` (the default). E.g. --config=configs/food101.py:small,ume
"""

from ml_collections import ConfigDict

from umemma_jax.config import apply_method, default_config, form_and_method, tower_config


def get_config(argument: str = "ume_mma") -> ConfigDict:
    """The recipe of one method, for accelerators or `small`."""
    form, method = form_and_method(argument, ("large", "small"))
    config = default_config()
    config.data.dir = "runs/data/food101"
    config.data.prep = "umemma_jax.data_prep.food101 --raw=DIR"
    config.data.validation_split = "val"
    config.data.batch_size = 64
    config.modalities = ("image", "text")
    if form == "small":
        small(config)
    else:
        large(config)
    apply_method(config, method)
    return config


def large(config: ConfigDict) -> None:
    """ViT-B/16 and BERT-base from checkpoints, in bfloat16."""
    config.inputs.image = tower_config(
        encoder={"name": "vit", "pretrained": "runs/checkpoints/vit-base-patch16-224", "dtype": "bfloat16"},
        preprocess={"crop": 224, "flip": True},
        length=256,
    )
    config.inputs.text = tower_config(
        encoder={"name": "bert", "pretrained": "runs/checkpoints/bert-base-uncased", "dtype": "bfloat16"},
        length=40,
    )
    for stage in (config.unimodal, config.fusion):
        stage.epochs = 5
        stage.learning_rate = 5e-5
        stage.weight_decay = 0.01
        stage.label_smoothing = 0.1
    config.dropout = 0.1


def small(config: ConfigDict) -> None:
    """Four convolutions on 64x64 pixels, and word embeddings."""
    config.inputs.image = tower_config(
        encoder={"name": "lenet", "channels": 16, "layers": 3},
        preprocess={"flip": True},
        length=64,
        framing="whole",
    )
    config.inputs.text = tower_config(
        encoder={"name": "word_embeddings", "width": 256},
        length=32,
    )
    config.inputs.text.learning_rate_scale.unimodal = 5.0
    config.unimodal.epochs = 12
    config.unimodal.label_smoothing = 0.1  # not in the fusion stage: the sum of two smoothed logits is right as it is
    config.fusion.epochs = 6
    config.fusion.learning_rate = 1e-4
    for stage in (config.unimodal, config.fusion):
        stage.ema = 0.99
    config.dropout = 0.4
