"""Bootstrap intervals of the headline metric, and of its paired differences: the key `uncertainty` of report.json."""

from collections.abc import Sequence

import numpy as np

from umemma_jax.evaluation.bootstrap import interval
from umemma_jax.evaluation.ceilings import Ceiling
from umemma_jax.evaluation.headline import Headline
from umemma_jax.evaluation.judgement import Judgement

LEVEL = 0.95


def of_patterns(judgement: Judgement, names: Sequence[str], headline: Headline) -> dict[str, list[float]]:
    """The interval of each of P patterns."""
    return _intervals(names, headline.resampled(judgement.decided, judgement.counted))


def lost(model: Judgement, names: Sequence[str], headline: Headline) -> dict[str, list[float]]:
    """Of complete minus each other pattern, over the examples that the pattern counts."""
    counted = model.counted[1:]
    whole = np.broadcast_to(model.decided[0], model.decided[1:].shape)
    difference = headline.resampled(whole, counted) - headline.resampled(model.decided[1:], counted)
    return _intervals(names[1:], difference)


def gained(changed: Judgement, model: Judgement, names: Sequence[str], headline: Headline) -> dict[str, list[float]]:
    """Of each pattern as changed minus as it was."""
    difference = headline.resampled(changed.decided, model.counted) - headline.resampled(model.decided, model.counted)
    return _intervals(names, difference)


def to_ceiling(
    model: Judgement, ensemble: Judgement, found: Sequence[Ceiling], names: Sequence[str], headline: Headline
) -> dict[str, list[float]]:
    """Of each pattern minus its ceiling, over the examples that both count."""
    rows, limit = np.stack([ceiling.rows for ceiling in found]), ensemble.decided[[ceiling.number for ceiling in found]]
    return _intervals(names, headline.resampled(model.decided, rows) - headline.resampled(limit, rows))


def _intervals(names: Sequence[str], resampled: np.ndarray) -> dict[str, list[float]]:
    """Of each row of [names, R]."""
    ends = np.stack(interval(resampled, LEVEL), axis=1)
    return dict(zip(names, ends.tolist(), strict=True))
