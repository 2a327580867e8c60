"""Logits of any model from a file: docs/logits.md has the format.

Nothing in the file is believed: what does not fit ends in one line.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from umemma_jax import gaussian
from umemma_jax.data import npz
from umemma_jax.data.targets import Target
from umemma_jax.errors import UserError
from umemma_jax.evaluation import target_arrays
from umemma_jax.evaluation.array_checks import Arrays, finite, names, numbers, require, take
from umemma_jax.evaluation.split_logits import PriorCorrected, SplitLogits, find_prior
from umemma_jax.patterns import (
    MOST_MODALITIES,
    all_patterns,
    parse_pattern,
    pattern_name,
    pattern_names,
    pattern_numbers,
)

VALIDATION = "validation/"  # begins the names of what is of the validation examples
OF_FILE = ("modalities", "classes", "prior", "targets", "target_mean", "target_std")


@dataclass(frozen=True)
class LogitsFile:
    """What a file says.

    Attributes:
      test: examples to report on.
      validation: others to calibrate on, or None.
      prior: log-prior of the classes, float [K], multi-label their logits; of T targets, zeros [2 T].
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
    modalities = names(arrays, "modalities")
    require(2 <= len(modalities) <= MOST_MODALITIES, "modalities", f"name 2 to {MOST_MODALITIES}")
    require(
        not any("+" in name for name in modalities), "modalities", "a name has a '+', which joins those of patterns"
    )
    test = {key: array for key, array in arrays.items() if not key.startswith(VALIDATION) and key not in OF_FILE}
    validation = {key.removeprefix(VALIDATION): x for key, x in arrays.items() if key.startswith(VALIDATION)}
    read = _of_targets if "targets" in arrays else _of_classes
    found, other, prior, source = read(arrays, modalities, test, validation)
    if other is not None:
        same = (other.logits.keys(), other.unimodal.keys()) == (found.logits.keys(), found.unimodal.keys())
        require(same, "validation/logits", "are not of the same patterns as logits")
    is_ensemble = all(name in modalities for name in found.logits)
    given = None if other is None else other.said(modalities, prior)
    return LogitsFile(found.said(modalities, prior), given, prior, source, is_ensemble)


def _of_classes(arrays: Arrays, modalities: tuple[str, ...], test: Arrays, validation: Arrays) -> "_Read":
    classes = names(arrays, "classes")

    def split(given: Arrays, where: str) -> _Split:
        label = _labels(take(given, f"{where}labels", "labels"), len(classes), f"{where}labels")
        return _split(given, modalities, _Labels(label, classes, ()), where)

    found = split(test, "")
    other = split(validation, VALIDATION) if validation else None
    if other is not None:
        require(other.label.ndim == found.label.ndim, "validation/labels", "are not of the form of labels")
    given = _prior(arrays, found.label.ndim == 2, len(classes)) if "prior" in arrays else None
    return found, other, *find_prior(given, None if other is None else other.label, found.label, len(classes))


def _of_targets(arrays: Arrays, modalities: tuple[str, ...], test: Arrays, validation: Arrays) -> "_Read":
    of_targets = names(arrays, "targets")
    for key in ("classes", "prior"):
        require(key not in arrays, key, "is of classes, and there are targets")
    label = target_arrays.labels(test, len(of_targets), "labels")
    validated = target_arrays.labels(validation, len(of_targets), "validation/labels") if validation else None
    targets = target_arrays.targets(of_targets, arrays, label if validated is None else validated)
    errors = {}
    if validated is not None:
        shape = (len(validated), len(modalities))
        available = _presence(validation.get("present"), shape, "validation/present")
        errors = target_arrays.root_errors(validation, validated, available, modalities)

    def split(given: Arrays, label: np.ndarray, where: str) -> _Split:
        evidence = target_arrays.as_evidence(given, targets, label.shape, errors, where)
        return _split(evidence, modalities, _Labels(label, (), targets), where)

    other = split(validation, validated, VALIDATION) if validated is not None else None
    return split(test, label, ""), other, np.zeros(gaussian.width(len(targets)), np.float32), "targets"


class _Labels(NamedTuple):
    """What examples are labelled with, of `classes` or of `targets`."""

    label: np.ndarray
    classes: tuple[str, ...]
    targets: tuple[Target, ...]

    @property
    def width(self) -> int:
        """Numbers of the logits."""
        return len(self.classes) or gaussian.width(len(self.targets))


@dataclass(frozen=True)
class _Split:
    """Arrays of one split that fit; logits and unimodal are by names in the order of the modalities."""

    labelled: _Labels
    available: np.ndarray
    logits: Arrays
    unimodal: Arrays

    @property
    def label(self) -> np.ndarray:
        """Of the examples."""
        return self.labelled.label

    def said(self, modalities: tuple[str, ...], prior: np.ndarray) -> SplitLogits:
        """With the ensemble in place of patterns that are not given."""
        patterns, unimodal = self.logits, self.unimodal
        if set(patterns) == set(modalities):
            unimodal = patterns
            patterns = PriorCorrected(modalities, self.available, unimodal, prior)
        elif not self.available.all():
            patterns = OfWhatIsLeft(modalities, self.available, patterns)
        label, classes, targets = self.labelled
        return SplitLogits(modalities, classes, label, self.available, patterns, unimodal, targets)


_Read = tuple[_Split, _Split | None, np.ndarray, str]


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


def _split(arrays: Arrays, modalities: tuple[str, ...], labelled: _Labels, where: str) -> _Split:
    shape = (len(labelled.label), labelled.width)
    available = _presence(arrays.get("present"), (len(labelled.label), len(modalities)), f"{where}present")
    logits, unimodal = {}, {}
    for key in sorted(arrays.keys() - {"labels", "present"}):
        kind, _, name = key.partition("/")
        require(kind in ("logits", "unimodal") and name != "", f"{where}{key}", "unknown, see docs/logits.md")
        pattern = parse_pattern(name, modalities, f"{where}{key}")
        rows = available[:, list(pattern)].all(axis=1)
        checked = finite(numbers(arrays[key], shape, "examples by classes", f"{where}{key}"), rows, f"{where}{key}")
        found, known = pattern_name(pattern, modalities), logits if kind == "logits" else unimodal
        require(found not in known, f"{where}{key}", "stands twice")
        known[found] = checked
    _check_patterns(logits, unimodal, modalities, where)
    return _Split(labelled, available, logits, unimodal)


def _check_patterns(logits: Arrays, unimodal: Arrays, modalities: tuple[str, ...], where: str) -> None:
    several = [name for name in logits if name not in modalities]
    for name in pattern_names(modalities) if several else modalities:
        require(name in logits, f"{where}logits/{name}", "is missing: give every pattern, or each modality alone")
    for name in modalities if unimodal else ():
        require(name in unimodal, f"{where}unimodal/{name}", "is missing: give them of every modality, or of none")
    require(bool(several) or not unimodal, f"{where}unimodal", "are ceilings of a model with logits of every pattern")
    odd = next((name for name in unimodal if name not in modalities), None)
    require(odd is None, f"{where}unimodal/{odd}", "is of several modalities")


def _labels(array: np.ndarray, num_classes: int, where: str) -> np.ndarray:
    """int [N], or bool [N, K]."""
    require(array.size > 0, where, "are of no examples")
    if array.ndim == 2:
        require(array.shape[1] == num_classes, where, f"have {array.shape[1]} columns, there are {num_classes} classes")
        require(bool(np.isin(array, (0, 1)).all()), where, "are of several columns, which must hold 0 and 1")
        return array.astype(bool)
    require(array.ndim == 1 and array.dtype.kind in "iu", where, f"are {array.dtype}{list(array.shape)}, not int [N]")
    inside = bool((array >= 0).all() and (array < num_classes).all())
    require(inside, where, f"are {array.min()} to {array.max()}: there are classes 0 to {num_classes - 1}")
    return array.astype(np.int64)


def _presence(array: np.ndarray | None, shape: tuple[int, int], where: str) -> np.ndarray:
    if array is None:
        return np.ones(shape, bool)
    require(array.shape == shape, where, f"is {list(array.shape)}, not {list(shape)}: examples by modalities")
    require(bool(np.isin(array, (0, 1)).all()), where, "must hold True and False")
    return array.astype(bool)


def _prior(arrays: Arrays, multi_label: bool, num_classes: int) -> np.ndarray:
    """The logarithm of probabilities, or their logit."""
    array = arrays["prior"]
    fits = array.shape == (num_classes,) and array.dtype.kind == "f"
    require(
        fits and bool((array > 0).all() and (array < 1).all()), "prior", f"is not of {num_classes} shares in (0, 1)"
    )
    if multi_label:
        return np.log(array / (1 - array)).astype(np.float32)
    return np.log(array / array.sum()).astype(np.float32)
