"""Tables between a PyTorch checkpoint and an encoder: what an encoder module exports beside its Model.

An encoder whose weights can be converted exports `FORMATS`, one `Format` for each naming that they go by. A format
reads the Model's fields from the checkpoint, and gives the rules that rename and rearrange its tensors; the driver
(`umemma_jax.weights.convert`) is the same for all of them. Rules run both ways: what is loaded can be exported again.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from umemma_jax.errors import UserError

Shape = tuple[int, ...]
Arrays = list[np.ndarray]

# Buffers of PyTorch modules that hold nothing learned; they are carried along for a strict `load_state_dict`.
BUFFERS = (r".*\bnum_batches_tracked$", r".*\bposition_ids$", r".*\btoken_type_ids$")

# By which keys a `config.json` is recognisably that of a checkpoint: Hugging Face's, older ones of theirs, timm's.
OWN = ("model_type", "architectures", "architecture")
TIMM_TYPES = ("timm_wrapper",)  # `model_type` of timm's models that transformers has saved
TIMM_CLASSES = r"TimmWrapper\w+"

# Names in Hugging Face's configs, and ours.
HIDDEN_ACTS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
}


def is_own(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` says what it is the config of."""
    return any(config.get(key) is not None for key in OWN)


@dataclasses.dataclass(frozen=True)
class Source:
    """What is known of a checkpoint before its tensors are read.

    Attributes:
      shapes: of its tensors by name, without wrapper prefixes.
      config: what `config.json` states; {} where there is none that is recognisably the checkpoint's own.
      pool: of a text's tokens, as sentence-transformers' files state it; empty where there are none.
      unit_length: whether they scale a text's feature to length 1.
    """

    shapes: Mapping[str, Shape]
    config: Mapping[str, Any]
    pool: str = ""
    unit_length: bool = False

    def shape(self, name: str, rank: int) -> Shape:
        """Shape of a tensor. Raises UserError if there is none of that name and rank."""
        shape = self.shapes.get(name)
        if shape is None or len(shape) != rank or 0 in shape:
            found = "is missing" if shape is None else f"is of shape {shape}"
            raise UserError(f"tensor {name} {found}, it has to have {rank} axes: this is another kind of checkpoint")
        return shape

    def stated(self, key: str, default: Any) -> Any:
        """What `config.json` says under a key; the default, which is that of the config's own class, if nothing.

        Raises:
          UserError: it is of another type than the default.
        """
        if key not in self.config:
            return default
        value = self.config[key]
        if type(value) is int and type(default) is float:
            value = float(value)
        if type(value) is not type(default) or (type(value) is float and not math.isfinite(value)):
            raise UserError(f"config.json: {key} = {value!r:.80}, a {type(default).__name__} belongs there")
        return value

    def check_stated(self, **known: tuple[Any, Any]) -> None:
        """Compares a config with what is known otherwise: it may be that of another checkpoint.

        Args:
          known: key -> (default as in `stated`, what it has to be).

        Raises:
          UserError: there is a config, and it says something else.
        """
        for key, (default, found) in known.items():
            if self.config and (value := self.stated(key, default)) != found:
                said = "has" if key in self.config else "leaves it to the default"
                raise UserError(
                    f"config.json {said} {key} = {value!r}, and this checkpoint's is {found!r}: "
                    "put its own config.json beside it"
                )

    def part(self, *keys: str) -> "Source":
        """The checkpoint with the config of one of its parts: the first of these objects that its config holds."""
        for key in keys:
            if isinstance(self.config.get(key), Mapping):
                return dataclasses.replace(self, config={OWN[0]: self.config.get(OWN[0]), **self.config[key]})
        return self

    def count(self, prefix: str) -> int:
        """How many modules are numbered under `prefix`: `layer.` counts layer.0, layer.1, ..."""
        numbers = {name[len(prefix) :].split(".")[0] for name in self.shapes if name.startswith(prefix)}
        return len([number for number in numbers if number.isdecimal()])


@dataclasses.dataclass(frozen=True)
class Hook:
    """How the values of some tensors become those of some parameters, and back.

    Attributes:
      load: arrays of the checkpoint -> our arrays.
      export: our arrays -> arrays of the checkpoint.
    """

    load: Callable[[Arrays], Arrays]
    export: Callable[[Arrays], Arrays]


def transpose(*axes: int) -> Hook:
    """Every tensor with its axes in another order: ours have theirs in the order `axes`."""
    inverse = tuple(int(axis) for axis in np.argsort(axes))
    return Hook(
        lambda arrays: [x.transpose(axes) for x in arrays], lambda arrays: [x.transpose(inverse) for x in arrays]
    )


@dataclasses.dataclass(frozen=True)
class Default:
    """The value of a field that neither shapes nor config state: it holds unless the user gives another."""

    value: Any


COPY = Hook(list, list)
LINEAR = transpose(1, 0)  # [out, in] <-> [in, out]
CONV_1D = transpose(2, 1, 0)  # [O, I, W] <-> [W, I, O]
CONV_2D = transpose(2, 3, 1, 0)  # [O, I, H, W] <-> [H, W, I, O]


@dataclasses.dataclass(frozen=True)
class Rule:
    """Some of our parameters, and the tensors of the checkpoint that hold them.

    Attributes:
      ours: paths from the collection on, e.g. `params/layer0/attention/query/kernel`.
      theirs: names, without wrapper prefixes.
      hook: between their values.
      optional: some checkpoints lack the tensors, or some options of the Model leave the parameters out.
      fit: what may differ between the checkpoint's size and the Model's: `positions` are resized to another grid
        [GH, GW, D] as Hugging Face does, `antialiased_positions` as timm does, `channels` adapts a first layer
        [H, W, C, D] to another number of input channels, if asked to.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    hook: Hook = COPY
    optional: bool = False
    fit: str = ""


@dataclasses.dataclass(frozen=True)
class Format:
    """One naming of a family's weights.

    Attributes:
      name: whose it is, e.g. `Hugging Face ViT`.
      markers: tensors that, under one prefix, a checkpoint has if and only if it is of this format.
      fields: source -> the Model's fields; None for one that neither config nor shapes decide (the user must give it),
        a `Default` for one that the user may give.
      rules: (source, fields) -> the tables.
      carried: regular expressions, from the name's start: tensors without use here, kept for export (heads, buffers).
      ignored: likewise, left out (other towers).
      choices: fields that the user may set otherwise than the checkpoint has them, and that no rule depends on.
      model_types: what `model_type` of a Hugging Face `config.json` may be.
      classes: regular expression of what each of its `architectures` may be.
      timm: regular expression of what `architecture` of timm's `config.json` may be.
      timm_args: keys that its `model_args` may have.
    """

    name: str
    markers: tuple[str, ...]
    fields: Callable[[Source], dict[str, Any]]
    rules: Callable[[Source, dict[str, Any]], list[Rule]]
    carried: tuple[str, ...] = BUFFERS
    ignored: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    model_types: tuple[str, ...] = ()
    classes: str = ""
    timm: str = ""
    timm_args: tuple[str, ...] = ()

    def objection(self, config: Mapping[str, Any]) -> str:
        """What in a `config.json` says that a checkpoint is not known to be of this format; empty if nothing does.

        A format that knows of no config has none.
        """
        if not (self.model_types or self.timm):
            return ""
        kind, classes, architecture = (config.get(key) for key in OWN)
        classes = classes if isinstance(classes, list) else [] if classes is None else [classes]
        wrapped = isinstance(kind, str) and kind in TIMM_TYPES and bool(self.timm)
        pattern = TIMM_CLASSES if wrapped else self.classes
        if kind is not None and not (wrapped or kind in self.model_types):
            return f"model_type {kind!r:.80}"
        for name in classes:
            if not re.fullmatch(pattern, str(name)):
                return f"architectures {name!r:.80}"
        if architecture is not None and not re.fullmatch(self.timm, str(architecture).split(".")[0]):
            return f"architecture {architecture!r:.80}"
        if wrapped and architecture is None:
            return "no architecture"
        arguments = config.get("model_args") or {}
        if not isinstance(arguments, Mapping):
            return f"model_args {arguments!r:.80}"
        others = [f"model_args {key}" for key in arguments if key not in self.timm_args]
        others += [key for key in ("auto_map", "quantization_config") if config.get(key)]
        return ", ".join(others[:1])


def copy(ours: str, theirs: str, **kwargs: Any) -> list[Rule]:
    """One parameter, `ours` under params, that is stored as it is."""
    return [Rule((f"params/{ours}",), (theirs,), **kwargs)]


def dense(ours: str, theirs: str, bias: bool = True, **kwargs: Any) -> list[Rule]:
    """nn.Dense <- torch.nn.Linear."""
    return _layer(ours, theirs, LINEAR, bias, **kwargs)


def conv_1d(ours: str, theirs: str, bias: bool = True, **kwargs: Any) -> list[Rule]:
    """Kernel [W, I, O] <- torch.nn.Conv1d."""
    return _layer(ours, theirs, CONV_1D, bias, **kwargs)


def conv_2d(ours: str, theirs: str, bias: bool = True, **kwargs: Any) -> list[Rule]:
    """Kernel [H, W, I, O] <- torch.nn.Conv2d; `fit` concerns the kernel."""
    return _layer(ours, theirs, CONV_2D, bias, **kwargs)


def layer_norm(ours: str, theirs: str, **kwargs: Any) -> list[Rule]:
    """nn.LayerNorm <- torch.nn.LayerNorm."""
    return [*copy(f"{ours}/scale", f"{theirs}.weight", **kwargs), *copy(f"{ours}/bias", f"{theirs}.bias", **kwargs)]


def batch_norm(ours: str, theirs: str) -> list[Rule]:
    """layers.BatchNorm <- torch.nn.BatchNorm*d, less its counter of batches."""
    return [
        *layer_norm(ours, theirs),
        Rule((f"batch_stats/{ours}/mean",), (f"{theirs}.running_mean",)),
        Rule((f"batch_stats/{ours}/var",), (f"{theirs}.running_var",)),
    ]


def _layer(ours: str, theirs: str, hook: Hook, bias: bool, optional: bool = False, fit: str = "") -> list[Rule]:
    rules = [Rule((f"params/{ours}/kernel",), (f"{theirs}.weight",), hook, optional, fit)]
    if bias:
        rules += copy(f"{ours}/bias", f"{theirs}.bias", optional=optional)
    return rules


def activation(name: str) -> str:
    """Our name for an activation of Hugging Face's `hidden_act`.

    Raises:
      UserError: we do not have it.
    """
    if name not in HIDDEN_ACTS:
        raise UserError(f"config.json: activation '{name}' is not supported, only {', '.join(HIDDEN_ACTS)} are")
    return HIDDEN_ACTS[name]
