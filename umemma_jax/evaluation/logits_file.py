"""Logits of any model from a file: docs/logits.md has the format.

Nothing in the file is believed: what does not fit ends in one line.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from umemma_jax.data import npz
from umemma_jax.errors import UserError
from umemma_jax.evaluation.split_logits import PriorCorrected, SplitLogits, find_prior
from umemma_jax.patterns import (
    MOST_MODALITIES,
    all_patterns,
    parse_pattern,
    pattern_name,
    pattern_names,
    pattern_numbers,
)

Arrays = dict[str, np.ndarray]

VALIDATION = "validation/"  # begins the names of what is of the validation examples
OF_FILE = ("modalities", "classes", "prior")


@dataclass(frozen=True)
class LogitsFile:
    """What a file says.

    Attributes:
      test: examples to report on.
      validation: others to calibrate on, or None.
      prior: log-prior of the classes, float [K], multi-label their logits.
      prior_source: where it comes from.
      is_ensemble: whether patterns of several modalities are the prior-corrected ensemble of logits of single ones.
    """

    test: SplitLogits
    validation: SplitLogits | None
    prior: np.ndarray
    prior_source: str
    is_ensemble: bool


def read(path: Path) -> LogitsFile:
    """Reads a file of logits.

    Raises:
      UserError: it cannot be read, or something in it does not fit: which array, and how.
    """
    try:
        with path.open("rb") as file:
            arrays = npz.decode(file)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is not what numpy.savez writes of plain arrays: {error}") from error
    try:
        return _read(arrays)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _read(arrays: Arrays) -> LogitsFile:
    _require("targets" not in arrays, "targets", "regression is reported of runs, not of files yet: give classes")
    modalities, classes = _names(arrays, "modalities"), _names(arrays, "classes")
    _require(2 <= len(modalities) <= MOST_MODALITIES, "modalities", f"name 2 to {MOST_MODALITIES}")
    _require(
        not any("+" in name for name in modalities), "modalities", "a name has a '+', which joins those of patterns"
    )
    test = {key: array for key, array in arrays.items() if not key.startswith(VALIDATION) and key not in OF_FILE}
    validation = {key.removeprefix(VALIDATION): x for key, x in arrays.items() if key.startswith(VALIDATION)}
    found = _split(test, modalities, classes, "")
    other = _split(validation, modalities, classes, VALIDATION) if validation else None
    if other is not None:
        same = (other.logits.keys(), other.unimodal.keys()) == (found.logits.keys(), found.unimodal.keys())
        _require(same, "validation/logits", "are not of the same patterns as logits")
        _require(other.label.ndim == found.label.ndim, "validation/labels", "are not of the form of labels")
    given = _prior(arrays, found.label.ndim == 2, len(classes)) if "prior" in arrays else None
    prior, source = find_prior(given, None if other is None else other.label, found.label, len(classes))
    is_ensemble = all(name in modalities for name in found.logits)
    return LogitsFile(
        found.said(modalities, classes, prior),
        None if other is None else other.said(modalities, classes, prior),
        prior,
        source,
        is_ensemble,
    )


@dataclass(frozen=True)
class _Split:
    """Arrays of one split that fit; logits and unimodal are by names in the order of the modalities."""

    label: np.ndarray
    available: np.ndarray
    logits: Arrays
    unimodal: Arrays

    def said(self, modalities: tuple[str, ...], classes: tuple[str, ...], prior: np.ndarray) -> SplitLogits:
        """With the ensemble in place of patterns that are not given."""
        patterns, unimodal = self.logits, self.unimodal
        if set(patterns) == set(modalities):
            unimodal = patterns
            patterns = PriorCorrected(modalities, self.available, unimodal, prior)
        elif not self.available.all():
            patterns = OfWhatIsLeft(modalities, self.available, patterns)
        return SplitLogits(modalities, classes, self.label, self.available, patterns, unimodal)


class OfWhatIsLeft(Mapping[str, np.ndarray]):
    """Logits under each pattern; an example that lacks some of it has those of the pattern that it is left with."""

    def __init__(self, modalities: tuple[str, ...], available: np.ndarray, given: Arrays) -> None:
        """Takes M names, presence bool [N, M], and logits [N, K] by pattern name."""
        self._names, self._patterns = pattern_names(modalities), all_patterns(len(modalities))
        self._available, self._given = available, given

    def __getitem__(self, name: str) -> np.ndarray:
        """float32 [N, K]; zeros where an example has nothing of the pattern."""
        left = pattern_numbers(self._available & self._patterns[self._names.index(name)])
        found = np.zeros_like(self._given[name])
        for number in np.unique(left[left >= 0]):
            rows = left == number
            found[rows] = self._given[self._names[number]][rows]
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


# Checks.


def _split(arrays: Arrays, modalities: tuple[str, ...], classes: tuple[str, ...], where: str) -> _Split:
    label = _labels(_take(arrays, f"{where}labels", "labels"), len(classes), f"{where}labels")
    available = _presence(arrays.get("present"), (len(label), len(modalities)), f"{where}present")
    logits, unimodal = {}, {}
    for key in sorted(arrays.keys() - {"labels", "present"}):
        kind, _, name = key.partition("/")
        _require(kind in ("logits", "unimodal") and name != "", f"{where}{key}", "unknown, see docs/logits.md")
        pattern = parse_pattern(name, modalities, f"{where}{key}")
        rows = available[:, list(pattern)].all(axis=1)
        checked = _logits(arrays[key], rows, (len(label), len(classes)), f"{where}{key}")
        found, known = pattern_name(pattern, modalities), logits if kind == "logits" else unimodal
        _require(found not in known, f"{where}{key}", "stands twice")
        known[found] = checked
    _check_patterns(logits, unimodal, modalities, where)
    return _Split(label, available, logits, unimodal)


def _check_patterns(logits: Arrays, unimodal: Arrays, modalities: tuple[str, ...], where: str) -> None:
    several = [name for name in logits if name not in modalities]
    for name in pattern_names(modalities) if several else modalities:
        _require(name in logits, f"{where}logits/{name}", "is missing: give every pattern, or each modality alone")
    for name in modalities if unimodal else ():
        _require(name in unimodal, f"{where}unimodal/{name}", "is missing: give them of every modality, or of none")
    _require(bool(several) or not unimodal, f"{where}unimodal", "are ceilings of a model with logits of every pattern")
    odd = next((name for name in unimodal if name not in modalities), None)
    _require(odd is None, f"{where}unimodal/{odd}", "is of several modalities")


def _take(arrays: Arrays, where: str, name: str) -> np.ndarray:
    _require(name in arrays, where, "is missing, see docs/logits.md")
    return arrays[name]


def _names(arrays: Arrays, key: str) -> tuple[str, ...]:
    array = _take(arrays, key, key)
    _require(array.dtype.kind == "U" and array.ndim == 1, key, "are no names, an array of str")
    names = tuple(array.tolist())
    _require(len(set(names)) == len(names) > 0 and all(names), key, "a name is empty or stands twice, or there is none")
    return names


def _labels(array: np.ndarray, num_classes: int, where: str) -> np.ndarray:
    """int [N], or bool [N, K]."""
    _require(array.size > 0, where, "are of no examples")
    if array.ndim == 2:
        _require(
            array.shape[1] == num_classes, where, f"have {array.shape[1]} columns, there are {num_classes} classes"
        )
        _require(bool(np.isin(array, (0, 1)).all()), where, "are of several columns, which must hold 0 and 1")
        return array.astype(bool)
    _require(array.ndim == 1 and array.dtype.kind in "iu", where, f"are {array.dtype}{list(array.shape)}, not int [N]")
    inside = bool((array >= 0).all() and (array < num_classes).all())
    _require(inside, where, f"are {array.min()} to {array.max()}: there are classes 0 to {num_classes - 1}")
    return array.astype(np.int64)


def _presence(array: np.ndarray | None, shape: tuple[int, int], where: str) -> np.ndarray:
    if array is None:
        return np.ones(shape, bool)
    _require(array.shape == shape, where, f"is {list(array.shape)}, not {list(shape)}: examples by modalities")
    _require(bool(np.isin(array, (0, 1)).all()), where, "must hold True and False")
    return array.astype(bool)


def _logits(array: np.ndarray, rows: np.ndarray, shape: tuple[int, int], where: str) -> np.ndarray:
    """float32 [N, K], zero in rows that are not read."""
    _require(array.shape == shape, where, f"is {list(array.shape)}, not {list(shape)}: examples by classes")
    _require(array.dtype.kind in "fiu", where, f"is of type {array.dtype}")
    with np.errstate(over="ignore"):
        read = np.where(rows[:, None], array, 0).astype(np.float32)
    finite = np.isfinite(read).all(axis=1)
    _require(bool(finite.all()), where, f"is not finite in row {finite.argmin()}")
    return read


def _prior(arrays: Arrays, multi_label: bool, num_classes: int) -> np.ndarray:
    """The logarithm of probabilities, or their logit."""
    array = arrays["prior"]
    fits = array.shape == (num_classes,) and array.dtype.kind == "f"
    _require(
        fits and bool((array > 0).all() and (array < 1).all()), "prior", f"is not of {num_classes} shares in (0, 1)"
    )
    if multi_label:
        return np.log(array / (1 - array)).astype(np.float32)
    return np.log(array / array.sum()).astype(np.float32)


def _require(condition: bool, where: str, remedy: str) -> None:
    if not condition:
        raise UserError(f"{where}: {remedy}")
