"""What lies beside a checkpoint and says how its inputs are made and its tokens pooled."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from umemma_jax.errors import UserError
from umemma_jax.weights.files import read_json, read_json_list

PREPROCESSOR = "preprocessor_config.json"
PROCESSOR = "processor_config.json"  # of transformers 5, which holds the other one
POOLING = "1_Pooling/config.json"  # of sentence-transformers
MODULES = "modules.json"  # likewise: what makes a text's feature, one after the other
FILES = (PREPROCESSOR, PROCESSOR, POOLING, MODULES)

# What Hugging Face's image processors may do to values that preprocessing here does not.
UNKNOWN_STEPS = ("do_flip_channel_order", "do_convert_grayscale", "do_grayscale", "do_color_quantize", "offset")
UNKNOWN_STEPS += ("rescale_offset",)
AST = "ASTFeatureExtractor"
APPLIED = ("Transformer", "Pooling", "Normalize")  # of such modules
POOLS = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}


def beside(folder: Path, names: Sequence[str]) -> list[Path]:
    """Those of the named files that are in the folder of the weights."""
    return [folder / name for name in names if (folder / name).is_file()]


def stated(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """How a checkpoint's inputs are made: fields of the preprocessing, {} where nothing says so.

    Args:
      folder: of the weights.
      config: the checkpoint's own config.json.

    Returns:
      Of images, `mean` and `std`, lists in units of pixel values: one value stands for every channel. Of sound, the
      `form` and its fields.

    Raises:
      UserError: a file is damaged, or asks for what preprocessing here does not do.
    """
    processor = _file(folder, PROCESSOR)
    for key in ("image_processor", "feature_extractor"):
        if isinstance(processor.get(key), Mapping):
            return _of(processor[key], folder / PROCESSOR)
    if preprocessor := _file(folder, PREPROCESSOR):
        return _of(preprocessor, folder / PREPROCESSOR)
    card = config.get("pretrained_cfg")
    card = card if isinstance(card, Mapping) else {}
    return _pixels({"image_mean": card.get("mean"), "image_std": card.get("std")}, folder / "config.json")


def pooling(folder: Path) -> str:
    """The pool that sentence-transformers' files state, `cls` or `mean`; empty if they do not.

    Raises:
      UserError: another one, or several.
    """
    path = folder / POOLING
    said = _file(folder, POOLING)
    modes = [key for key, value in said.items() if key.startswith("pooling_mode_") and value is True]
    if isinstance(said.get("pooling_mode"), str):
        modes.append(f"pooling_mode_{said['pooling_mode']}_token{'s' if said['pooling_mode'] != 'cls' else ''}")
    if modes and (len(modes) > 1 or modes[0] not in POOLS):
        raise UserError(
            f"{path}: {' and '.join(modes)} cannot be loaded, only one of {', '.join(POOLS)}: "
            "remove this file to choose the encoder's pool yourself"
        )
    return POOLS[modes[0]] if modes else ""


def unit_length(folder: Path) -> bool:
    """Whether sentence-transformers' files scale every feature to length 1.

    Raises:
      UserError: they do something else to it as well, or do not say how they pool.
    """
    path = folder / MODULES
    if not path.exists():
        return False
    types = [module.get("type") if isinstance(module, Mapping) else None for module in read_json_list(path)]
    kinds = [str(type).rpartition(".")[2] for type in types]
    for kind in kinds:
        if kind not in APPLIED:
            raise UserError(
                f"{path}: {kind!r:.80} is not applied here, only {', '.join(APPLIED)}: "
                "remove this file to take the encoder without it"
            )
    if "Pooling" in kinds and not (folder / POOLING).exists():
        raise UserError(f"{path}: there is no {POOLING} beside it, which says how to pool: download it too")
    return "Normalize" in kinds


def _file(folder: Path, name: str) -> dict[str, Any]:
    return read_json(folder / name) if (folder / name).exists() else {}


def _of(processor: Mapping[str, Any], where: Path) -> dict[str, Any]:
    sound = processor.get("feature_extractor_type") == AST
    return _filter_bank(processor, where) if sound else _pixels(processor, where)


def _pixels(processor: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """(pixel * rescale_factor - image_mean) / image_std as (pixel - mean) / std."""
    for step in UNKNOWN_STEPS:
        if processor.get(step):
            raise UserError(f"{where}: {step} is not supported: remove it, and do it when preparing the dataset")
    factor = 1.0
    if processor.get("do_rescale") in (None, True):
        (factor,) = _numbers(processor.get("rescale_factor", 1 / 255), f"{where}: rescale_factor", positive=True)[:1]
    mean, std = processor.get("image_mean"), processor.get("image_std")
    if processor.get("do_normalize") is False:
        mean, std = 0.0, 1.0
    if mean is None and std is None:
        return {}
    return {
        "mean": [value / factor for value in _numbers(mean, f"{where}: image_mean")],
        "std": [value / factor for value in _numbers(std, f"{where}: image_std", positive=True)],
    }


def _filter_bank(extractor: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """AST's feature extractor, as fields of `preprocess.Fbank`."""

    def number(key: str, default: float, positive: bool = False) -> float:
        (value,) = _numbers(extractor.get(key, default), f"{where}: {key}", positive)[:1]
        return value

    rate = int(number("sampling_rate", 16000, positive=True))
    normalised = extractor.get("do_normalize") is not False
    return {
        "form": "fbank",
        "sample_rate": rate,
        "win_length": rate // 40,  # 25 ms
        "hop_length": rate // 100,  # 10 ms
        "window": "hann",
        "n_mels": int(number("num_mel_bins", 128, positive=True)),
        "frames": int(number("max_length", 1024, positive=True)),
        "normalise": "fixed",
        "mean": number("mean", -4.2677393) if normalised else 0.0,
        "std": 2 * number("std", 4.5689974, positive=True) if normalised else 1.0,
    }


def _numbers(value: Any, where: str, positive: bool = False) -> list[float]:
    """A number, or a list of them, as a list. Raises UserError for anything else."""
    values = value if isinstance(value, list) else [value]
    for number in values or [None]:
        known = isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
        if not known or (positive and number <= 0):
            kind = "a positive number" if positive else "a number"
            raise UserError(f"{where} = {value!r:.80}, {kind} or a list of them belongs there: download it again")
    return [float(number) for number in values]
