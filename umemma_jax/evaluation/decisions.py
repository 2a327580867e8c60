"""What a model has decided about each example, kept beside its report so that methods can be compared afterwards."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from umemma_jax.data import bounds, files, npz
from umemma_jax.errors import UserError

FILE_NAME = "decisions.npz"


@dataclass(frozen=True)
class Decisions:
    """The decisions that the headline metric is of, about N examples under each of P patterns.

    Attributes:
      patterns: P names.
      num_classes: K; 0 of targets.
      label: int [N], or bool [N, K]; of targets float32 [N, T].
      counted: which examples have anything of each pattern, bool [P, N]; what the others are said to be means nothing.
      decided: int [P, N], or bool [P, N, K]; of targets float32 [P, N, T].
    """

    patterns: tuple[str, ...]
    num_classes: int
    label: np.ndarray
    counted: np.ndarray
    decided: np.ndarray


def encode(decisions: Decisions) -> bytes:
    """The content of decisions.npz: classes as the smallest unsigned integers, packed bits of multi-label data.

    Its arrays are `patterns`, `classes` (K), `label`, `counted` and `decided`, bits packed along the last axis. The
    file's own CRC-32 of each array tells damage.
    """
    compact = _form(decisions)
    arrays = {
        "patterns": np.array(decisions.patterns),
        "classes": np.array(decisions.num_classes),
        "label": compact(decisions.label),
        "counted": _packed(decisions.counted),
        "decided": compact(decisions.decided),
    }
    return npz.encode(arrays)


def _form(decisions: Decisions) -> Callable[[np.ndarray], np.ndarray]:
    if not decisions.num_classes:
        return np.float32
    return _packed if decisions.label.ndim == 2 else np.min_scalar_type(decisions.num_classes - 1).type


def read(folder: Path, patterns: Sequence[str], examples: int) -> Decisions:
    """The decisions about so many examples under these patterns that stand in a folder.

    Raises:
      UserError: the file cannot be read, is damaged, or is of other examples or patterns.
    """
    path = folder / FILE_NAME
    try:
        with open(files.opened(path), "rb") as file:
            found = _decoded(npz.decode(file), examples)
        if found.patterns != tuple(patterns):
            raise ValueError("it is of other patterns")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is damaged ({error}): remove it, and the same command evaluates the run again"
        ) from error
    return found


def _decoded(arrays: dict[str, np.ndarray], examples: int) -> Decisions:
    """Raises KeyError, TypeError or ValueError where an array is missing or of another form."""
    patterns, num_classes = tuple(arrays["patterns"].tolist()), int(arrays["classes"])
    bounds.check("classes", num_classes, bounds.CLASSES)
    label, decided = arrays["label"], arrays["decided"]
    if not num_classes:
        if label.ndim != 2 or (label.dtype, decided.dtype) != (np.float32, np.float32):
            raise ValueError("labels or predictions are no targets")
    elif label.ndim == 2:
        label, decided = _unpacked(label, num_classes), _unpacked(decided, num_classes)
    elif label.ndim != 1 or label.dtype.kind + decided.dtype.kind != "uu":
        raise ValueError("labels or decisions are no classes")
    elif max(label.max(), decided.max()) >= num_classes:
        raise ValueError(f"it has more than {num_classes} classes")
    counted = _unpacked(arrays["counted"], examples)
    if counted.shape != (len(patterns), len(label)) or decided.shape != (len(patterns), *label.shape):
        raise ValueError(f"it is not of {examples} examples under {len(patterns)} patterns")
    return Decisions(patterns, num_classes, label, counted, decided)


def _packed(bits: np.ndarray) -> np.ndarray:
    return np.packbits(bits, axis=-1)


def _unpacked(packed: np.ndarray, count: int) -> np.ndarray:
    """As many bits along the last axis, bool."""
    if packed.shape[-1:] != (-(-count // 8),):
        raise ValueError(f"{count} bits are not what {list(packed.shape)} bytes hold")
    return np.unpackbits(packed, axis=-1, count=count).astype(bool)
