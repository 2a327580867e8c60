"""The recipe: loading it from a config file, its fields with their defaults, and the checks that need no data.

A config file starts from `default_config()` and sets what differs. `check` compares it with the defaults, so that a
misspelt field or a value of a wrong type is named before anything is done with it.
"""

import ast
import importlib.util
import inspect
import math
import re
import traceback
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from umemma_jax import fusion, methods, protocol
from umemma_jax.errors import UserError, did_you_mean
from umemma_jax.methods import METHODS
from umemma_jax.missing_rates import MIXED
from umemma_jax.patterns import MOST_MODALITIES, pattern_shares
from umemma_jax.preprocess.ranges import unfit

# What a run may change when it is started again on the same workdir: it does not touch the parameters.
FREE_TO_CHANGE = (
    "log_every",
    "checkpoint_every",
    "keep_checkpoints",
    "evaluation",
    "data.dir",
    "data.prep",
    "data.prepare",
    "data.threads",
    "data.cache_megabytes",
    "fsdp",
    "profile",
    "time_limit",
    "trackers",
)

TRACKERS = ("tensorboard", "wandb", "mlflow")
RECIPES = Path(__file__).parent / "configs"
LOSSES = ("auto", "focal", "huber")
MOST_THREADS, MOST_RATES = 1024, 1000

# Fields whose keys are the user's own.
_OF_VALUES = ("keep", "encoder", "preprocess", "deployment", "class_weights", "settings", "rates")
OPEN_FIELDS = ("inputs", *_OF_VALUES)


def load(recipe: str) -> ConfigDict:
    """The config of `FILE` or `FILE:ARGUMENT`: what its `get_config()`, or `get_config(ARGUMENT)`, returns.

    Instead of a file, the name alone of one of the recipes of `configs/` will do, e.g. `quickstart`.

    Raises:
      UserError: there is no such file, or its code fails, in which case the line of the file is named.
    """
    name, *arguments = recipe.split(":", 1)
    file = _file_of(name) if name.isidentifier() else name
    get_config = _definitions(file).get("get_config")
    if not callable(get_config):
        raise UserError(f"{file}: defines no function get_config(), see {RECIPES} for examples")
    try:
        inspect.signature(get_config).bind(*arguments)
    except TypeError as error:
        raise UserError(
            f"--config={recipe}: get_config: {error} (an argument follows the file: FILE:ARGUMENT)"
        ) from None
    config = _run(file, lambda: get_config(*arguments))
    if not isinstance(config, ConfigDict):
        raise UserError(f"{file}: get_config() returns {type(config).__name__}: end it with `return config`")
    return config


def recipes() -> list[str]:
    """Names of the recipes that come with this package."""
    return sorted(file.stem for file in RECIPES.glob("[!_]*.py"))


def _file_of(name: str) -> str:
    known = recipes()
    if name in known:
        return str(RECIPES / f"{name}.py")
    hint = did_you_mean(name, known)
    raise UserError(f"--config={name}: {hint}There are {', '.join(known)}; a file of your own is named with its .py")


def _definitions(file: str) -> dict[str, Any]:
    """The global names of a config file once it has run."""
    try:
        source = Path(file).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"--config={file}: cannot be read ({reason}), name a file, or one of {', '.join(recipes())}"
        ) from error
    names = {"__name__": Path(file).stem, "__file__": file}
    _run(file, lambda: exec(compile(source, file, "exec"), names))
    return names


def _run(file: str, code: Callable[[], Any]) -> Any:
    """Runs the user's code; what it raises comes out as one line with the line of the file."""
    try:
        return code()
    except UserError:
        raise
    except SyntaxError as error:
        raise UserError(f"{error.filename}, line {error.lineno}: {error.msg}: mend the line") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit() too
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        where = f"{file}, line {lines[-1]}" if lines else file
        raise UserError(f"{where}: {type(error).__name__}: {error}: mend the line") from error


def default_config() -> ConfigDict:
    """Every field with its default."""
    return ConfigDict(
        {
            "seed": 0,
            "modalities": (),  # names in the dataset, in the order of presence masks
            "inputs": {},  # modality -> tower_config(...)
            "data": {
                "dir": "",  # a folder, or the URL of a copy of one: gs://, s3://, https:// ...
                "prep": "",  # module that makes `dir`, e.g. umemma_jax.data_prep.quickstart
                "prepare": False,  # run it where `dir` is absent; for prep modules that need nothing but `dir`
                "train_split": "train",
                "validation_split": "",  # "" = a stratified share of the training split
                "validation_share": 0.1,
                "test_split": "test",
                "batch_size": 64,  # over all devices
                "threads": 0,  # that read ahead; 0: as many as the data and the machine ask for
                "window": 1,  # batches that exchange rows, so that those of one length come together
                "cache_megabytes": 512,  # a training split no larger than this, decoded, is held in memory
            },
            "unimodal": stage_config(),
            "fusion": {
                **stage_config(),
                "head": "linear",
                "only": False,  # every encoder frozen: each runs once, and stand-ins and head train on its features
            },
            "missing": {
                "augment": True,
                "keep": {},  # pattern name -> weight, e.g. {"image+audio": 2, "image": 1}; empty = all alike
                "layout": "stratified",  # or "random"
                # Numbers of rows, besides all, that encoders are compiled for: where a batch lacks modalities by chance
                # or by nature, they run on the fewest that hold the rows with theirs. 0: always on all.
                "capacities": 1,
                "stand_in": "token",  # or "zero", "mean"
                # The eta protocol of the prompt papers: this share of the training and validation examples loses the
                # modality `kind` for good; "mixed" (their "both"): one modality each, all in equal shares.
                # Or `rates`, modality -> its own share. `given`: more are lost of some classes ("label"), or where the
                # example has a modality: up to 1 + `spread` times as many, see `protocol`.
                "eta": {"rate": 0.0, "kind": MIXED, "rates": {}, "given": "", "spread": 0.5},
                # Training examples weigh by the inverse of how often their class has what they have, which counts as
                # no less than `least_propensity`.
                "inverse_propensity": False,
                "least_propensity": 0.05,
            },
            # A method that has a loss of its own in the fusion stage, see `methods`, and its hyper-parameters; "" for
            # those that are switches of the recipe alone.
            "method": {"name": "", "settings": {}},
            "dropout": 0.0,  # on features
            # Cross-entropy, of targets the Gaussian likelihood; or "focal" of classes, "huber" of targets, which heeds
            # outliers less.
            "loss": "auto",
            "focal_gamma": 2.0,  # how much less than the hard examples the easy ones count
            # In the loss all classes weigh the same; multi-label, a class's positives as much as its negatives. Learned
            # are the probabilities of balanced classes then.
            "balance_classes": False,
            "class_weights": {},  # or class -> its weight, 1 where left out
            "evaluation": {
                "batch_size": 256,
                "rates": tuple(rate / 10 for rate in range(11)),
                "seeds": 5,
                "resamples": 1000,  # of the bootstrap, for intervals
                "deployment": {},  # weights of the patterns that are expected in use; {}: all the same
                "alpha": 0.1,  # share of the true classes that conformal sets may lack, of targets that intervals may
                # Also report what the model comes to with a bias of each class and missing pattern, fitted to the test
                # examples without their labels (TLP, arXiv 2609.02039).
                "label_free_bias": False,
            },
            "parallel": "jit",  # or "pmap"
            "fsdp": 1,  # devices that hold one copy of the parameters and the optimiser's state between them
            # Seconds for training and report, 0 for no limit. The stages share them by their steps, and each ends at a
            # checkpoint in time; the learning rate falls as if it had gone on.
            "time_limit": 0.0,
            "profile": 0,  # steps of each stage to trace, for TensorBoard or Perfetto, once it runs steadily
            # Of TRACKERS; metrics.jsonl is written in any case.
            "trackers": ("tensorboard",) if importlib.util.find_spec("tensorboard") else (),
            "log_every": 20,  # steps
            "checkpoint_every": 200,  # steps, besides the end of each stage
            "keep_checkpoints": 2,
        }
    )


def stage_config() -> dict[str, Any]:
    """One stage of training; 0 epochs leave it out."""
    return {
        "epochs": 10,
        # The stage ends after so many epochs of which none was better on validation; 0: never. The learning rate falls
        # as if it had gone on.
        "patience": 0,
        "optimizer": "adamw",  # or "sgd"
        "learning_rate": 1e-3,
        "warmup": 0.1,  # share of the stage's steps
        "weight_decay": 0.0,
        "momentum": 0.9,  # of sgd
        "moments": "float32",  # of the optimizer: of adamw's first one and of sgd's momentum; or "bfloat16"
        "clip": 1.0,  # largest gradient norm of each encoder and of the head
        "label_smoothing": 0.0,
        "ema": 0.0,  # decay of a moving average of the parameters, which is then what is evaluated; 0 for none
        # Microbatches that a batch is computed in, one after another, for memory. Batch norm then normalises each of
        # them by its own statistics; all else is as in one.
        "accumulate": 1,
    }


def tower_config(
    encoder: Mapping[str, Any],
    preprocess: Mapping[str, Any] | None = None,
    length: int = 0,
    buckets: tuple[int, ...] = (),
    framing: str = "",
    tokenizer: str = "",
) -> dict[str, Any]:
    """One modality of `config.inputs`.

    Args:
      encoder: `name`, and the fields of its Model. `pretrained` is the path of a checkpoint: what its weights decide is
        left out then; `first_layer` may say how they adapt to another number of input channels.
      preprocess: fields of the kind's class in `umemma_jax.preprocess`.
      length: static length of a batch where lengths vary (audio: samples, text: tokens), or side of images that are
        stored as JPEG, pixels; 0 is the longest in the dataset, where that is known.
      buckets: shorter lengths, ascending: each batch takes the smallest that holds its longest value, so that short
        texts do not pay for the longest. A step is compiled for each. `data.window` brings rows of one length together.
      framing: of images that are stored as JPEG: `centre`, their largest square, or `whole`, squeezed into the square;
        empty: as the dataset says, which is `centre` if it does not.
      tokenizer: of text: a folder or file; `ngrams`, n-grams, which need no file; empty: that of the pretrained
        checkpoint, else the dataset's own.
    """
    return {
        "encoder": {"pretrained": "", **encoder},
        "preprocess": dict(preprocess or {}),
        "length": length,
        "buckets": tuple(buckets),
        "framing": framing,
        "tokenizer": tokenizer,
        "learning_rate_scale": {"unimodal": 1.0, "fusion": 1.0},  # of the encoder
        "frozen": False,  # in the fusion stage
    }


def form_and_method(argument: str, forms: Sequence[str]) -> tuple[str, str]:
    """What the argument of a recipe names, words joined by commas: one of its forms, and a method for `apply_method`.

    A form that is not named is the first, a method `ume_mma`. Raises UserError where a word is neither, or there are
    several of either.
    """
    words = argument.split(",")
    for word in words:
        if word not in (*forms, *METHODS) and "." not in word:
            raise UserError(
                f"config argument '{word}': unknown, "
                f"name a form ({', '.join(forms)}) or a method ({', '.join(METHODS)})"
            )
    form, method = [word for word in words if word in forms], [word for word in words if word not in forms]
    if max(len(form), len(method)) > 1:
        raise UserError(f"config argument '{argument}': name one of {', '.join(forms)}, and one method, at most")
    return (*form, forms[0])[0], (*method, "ume_mma")[0]


def apply_method(config: ConfigDict, method: str) -> None:
    """Makes the recipe of `ume_mma` that of another method: its switches, and its loss where it has one.

    Without the uni-modal stage the fusion stage trains the encoders as that would have, and as long as both: every
    method trains its encoders with the same settings.

    Raises:
      UserError: there is no such method, see `methods.method`.
    """
    module = methods.method(method)
    switches = module.SWITCHES
    config.missing.augment = switches["augment"]
    if methods.has_loss(module):
        config.method = ConfigDict({"name": method, "settings": methods.settings(module)})
    if not switches["unimodal"]:
        epochs = config.unimodal.epochs + config.fusion.epochs
        config.fusion.update({**config.unimodal, "epochs": epochs})
        for tower in config.inputs.values():
            tower.learning_rate_scale.fusion = tower.learning_rate_scale.unimodal
        config.unimodal.epochs = 0
    if not switches["fusion"]:
        config.fusion.epochs = 0


def method_name(config: ConfigDict) -> str:
    """The method that has its loss in the config, or else the one that the switches amount to."""
    if config.method.name:
        return config.method.name
    if not config.fusion.epochs:
        return next(name for name in METHODS if not METHODS[name].SWITCHES["fusion"])
    switches = (config.unimodal.epochs > 0, True, config.missing.augment)
    names = (name for name in METHODS if not methods.has_loss(METHODS[name]))
    found = {tuple(METHODS[name].SWITCHES.values()): name for name in names}
    return found.get(switches, "ume_then_fusion_without_augmentation")


def check(config: ConfigDict) -> None:
    """Raises UserError, naming the field, where a field does not exist or a value cannot be right."""
    _check_fields(config, default_config())
    for name in config.inputs:
        _check_fields(config.inputs[name], ConfigDict(tower_config({})), f"inputs.{name}.")
    _check_modalities(config)
    choices = {
        "missing.layout": ("random", "stratified"),
        "missing.stand_in": ("zero", "token", "mean"),
        "missing.eta.kind": (*config.modalities, MIXED),
        "parallel": ("jit", "pmap"),
        "unimodal.optimizer": ("adamw", "sgd"),
        "fusion.optimizer": ("adamw", "sgd"),
        "unimodal.moments": ("float32", "bfloat16"),
        "fusion.moments": ("float32", "bfloat16"),
        "fusion.head": fusion.HEADS,
        "loss": LOSSES,
    }
    for field, names in choices.items():
        value = get(config, field)
        _require(value in names, field, f"'{value}' is not one of {', '.join(names)}")
    for name in config.trackers:
        _require(name in TRACKERS, "trackers", f"{name!r} is not one of {', '.join(TRACKERS)}")
    _check_ranges(config)
    protocol.check(config.missing.eta, config.modalities)
    pattern_shares(config.evaluation.deployment, tuple(config.modalities), "config.evaluation.deployment")
    _require(config.fsdp == 1 or config.parallel == "jit", "fsdp", "parallel = 'pmap' holds whole copies: use 'jit'")
    _require(config.unimodal.epochs + config.fusion.epochs > 0, "fusion.epochs", "no stage has any epoch")
    _require(
        not (config.balance_classes and config.class_weights),
        "class_weights",
        "given, but config.balance_classes weighs the classes already: leave one of them out",
    )
    _check_method(config)
    _require(bool(config.data.dir), "data.dir", "name the folder of the prepared dataset")


def _check_fields(config: ConfigDict, default: ConfigDict, prefix: str = "") -> None:
    """Compares names and types with those of the defaults."""
    for key in config:
        _require(key in default, f"{prefix}{key}", f"unknown field, there are {', '.join(default)}")
    for key, standard in default.items():
        field = f"{prefix}{key}"
        _require(key in config, field, "missing: start the config from default_config() and tower_config()")
        value, kind = config[key], type(standard)
        if not fits(value, kind):
            raise UserError(f"config.{field}: {_short(value)} is not of type {kind.__name__}, such as {standard!r}")
        if reason := unfit(value):
            raise UserError(f"config.{field}: {reason}")
        if isinstance(standard, ConfigDict) and key not in OPEN_FIELDS:
            _check_fields(value, standard, f"{field}.")


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a type, given as an annotation; True where the annotation does not say."""
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind in (int, bool, str):
        return type(value) is kind
    if kind in (tuple, ConfigDict):
        return isinstance(value, (list, tuple) if kind is tuple else ConfigDict)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, argument) for argument in arguments)
    if origin is tuple:
        return isinstance(value, list | tuple) and all(fits(item, arguments[0]) for item in value)
    return not isinstance(kind, type) or isinstance(value, kind)


def _check_modalities(config: ConfigDict) -> None:
    names = config.modalities
    _require(all(isinstance(name, str) for name in names), "modalities", f"{names} are not all names")
    _require(len(names) >= 2, "modalities", f"{tuple(names)}: name at least two")
    _require(
        len(names) <= MOST_MODALITIES,
        "modalities",
        f"{len(names)} have 2^{len(names)} - 1 missing patterns: name {MOST_MODALITIES} at most",
    )
    _require(len(set(names)) == len(names), "modalities", "a name stands twice")
    for name in names:
        _require(name in config.inputs, f"inputs.{name}", f"missing, though '{name}' is in config.modalities")
        encoder = config.inputs[name].encoder.get("name")
        valid = isinstance(encoder, str) and re.fullmatch(r"\w+(\.\w+)*", encoder)
        _require(bool(valid), f"inputs.{name}.encoder.name", f"{encoder!r}: name an encoder, or a module of your own")


def _check_method(config: ConfigDict) -> None:
    """Of a method that has a loss of its own: its hyper-parameters, and what it needs of the rest."""
    name, given = config.method.name, config.method.settings
    if not name:
        _require(not given, "method.settings", "given without config.method.name: name the method whose they are")
        return
    module = methods.method(name)
    _require(methods.has_loss(module), "method.name", f"'{name}' has no loss of its own: leave it out")
    known = methods.settings(module)
    _require(
        set(given) == set(known), "method.settings", f"{', '.join(given)}: {name} takes {', '.join(known) or 'none'}"
    )
    for key, value in given.items():
        valid = fits(value, float) and 0 <= value < math.inf
        _require(valid, f"method.settings.{key}", f"{_short(value)} must be a number from 0 on, and finite")
    if unmet := methods.unmet_need(module, lambda field: get(config, field)):
        raise UserError(unmet)


def _check_ranges(config: ConfigDict) -> None:
    whole = {
        "seed": 0,
        "data.batch_size": 1,
        "data.threads": 0,
        "data.window": 1,
        "data.cache_megabytes": 0,
        "evaluation.batch_size": 1,
        "evaluation.seeds": 1,
        "evaluation.resamples": 1,
        "fsdp": 1,
        "profile": 0,
        "log_every": 1,
        "checkpoint_every": 1,
        "missing.capacities": 0,
        "keep_checkpoints": 1,
        **{f"{stage}.epochs": 0 for stage in ("unimodal", "fusion")},
        **{f"{stage}.patience": 0 for stage in ("unimodal", "fusion")},
        **{f"{stage}.accumulate": 1 for stage in ("unimodal", "fusion")},
        **{f"inputs.{name}.length": 0 for name in config.inputs},
    }
    for field, least in whole.items():
        value = get(config, field)
        _require(least <= value < 2**31, field, f"{value} must be {least} or more, and fit into 31 bits")
    _require(config.data.threads <= MOST_THREADS, "data.threads", f"{config.data.threads}, use {MOST_THREADS} at most")
    shares = ["data.validation_share", "dropout"]
    positive = []
    for stage in ("unimodal", "fusion"):
        shares += [f"{stage}.label_smoothing", f"{stage}.momentum", f"{stage}.ema"]
        positive += [f"{stage}.learning_rate", f"{stage}.clip"]
    for field in shares:
        _require(0 <= get(config, field) < 1, field, f"{get(config, field)} must be in [0, 1)")
    for field in positive:
        value = get(config, field)
        _require(0 < value < math.inf, field, f"{value} must be above 0, and finite")
    least = config.missing.least_propensity
    _require(0 < least <= 1, "missing.least_propensity", f"{least} must be in (0, 1]")
    _require(0 < config.evaluation.alpha < 1, "evaluation.alpha", f"{config.evaluation.alpha} must be in (0, 1)")
    for field in ("unimodal.warmup", "fusion.warmup", "missing.eta.rate"):
        _require(0 <= get(config, field) <= 1, field, f"{get(config, field)} must be in [0, 1]")
    scales = [
        f"inputs.{name}.learning_rate_scale.{stage}" for name in config.inputs for stage in ("unimodal", "fusion")
    ]
    for name, weight in config.class_weights.items():
        valid = fits(weight, float) and 0 <= weight < math.inf
        _require(valid, "class_weights", f"{name!r}: {_short(weight)} must be a number from 0 on, and finite")
    for field in ("unimodal.weight_decay", "fusion.weight_decay", "focal_gamma", "time_limit", *scales):
        value = get(config, field)
        _require(0 <= value < math.inf, field, f"{value} must be 0 or more, and finite")
    rates = config.evaluation.rates
    valid = 0 < len(rates) <= MOST_RATES and all(fits(rate, float) and 0 <= rate <= 1 for rate in rates)
    remedy = f"{_short(rates)} must be numbers in [0, 1], at least one and at most {MOST_RATES}"
    _require(valid, "evaluation.rates", remedy)


def check_accumulation(config: ConfigDict, shards: int) -> None:
    """Raises UserError where a stage's batch cannot be split evenly into microbatches on every device."""
    for stage in ("unimodal", "fusion"):
        parts = config[stage].accumulate * shards
        if config.data.batch_size % parts:
            raise UserError(
                f"config.{stage}.accumulate = {config[stage].accumulate} on {shards} device(s): config.data.batch_size "
                f"= {config.data.batch_size} does not divide evenly, use a multiple of {parts}"
            )


def with_tuples(value: Any) -> Any:
    """What JSON gives of a config, with tuples in place of its lists, as fields of Linen modules have to be."""
    if isinstance(value, dict):
        return {key: with_tuples(item) for key, item in value.items()}
    return tuple(map(with_tuples, value)) if isinstance(value, list) else value


def fixed(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The config without the fields in FREE_TO_CHANGE."""
    fields = {key: value for key, value in config.items() if f"{prefix}{key}" not in FREE_TO_CHANGE}
    return {
        key: fixed(value, f"{prefix}{key}.") if isinstance(value, Mapping) else value for key, value in fields.items()
    }


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Fields in which two configs differ, as `data.batch_size: 64 -> 32`, less those in FREE_TO_CHANGE."""
    return _differences(fixed(old), fixed(new))


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in sorted(old.keys() | new.keys()):
        field, a, b = f"{prefix}{key}", old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += _differences(a, b, f"{field}.")
        elif a != b:
            found.append(f"{field}: {a} -> {b}")
    return found


def get(config: ConfigDict, field: str) -> Any:
    """The value of a field such as `data.batch_size`. Raises UserError where there is none."""
    value, path = config, "config"
    for key in field.split("."):
        if not isinstance(value, ConfigDict) or key not in value:
            known = (", ".join(value) if isinstance(value, ConfigDict) else "") or "no fields"
            raise UserError(f"config.{field}: unknown field, {path} has {known}")
        value, path = value[key], f"{path}.{key}"
    return value


def set_fields(config: ConfigDict, fields: Mapping[str, Any]) -> None:
    """Sets fields by their dotted names, such as `fusion.epochs`. Raises UserError where one does not exist or fit."""
    for field, value in fields.items():
        get(config, field)
        parent, _, key = field.rpartition(".")
        try:
            (get(config, parent) if parent else config)[key] = value
        except (TypeError, ValueError) as error:
            raise UserError(f"config.{field}: {_short(value)} does not fit ({error})") from error


def add_open_field(config: ConfigDict, field: str, text: str) -> None:
    """Sets a field that the recipe does not mention, such as `inputs.text.encoder.width`.

    Args:
      config: changed in place.
      field: left alone where it exists, or where its keys are not the user's own.
      text: the value, a Python literal; anything else is a string.
    """
    parent, _, key = field.rpartition(".")
    if parent.rpartition(".")[2] not in _OF_VALUES or key in get(config, parent):
        return
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    with get(config, parent).unlocked() as opened:
        opened[key] = value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]} ..."


def _require(condition: bool, field: str, remedy: str) -> None:
    if not condition:
        raise UserError(f"config.{field}: {remedy}")
