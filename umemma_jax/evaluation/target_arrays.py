"""Predictions of numbers in a file, as the Gaussian evidence that reports on targets are made of."""

import numpy as np

from umemma_jax.data.targets import Target, standardised
from umemma_jax.evaluation.array_checks import Arrays, numbers, require, take
from umemma_jax.patterns import parse_pattern

AXES = "examples by targets"
LOGITS = {"means": "logits", "unimodal": "unimodal"}  # by the name of means
STDS = {"means": "stds", "unimodal": "unimodal_stds"}


def labels(arrays: Arrays, num_targets: int, where: str) -> np.ndarray:
    """float32 [N, T]."""
    array = take(arrays, where, "labels")
    array = array[:, None] if array.ndim == 1 and num_targets == 1 else array
    require(array.size > 0, where, "are of no examples")
    array = numbers(array, (len(array), num_targets), AXES, where).astype(np.float32)
    require(bool(np.isfinite(array).all()), where, "are not all finite")
    return array


def targets(names: tuple[str, ...], arrays: Arrays, known: np.ndarray) -> tuple[Target, ...]:
    """The targets, with `target_mean` and `target_std` of the file, or else of labels that are known, [N, T]."""
    mean, std = known.mean(axis=0, dtype=float), known.std(axis=0, dtype=float)
    if "target_mean" in arrays or "target_std" in arrays:
        mean, std = (take(arrays, key, key).astype(float) for key in ("target_mean", "target_std"))
        for key, array in (("target_mean", mean), ("target_std", std)):
            require(array.shape == (len(names),), key, f"is not of {len(names)} targets")
            require(bool(np.isfinite(array).all()), key, "is not finite")
    for name, spread in zip(names, std, strict=True):
        require(spread > 0, "target_std", f"of {name} is not above 0")
    return tuple(Target(*of_target) for of_target in zip(names, mean.tolist(), std.tolist(), strict=True))


def as_evidence(
    arrays: Arrays, known: tuple[Target, ...], shape: tuple[int, int], errors: Arrays, where: str
) -> Arrays:
    """`means/...` with `stds/...`, in the units of the targets, as `logits/...` of Gaussian evidence.

    A standard deviation above that of the target itself counts as that: there is no evidence of less than nothing.

    Args:
      arrays: of one split.
      known: T targets.
      shape: (N, T).
      errors: what stands for the deviations of means without any, [T] each, by the name of the means.
      where: names of arrays begin with in messages.

    Raises:
      UserError: an array does not fit, or nothing says how sure a mean is.
    """
    found, spread = {}, [target.std for target in known]
    for key, array in arrays.items():
        kind, _, pattern = key.partition("/")
        if kind in STDS.values():
            means = next(name for name, deviations in STDS.items() if deviations == kind)
            require(f"{means}/{pattern}" in arrays, f"{where}{key}", f"stands without {where}{means}/{pattern}")
        elif kind not in STDS:
            found[key] = array
        else:
            mean = numbers(array, shape, AXES, f"{where}{key}")
            std = _deviations(arrays, f"{STDS[kind]}/{pattern}", errors.get(key), shape, where)
            with np.errstate(all="ignore"):  # in rows that are not read; the others are checked to be finite
                gain = 1 / np.minimum(std / spread, 1) ** 2 - 1
                evidence = standardised(mean, known) * (1 + gain)
            found[f"{LOGITS[kind]}/{pattern}"] = np.concatenate([evidence, gain], axis=1)
    return found


def root_errors(arrays: Arrays, label: np.ndarray, available: np.ndarray, modalities: tuple[str, ...]) -> Arrays:
    """Root mean squared errors [T] of all means, over the examples that have all of the pattern.

    Args:
      arrays: of one split.
      label: [N, T].
      available: bool [N, M].
      modalities: M names.
    """
    found = {}
    for key, mean in arrays.items():
        kind, _, name = key.partition("/")
        if kind in STDS and mean.shape == label.shape:
            rows = available[:, list(parse_pattern(name, modalities, key))].all(axis=1)
            if rows.any():
                found[key] = np.sqrt(np.mean((mean[rows].astype(float) - label[rows]) ** 2, axis=0))
    return found


def _deviations(arrays: Arrays, key: str, error: np.ndarray | None, shape: tuple[int, int], where: str) -> np.ndarray:
    if key in arrays:
        given = numbers(arrays[key], shape, AXES, f"{where}{key}").astype(float)
        require(not bool((given <= 0).any()), f"{where}{key}", "is not above 0 everywhere")
        return given
    require(error is not None, f"{where}{key}", "is missing, and there are no validation means to take it from")
    return np.broadcast_to(error, shape)
