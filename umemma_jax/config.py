"""The recipe's fields with their defaults, and the checks that need no data.

A config file starts from `default_config()` and sets what differs; it is locked, so a misspelt field fails at once.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from umemma_jax import fusion
from umemma_jax.errors import UserError

# What a run may change when it is started again on the same workdir: it does not touch the parameters.
FREE_TO_CHANGE = (
    "log_every",
    "checkpoint_every",
    "keep_checkpoints",
    "evaluation",
    "data.dir",
    "data.prep",
    "data.prepare",
)

METHODS = {
    # method: (uni-modal stage, fusion stage, missing augmentation)
    "ume_mma": (True, True, True),
    "ume": (True, False, False),
    "augmentation": (False, True, True),
    "late_fusion": (False, True, False),
}


def default_config() -> ConfigDict:
    """Every field with its default."""
    return ConfigDict(
        {
            "seed": 0,
            "modalities": (),  # names in the dataset, in the order of presence masks
            "inputs": {},  # modality -> tower_config(...)
            "data": {
                "dir": "",
                "prep": "",  # module that makes `dir`, e.g. data_prep.quickstart
                "prepare": False,  # run it where `dir` is absent; for prep modules that need nothing but `dir`
                "train_split": "train",
                "validation_split": "",  # "" = a stratified share of the training split
                "validation_share": 0.1,
                "test_split": "test",
                "batch_size": 64,  # over all devices
                "threads": 1,
            },
            "unimodal": stage_config(),
            "fusion": {**stage_config(), "head": "linear"},
            "missing": {
                "augment": True,
                "keep": {},  # pattern name -> weight, e.g. {"image+audio": 2, "image": 1}; empty = all alike
                "layout": "stratified",  # or "random"
                "stand_in": "token",  # or "zero", "mean"
            },
            "dropout": 0.0,  # on features
            "evaluation": {
                "batch_size": 256,
                "rates": tuple(rate / 10 for rate in range(11)),
                "seeds": 5,
            },
            "parallel": "jit",  # or "pmap"
            "log_every": 20,  # steps
            "checkpoint_every": 200,  # steps, besides the end of each stage
            "keep_checkpoints": 2,
        }
    )


def stage_config() -> dict[str, Any]:
    """One stage of training; 0 epochs leave it out."""
    return {
        "epochs": 10,
        "optimizer": "adamw",  # or "sgd"
        "learning_rate": 1e-3,
        "warmup": 0.1,  # share of the stage's steps
        "weight_decay": 0.0,
        "momentum": 0.9,  # of sgd
        "clip": 1.0,  # largest gradient norm of each encoder and of the head
        "label_smoothing": 0.0,
    }


def tower_config(
    encoder: Mapping[str, Any], preprocess: Mapping[str, Any] | None = None, length: int = 0
) -> dict[str, Any]:
    """One modality of `config.inputs`.

    Args:
      encoder: `name`, and the fields of its Model.
      preprocess: fields of the kind's class in `umemma_jax.preprocess`.
      length: static length of a batch where lengths vary (audio: samples); 0 is the longest in the dataset.
    """
    return {
        "encoder": dict(encoder),
        "preprocess": dict(preprocess or {}),
        "length": length,
        "learning_rate_scale": 1.0,  # in the fusion stage
        "frozen": False,  # in the fusion stage
    }


def apply_method(config: ConfigDict, method: str) -> None:
    """Sets the switches that make the recipe of `ume_mma` one of `METHODS`.

    Without the uni-modal stage its epochs and learning rate go to the fusion stage: every method trains its encoders
    equally long.
    """
    if method not in METHODS:
        raise UserError(f"config argument '{method}': unknown method, use one of {', '.join(METHODS)}")
    unimodal, fused, augment = METHODS[method]
    config.missing.augment = augment
    if not unimodal:
        config.fusion.learning_rate = config.unimodal.learning_rate
        config.fusion.epochs += config.unimodal.epochs
        config.unimodal.epochs = 0
    if not fused:
        config.fusion.epochs = 0


def method_name(config: ConfigDict) -> str:
    """The method that the switches amount to."""
    switches = (config.unimodal.epochs > 0, config.fusion.epochs > 0, config.missing.augment)
    names = {value: name for name, value in METHODS.items()}
    if not switches[1]:
        return "ume"
    return names.get(switches, "ume_then_fusion_without_augmentation")


def check(config: ConfigDict) -> None:
    """Raises UserError, naming the field, where a value cannot be right."""
    _require(len(config.modalities) >= 2, "modalities", "name at least two")
    _require(len(set(config.modalities)) == len(config.modalities), "modalities", "a name stands twice")
    for name in config.modalities:
        _require(name in config.inputs, f"inputs.{name}", f"missing, though '{name}' is in config.modalities")
        _require("name" in config.inputs[name].encoder, f"inputs.{name}.encoder.name", "missing: name an encoder")
    _require(config.fusion.head in fusion.HEADS, "fusion.head", f"use one of {', '.join(fusion.HEADS)}")
    for field, choices in {
        "missing.layout": ("random", "stratified"),
        "missing.stand_in": ("zero", "token", "mean"),
        "parallel": ("jit", "pmap"),
        "unimodal.optimizer": ("adamw", "sgd"),
        "fusion.optimizer": ("adamw", "sgd"),
    }.items():
        value = _get(config, field)
        _require(value in choices, field, f"'{value}' is not one of {', '.join(choices)}")
    for field in ("data.batch_size", "evaluation.batch_size", "evaluation.seeds", "log_every", "checkpoint_every"):
        _require(_get(config, field) >= 1, field, "must be 1 or more")
    for field in ("unimodal.epochs", "fusion.epochs"):
        _require(_get(config, field) >= 0, field, "must be 0 or more")
    _require(0 <= config.data.validation_share < 1, "data.validation_share", "must be in [0, 1)")
    _require(0 <= config.dropout < 1, "dropout", "must be in [0, 1)")
    _require(all(0 <= rate <= 1 for rate in config.evaluation.rates), "evaluation.rates", "must be in [0, 1]")
    _require(config.unimodal.epochs + config.fusion.epochs > 0, "fusion.epochs", "no stage has any epoch")


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Fields in which two configs differ, as `data.batch_size: 64 -> 32`, less those in FREE_TO_CHANGE."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        field, a, b = f"{prefix}{key}", old.get(key), new.get(key)
        if field in FREE_TO_CHANGE:
            continue
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{field}.")
        elif a != b:
            found.append(f"{field}: {a} -> {b}")
    return found


def _get(config: ConfigDict, field: str) -> Any:
    for key in field.split("."):
        config = config[key]
    return config


def _require(condition: bool, field: str, remedy: str) -> None:
    if not condition:
        raise UserError(f"config.{field}: {remedy}")
