"""What a pattern should reach at least: the best that uni-modal models make of the modalities that are left."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from umemma_jax.evaluation.headline import Headline
from umemma_jax.evaluation.judgement import Judgement
from umemma_jax.patterns import all_patterns

ENSEMBLE = "ensemble"


@dataclass(frozen=True)
class Ceiling:
    """A pattern beside the hardest of its ceilings, over the examples that both count.

    Attributes:
      model: a modality, whose uni-modal model it is, or ENSEMBLE.
      value: the headline metric of the ceiling.
      pattern_value: that of the pattern.
      number: the ceiling's position among the patterns of the ensemble.
      rows: the examples that both count, bool [N].
    """

    model: str
    value: float
    pattern_value: float
    number: int
    rows: np.ndarray


def ceilings(model: Judgement, ensemble: Judgement, modalities: Sequence[str], headline: Headline) -> list[Ceiling]:
    """Of each pattern the ceiling that it is least above, or most below; values are NaN where no example has any.

    The candidates are the uni-modal models of what is left and, of several modalities, their prior-corrected ensemble.

    Args:
      model: judged under each of P patterns.
      ensemble: the prior-corrected one of the uni-modal models, likewise.
      modalities: M names.
      headline: of the same examples.
    """
    patterns = all_patterns(len(modalities))
    first_single = len(patterns) - len(modalities)
    found = []
    for number, pattern in enumerate(patterns):
        candidates = {modalities[m]: first_single + m for m in np.flatnonzero(pattern)}
        if len(candidates) > 1:
            candidates[ENSEMBLE] = number
        compared = [_ceiling(model, ensemble, headline, number, *candidate) for candidate in candidates.items()]
        defined = [ceiling for ceiling in compared if not np.isnan(ceiling.value)]
        found.append(min(defined or compared[:1], key=lambda ceiling: ceiling.pattern_value - ceiling.value))
    return found


def _ceiling(
    model: Judgement, ensemble: Judgement, headline: Headline, pattern: int, name: str, number: int
) -> Ceiling:
    rows = model.counted[pattern] & ensemble.counted[number]
    value, pattern_value = (headline.value(x, rows) for x in (ensemble.decided[number], model.decided[pattern]))
    return Ceiling(name, value, pattern_value, number, rows)
