"""Tables between a PyTorch checkpoint and an encoder: what an encoder module exports beside its Model.

An encoder whose weights can be converted exports `FORMATS`, one `Format` for each naming that they go by. A format
reads the Model's fields from the checkpoint, and gives the rules that rename and rearrange its tensors; the driver
(`umemma_jax.weights.convert`) is the same for all of them. Rules run both ways: what is loaded can be exported again.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from umemma_jax.errors import UserError

Shape = tuple[int, ...]
Arrays = list[np.ndarray]

# Buffers of PyTorch modules that hold nothing learned; they are carried along for a strict `load_state_dict`.
BUFFERS = (r".*\bnum_batches_tracked$", r".*\bposition_ids$", r".*\btoken_type_ids$")

# Names in Hugging Face's configs, and ours.
HIDDEN_ACTS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
}


@dataclasses.dataclass(frozen=True)
class Source:
    """What is known of a checkpoint before its tensors are read.

    Attributes:
      shapes: of its tensors by name, without wrapper prefixes.
      config: contents of the `config.json` beside it; {} where there is none.
    """

    shapes: Mapping[str, Shape]
    config: Mapping[str, Any]

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
        [GH, GW, D], `channels` adapts a first layer [H, W, C, D] to another number of input channels, if asked to.
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
      fields: source -> the Model's fields; None for one that neither config nor shapes decide (the user must give it).
      rules: (source, fields) -> the tables.
      carried: regular expressions, from the name's start: tensors without use here, kept for export (heads, buffers).
      ignored: likewise, left out (other towers).
      model_types: what `model_type` of `config.json` may be; empty: anything.
    """

    name: str
    markers: tuple[str, ...]
    fields: Callable[[Source], dict[str, Any]]
    rules: Callable[[Source, dict[str, Any]], list[Rule]]
    carried: tuple[str, ...] = BUFFERS
    ignored: tuple[str, ...] = ()
    model_types: tuple[str, ...] = ()


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
