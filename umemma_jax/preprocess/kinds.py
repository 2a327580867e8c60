"""The one table, by kind of modality and form, of what the pipeline's values go through; from a config to an object."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import jax

from umemma_jax.errors import UserError
from umemma_jax.preprocess.audio import Fbank, LogMel, Stft, Waveform
from umemma_jax.preprocess.image import Image
from umemma_jax.preprocess.ranges import unfit
from umemma_jax.preprocess.tabular import Columns, Tabular
from umemma_jax.preprocess.text import Text
from umemma_jax.preprocess.video import Video

# kind -> form -> class; the first form is the default.
KINDS = {
    "image": {"pixels": Image},
    "video": {"frames": Video},
    "audio": {"log_mel": LogMel, "fbank": Fbank, "stft": Stft, "waveform": Waveform},
    "tabular": {"standardised": Tabular, "columns": Columns},
    "text": {"tokens": Text},
}


class Preprocess(Protocol):
    """What `build` returns."""

    def __call__(self, raw: Any, keys: jax.Array | None = None, train: bool = False) -> Any:
        """Raw pytree of B rows, typed PRNG keys [B] (needed in training) -> float32 [B, ...]; text: its pytree."""


def build(kind: str, modality: Any, config: Mapping[str, Any], name: str) -> Preprocess:
    """Makes the preprocess object of a modality.

    Args:
      kind: key of `KINDS`.
      modality: what the dataset states of it, as `umemma_jax.data.kinds.Modality`.
      config: `form`, one of the kind's, by default the first; and fields of its class, which keep their defaults if
        left out.
      name: the modality's, for error messages.

    Raises:
      UserError: unknown kind or key, or a value of the wrong type or range.
    """
    where = f"config.inputs.{name}.preprocess"
    if kind not in KINDS:
        raise UserError(f"{where}: no preprocessing for kind '{kind}', there is {', '.join(sorted(KINDS))}")
    config = dict(config)
    form = config.pop("form", next(iter(KINDS[kind])))
    if not isinstance(form, str) or form not in KINDS[kind]:
        raise UserError(f"{where}.form: '{form}' is none of {', '.join(KINDS[kind])}, the forms of kind '{kind}'")
    preprocess = KINDS[kind][form]
    stated = {key: getattr(modality, key) for key in preprocess.STATED}
    stated = {key: tuple(value) if isinstance(value, list | tuple) else value for key, value in stated.items()}
    fields = {field.name: field.type for field in dataclasses.fields(preprocess)}
    needed = [field.name for field in dataclasses.fields(preprocess) if field.default is dataclasses.MISSING]
    given = {}
    for key, value in config.items():
        if key not in fields:
            raise UserError(f"{where}.{key}: unknown, kind '{kind}' takes {', '.join(fields)}")
        given[key] = _typed(f"{where}.{key}", value, fields[key])
        if isinstance(stated.get(key), tuple) and len(given[key]) != len(stated[key]):
            raise UserError(f"{where}.{key}: {len(given[key])} values, the dataset has {len(stated[key])} channels")
    values = {key: value for key, value in {**stated, **given}.items() if value is not None}
    for key in needed:
        if key not in values:
            raise UserError(f"{where}.{key}: the dataset does not state it, give it here")
    try:
        return preprocess(**values)
    except ValueError as error:
        raise UserError(f"{where}.{error}") from None


def form_of(preprocess: Preprocess) -> str:
    """The form that `build` makes such an object of."""
    return next(form for forms in KINDS.values() for form, made in forms.items() if made is type(preprocess))


def _typed(where: str, value: Any, expected: Any) -> Any:
    """`value` as bool, int, float, str or tuple of floats, whichever is expected, or UserError."""
    if expected == tuple[float, ...] and isinstance(value, list | tuple):
        return tuple(_typed(where, item, float) for item in value)
    if reason := unfit(value):
        raise UserError(f"{where}: {reason}")
    if expected is float and type(value) is int:
        return float(value)
    if type(value) is not expected:
        name = "a list of numbers" if expected == tuple[float, ...] else expected.__name__
        raise UserError(f"{where}: expected {name}, got {value!r}")
    return value
