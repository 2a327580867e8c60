"""MM-IMDb: a movie's poster and plot, either of which may be missing; several genres each.

python -m data_prep.mm_imdb --raw=DIR --out=DATA
python main.py --config=configs/mm_imdb.py --config.data.dir=DATA --workdir=DIR \\
    --config.inputs.image.encoder.pretrained=DIR/vit-base-patch16-224 \\
    --config.inputs.text.encoder.pretrained=DIR/bert-base-uncased

Arguments, joined by commas: `small`, encoders that learn from scratch on a few thousand examples, on 2 cores; and the
method, `late_fusion`, `ume`, `augmentation` or `ume_mma` (the default). E.g. --config=configs/mm_imdb.py:small,ume
"""

from ml_collections import ConfigDict

from umemma_jax.config import apply_method, default_config, form_and_method, tower_config


def get_config(argument: str = "ume_mma") -> ConfigDict:
    """The recipe of one method, for accelerators or `small`."""
    form, method = form_and_method(argument, ("large", "small"))
    config = default_config()
    config.data.dir = "runs/data/mm_imdb"
    config.data.prep = "umemma_jax.data_prep.mm_imdb --raw=DIR"
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
    """ViT-B/16 and BERT-base from checkpoints, in bfloat16; plots are long."""
    config.inputs.image = tower_config(
        encoder={"name": "vit", "pretrained": "runs/checkpoints/vit-base-patch16-224", "dtype": "bfloat16"},
        preprocess={"crop": 224, "flip": True},
        length=256,
    )
    config.inputs.text = tower_config(
        encoder={"name": "bert", "pretrained": "runs/checkpoints/bert-base-uncased", "dtype": "bfloat16"},
        length=512,
        buckets=(128, 256),
    )
    config.data.window = 16
    for stage in (config.unimodal, config.fusion):
        stage.epochs = 5
        stage.learning_rate = 5e-5
        stage.weight_decay = 0.01
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
        length=64,
        buckets=(16, 32),
    )
    config.inputs.text.learning_rate_scale = {"unimodal": 4.0, "fusion": 0.25}
    for stage in (config.unimodal, config.fusion):
        stage.learning_rate = 2e-3
        stage.ema = 0.99
    config.unimodal.epochs = 20
    config.fusion.epochs = 15
    config.dropout = 0.5
