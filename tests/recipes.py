"""The shipped recipes at small widths, on small datasets of what they take."""

import io

import numpy as np
from PIL import Image

from tests import small_run
from umemma_jax import config as config_lib
from umemma_jax.data.dataset import DatasetWriter, Modality

BATCH, CLASSES = 48, 7
TRANSFORMER = {"width": 32, "depth": 2, "heads": 2, "mlp_width": 48}
TRANSFORMERS = ("vit", "ast", "bert")
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b")

# Recipe -> dataset; what is not small is by depth, since shapes cost nothing where nothing is compiled.
RECIPES = {
    "av_mnist.py": "digits",
    "ave.py:resnets": "clips",
    "ave.py:resnet_audionet": "clips",
    "ave.py:vit_ast": "clips",
    "food101.py": "clips",
    "food101.py:small": "clips",
    "mm_imdb.py": "labels",
}
LAYOUTS = {"stratified": ("stratified", 0), "random": ("random", 0), "compacted": ("random", 1)}


def write_datasets(path):
    """`clips` with frames, sound, a picture and a text, the same with several `labels`, and `digits`."""
    small_run.write_dataset(path / "digits", train=4 * BATCH, test=BATCH)
    rng = np.random.default_rng(0)
    modalities = {
        "image": Modality(kind="image", encoding="jpeg"),
        "text": Modality(kind="text", encoding="utf-8"),
        "video": Modality(kind="video", encoding="jpeg", frame_rate=1.0),
        "audio": Modality(kind="audio", encoding="pcm_s16le", sample_rate=16000),
    }
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(file, "jpeg")
    values = {
        "image": file.getvalue(),
        "text": "a b b a",
        "video": [file.getvalue()] * 3,
        "audio": rng.integers(-(2**13), 2**13, 16000, np.int16),
    }
    classes = [str(number) for number in range(CLASSES)]
    for multi_label in (False, True):
        name = "labels" if multi_label else "clips"
        with DatasetWriter(
            path / name, name=name, description="", classes=classes, modalities=modalities, multi_label=multi_label
        ) as writer:
            for number in range(4 * BATCH):
                split = ("train", "train", "val", "test")[number // BATCH]
                label = number % CLASSES
                writer.write(split, id=str(number), label=[label] if multi_label else label, **values)
    (path / "vocab.txt").write_text("\n".join(WORDS))


def load(folder, recipe, layout="stratified", **encoder):
    """A recipe without checkpoints, on a dataset of `write_datasets`; `encoder`: fields of its transformers."""
    config = config_lib.load(f"configs/{recipe}")
    config.data.dir, config.data.batch_size, config.evaluation.batch_size = str(folder / RECIPES[recipe]), BATCH, BATCH
    config.data.prepare = False
    config.missing.layout, config.missing.capacities = LAYOUTS[layout]
    for name in config.modalities:
        fields = config.inputs[name].encoder
        if "pretrained" in fields:
            fields.pretrained = ""
        if fields.name in TRANSFORMERS:
            fields.update(TRANSFORMER | encoder)
        if name == "text":
            config.inputs.text.tokenizer = str(folder / "vocab.txt")
    return config
