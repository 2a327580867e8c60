"""Saved models of any recipe without a training: fresh variables with noise on them, on a dataset of a few examples."""

import dataclasses

import jax
import numpy as np

from umemma_jax import experiment
from umemma_jax.data import example, jpeg
from umemma_jax.data.dataset import DatasetWriter, Modality
from umemma_jax.data.kinds import stores_list
from umemma_jax.evaluation.pattern_calibration import PatternCalibration
from umemma_jax.evaluation.sigma_calibration import SigmaCalibration
from umemma_jax.patterns import pattern_names
from umemma_jax.saved_model import SavedModel
from umemma_jax.training import train

ROWS = 24  # of a split
LETTERS = "abcdefgh"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
LEVELS = {"colour": {"red": 10, "green": 5, "blue": 2}}
MODALITIES = {
    "image": Modality("image", "jpeg"),
    "digit": Modality("image", "raw", shape=(8, 8, 1)),
    "video": Modality("video", "jpeg", frame_rate=1.0),
    "audio": Modality("audio", "pcm_s16le", sample_rate=16000),
    "text": Modality("text", "utf-8"),
    "table": Modality("tabular", "float32", shape=(3,), columns=("price", "weight", "colour"), levels=LEVELS),
}
# Sizes of encoders under which nothing takes long.
TRANSFORMER = {"width": 24, "depth": 1, "heads": 2, "mlp_width": 32}
NARROW = {"vit": TRANSFORMER, "bert": TRANSFORMER, "ast": TRANSFORMER} | {
    "resnet": {"width": 4},
    "audionet": {"channels": (4, 4, 4, 4)},
    "bag_of_words": {"width": 8},
}


def write_dataset(folder, modalities, **about):
    """Noise, with the labels of three classes unless `about` says otherwise.

    Args:
      folder: to make.
      modalities: name -> key of MODALITIES.
      about: other `classes`, `multi_label` or `targets`.
    """
    rng = np.random.default_rng(0)
    about = {"name": "noise", "description": "For tests.", "classes": ["a", "b", "c"], **about}
    modalities = {name: (MODALITIES[key], VALUES[key]) for name, key in modalities.items()}
    known = {name: modality for name, (modality, _) in modalities.items()}
    with DatasetWriter(folder, modalities=known, **about) as writer:
        for split in ("train", "val", "test"):
            for number in range(ROWS):
                values = {name: value(rng) for name, (_, value) in modalities.items()}
                writer.write(split, id=f"{split}{number}", label=_label(about, number), **values)


def _label(about, number):
    if "targets" in about:
        return [float(number + place) for place in range(len(about["targets"]))]
    return [number % 3] if about.get("multi_label") else number % 3


def _frame(rng):
    return jpeg.encode(rng.integers(0, 256, (70, 80, 3), np.uint8))


def _words(rng):
    return " ".join("".join(rng.choice([*LETTERS], 3)) for _ in range(rng.integers(1, 20)))


def _numbers(rng):
    return np.array([rng.choice([np.nan, rng.normal()]), rng.normal(), rng.integers(3)], np.float32)


VALUES = {
    "image": _frame,
    "digit": lambda rng: rng.integers(0, 256, (8, 8, 1), np.uint8),
    "video": lambda rng: [_frame(rng) for _ in range(rng.integers(1, 5))],
    "audio": lambda rng: rng.integers(-9000, 9000, rng.integers(2000, 16000)).astype(np.int16),
    "text": _words,
    "table": _numbers,
}


def shrink(config, folder):
    """Makes a recipe's encoders narrow, and gives texts that have no tokenizer one, in the folder."""
    config.data.batch_size = 8
    for name in config.modalities:
        recipe = config.inputs[name]
        fields = {key: value for key, value in recipe.encoder.to_dict().items() if key != "pretrained"}
        recipe.encoder = {**fields, **NARROW.get(fields["name"], {})}
        if MODALITIES.get(name) == MODALITIES["text"] and not recipe.tokenizer:
            (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
            recipe.tokenizer = str(folder / "vocab.txt")


def saved_model(config, is_calibrated=True):
    """The model, as it would be saved, and the stored values of the test split's rows, modality -> value."""
    built = experiment.build(config)
    rng, task = np.random.default_rng(1), built.task
    variables = jax.tree.map(lambda x: _noisy(rng, np.asarray(x)), train.initial_variables(built))
    fitted = (_intervals if task.targets else _temperatures)(rng, built) if is_calibrated else None
    quality = dict.fromkeys(pattern_names(built.modalities), 0.5)
    model = SavedModel(
        config=built.config,
        info=built.dataset.info,
        inputs=built.inputs,
        module=built.model,
        variables=variables,
        ceilings=None,
        means=built.means,
        calibration=fitted,
        quality=quality,
        log_prior=built.log_prior(),
        validation=None,
        required=(),
        method="ume_mma",
        headline="accuracy",
    )
    return model, _stored(built)


def with_required(model, *required):
    """The same model, which answers nothing without these modalities."""
    return dataclasses.replace(model, required=required)


def _noisy(rng, x):
    return (x + 0.05 * rng.normal(size=x.shape)).astype(x.dtype)


def _temperatures(rng, built):
    names = tuple(pattern_names(built.modalities))
    temperatures, quantiles = rng.uniform(0.3, 3, len(names)), rng.uniform(0.4, 0.9, len(names))
    temperatures[0] = quantiles[0] = np.nan  # no example has all of it
    several = built.task.multi_label
    thresholds = rng.uniform(0.2, 0.8, (len(names), len(built.task.classes))) if several else None
    return PatternCalibration(names, temperatures, thresholds, quantiles, 0.1, ROWS)


def _intervals(rng, built):
    names = tuple(pattern_names(built.modalities))
    scales, quantiles = rng.uniform(0.5, 2, (2, len(names), len(built.task.targets)))
    scales[0] = quantiles[0] = np.nan
    return SigmaCalibration(names, scales, quantiles, 0.1, ROWS)


def _stored(built):
    features = built.dataset.source("test").examples(range(ROWS))
    modalities = built.dataset.info.modalities
    read = {m: example.bytes_values if stores_list(modalities[m]) else example.bytes_value for m in built.modalities}
    return [{m: read[m](row, m) for m in read} for row in features]
