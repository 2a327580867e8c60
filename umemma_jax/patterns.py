"""Missing patterns: subsets of the modalities, and their names."""

import functools
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from umemma_jax.errors import UserError

Pattern = tuple[bool, ...]

MOST_MODALITIES = 16  # every missing pattern is predicted and reported


def all_patterns(num_modalities: int) -> np.ndarray:
    """Every non-empty subset of M modalities, bool [2^M - 1, M]: the complete one first, single ones last."""
    subsets = itertools.product((True, False), repeat=num_modalities)
    patterns = [subset for subset in subsets if any(subset)]
    return np.array(sorted(patterns, key=lambda pattern: -sum(pattern)))


def pattern_name(pattern: Sequence[bool], modalities: Sequence[str]) -> str:
    """`image+audio` for (True, True)."""
    return "+".join(name for name, kept in zip(modalities, pattern, strict=True) if kept)


def pattern_names(modalities: Sequence[str]) -> list[str]:
    """Those of `all_patterns`, in their order."""
    return [pattern_name(pattern, modalities) for pattern in all_patterns(len(modalities))]


def parse_pattern(name: str, modalities: Sequence[str], where: str) -> Pattern:
    """The pattern of a name, whose modalities may stand in any order.

    Raises:
      UserError: a modality is unknown or stands twice; `where` says whose name it is.
    """
    kept = name.split("+")
    if len(set(kept)) < len(kept) or not set(kept) <= set(modalities):
        raise UserError(f"{where}: unknown pattern '{name}', join some of {', '.join(modalities)} by +")
    return tuple(m in kept for m in modalities)


def pattern_shares(weights: Mapping[str, float], modalities: Sequence[str], where: str) -> list[tuple[Pattern, float]]:
    """Patterns with what they have of the sum of all weights; those of weight 0 are left out.

    Args:
      weights: by pattern name; {}: all are the same.
      modalities: M names.
      where: a user gave the weights.

    Raises:
      UserError: a pattern is unknown, or weights are negative or all zero.
    """
    found = []
    for name, weight in (dict(weights) or dict.fromkeys(pattern_names(modalities), 1.0)).items():
        pattern = parse_pattern(name, modalities, where)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise UserError(f"{where}['{name}'] = {weight}: a weight is a number, 0 or more")
        found.append((pattern, float(weight)))
    total = sum(weight for _, weight in found)
    if total == 0:
        raise UserError(f"{where}: every weight is 0, give at least one pattern a positive weight")
    return [(pattern, weight / total) for pattern, weight in found if weight > 0]


def pattern_numbers(kept: np.ndarray) -> np.ndarray:
    """The number that each subset of M modalities has in `all_patterns`, int32 [...] of bool [..., M]; -1 of none."""
    modalities = kept.shape[-1]
    code = sum(kept[..., m].astype(np.int32) << m for m in range(modalities))  # NumPy multiplies integers slowly
    return _number_of_code(modalities)[code]


@functools.cache
def _number_of_code(num_modalities: int) -> np.ndarray:
    """By the number in which modality m is bit m."""
    found = np.full(1 << num_modalities, -1, np.int32)
    found[all_patterns(num_modalities) @ (1 << np.arange(num_modalities))] = np.arange(len(found) - 1)
    return found
