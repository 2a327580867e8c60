"""Which differences between methods the data support, over examples and over training seeds.

All methods are measured on the same resamples of the same examples, and a seed's runs are compared with each other:
what makes an example or a seed hard for both methods cancels.

The difference of two methods is the mean over S seeds. It has two sources of error: other examples (se_x, the standard
deviation of that mean over the bootstrap resamples), and other seeds (se_s, the sample standard deviation of the S
differences over sqrt(S)). At the level 1 - alpha its interval reaches

    sqrt((z se_x)^2 + (t se_s)^2)

to both sides, with the quantiles at 1 - alpha/2 of the normal distribution and of Student's t with S - 1 degrees of
freedom: the intervals for each source alone, joined by their squares (MOVER: Zou and Donner 2008, "Construction of
confidence limits about effect measures", section 2). What only shows with one example and one seed is in both terms,
so that the interval is rather too wide than too narrow. In simulations (tests/evaluation/test_paired.py is one) it
holds the true difference 94 to 98 % of the time with 2, 3 and 5 seeds, whichever source is the larger. Resampling both
the examples and the seeds (Owen 2007, "The pigeonhole bootstrap") comes to 72, 78 and 88 % where seeds differ most: two
or three of them are too few to draw from. Satterthwaite's degrees of freedom come to 88, 92 and 94 % there.

With one seed, se_s is unknown and left out: the interval is about these trained models alone.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy  # whose parts are loaded, as they take long, when they are first used
from scipy import special

from umemma_jax.evaluation.bootstrap import Resamples
from umemma_jax.evaluation.decisions import Decisions
from umemma_jax.evaluation.headline import headline_of
from umemma_jax.evaluation.metrics import undefined_as_none
from umemma_jax.evaluation.uncertainty import LEVEL

FALSE_DISCOVERY_RATE = 0.05
SMALLEST_P_VALUE = 1e-12  # beyond which quantiles mean nothing


class Measured(NamedTuple):
    """The headline metric of one run under each of P patterns.

    Attributes:
      values: float64 [P]; NaN where no example defines one.
      resampled: on each of R resamples, float64 [P, R].
    """

    values: np.ndarray
    resampled: np.ndarray


def measured(decisions: Decisions, resamples: Resamples) -> Measured:
    """Measures one run on resamples that all runs share."""
    headline = headline_of(decisions.label, decisions.num_classes, resamples)
    patterns = zip(decisions.decided, decisions.counted, strict=True)
    values = np.array([headline.value(decided, counted) for decided, counted in patterns])
    return Measured(values, headline.resampled(decisions.decided, decisions.counted))


def differences(
    runs: Mapping[str, Sequence[Measured]], patterns: Sequence[str], largest: float = 1.0
) -> list[dict[str, Any]]:
    """Every two methods under every pattern.

    Several are compared at once, and some would differ by chance. `supported` are those that Benjamini and Hochberg's
    procedure (1995) finds, so that of all that it finds at most 5 % are expected to be chance: the choice of Williams,
    Jones and Tukey (1999) for comparisons of all pairs. The intervals are not corrected.

    Args:
      runs: of each method, one per seed, the same seeds in the same order. A method is compared with those before it.
      patterns: P names.
      largest: what values can differ by.

    Returns:
      [{"pattern", "methods": [A, B], "difference": of A minus B, "interval": [low, high], "p_value", "supported"}],
      pattern by pattern, the last method first. Numbers are None where no example defines them.
    """
    pairs = list(itertools.combinations(reversed(runs), 2))
    by_pair = {pair: of_patterns(*(runs[method] for method in pair), largest) for pair in pairs}
    found = [
        {"pattern": pattern, "methods": list(pair), **by_pair[pair][p]}
        for p, pattern in enumerate(patterns)
        for pair in pairs
    ]
    supported = _supported(np.array([one["p_value"] for one in found]))
    return undefined_as_none([{**one, "supported": mark} for one, mark in zip(found, supported, strict=True)])


def of_patterns(runs: Sequence[Measured], others: Sequence[Measured], largest: float) -> list[dict[str, Any]]:
    """Of one method minus another under each pattern: "difference", "interval" and "p_value", NaN where undefined.

    Where one seed's numbers are known without those on resamples, the error is unknown: so are interval and p-value.

    Args:
      runs: one per seed.
      others: of the other method, the same seeds in the same order.
      largest: what values can differ by.
    """
    pairs = list(zip(runs, others, strict=True))
    by_seed = np.array([run.values - other.values for run, other in pairs])  # [S, P]
    resampled = np.mean([run.resampled - other.resampled for run, other in pairs], axis=0)  # [P, R]
    return [_difference(*of_pattern, largest) for of_pattern in zip(by_seed.T, resampled, strict=True)]


def _difference(by_seed: np.ndarray, resampled: np.ndarray, largest: float) -> dict[str, Any]:
    """From the differences of each seed [S], and their mean on each resample [R]."""
    mean, seeds = float(by_seed.mean()), len(by_seed)
    if np.isnan(mean):
        return {"difference": np.nan, "interval": [np.nan, np.nan], "p_value": np.nan}
    if seeds == 1 and np.isnan(resampled).all():
        return {"difference": mean, "interval": [np.nan, np.nan], "p_value": np.nan}
    of_examples = float(np.nanstd(resampled, ddof=1))
    of_seeds = float(by_seed.std(ddof=1) / np.sqrt(seeds)) if seeds > 1 else 0.0

    def reach(alpha: float) -> float:
        by_examples = special.ndtri(alpha / 2) * of_examples
        by_seeds = special.stdtrit(seeds - 1, alpha / 2) * of_seeds if seeds > 1 else 0.0
        return float(np.hypot(by_examples, by_seeds))

    width = reach(1 - LEVEL)
    ends = [max(mean - width, -largest), min(mean + width, largest)]
    return {"difference": mean, "interval": ends, "p_value": _p_value(abs(mean), reach)}


def _p_value(size: float, reach: Callable[[float], float]) -> float:
    """The alpha at which an interval just reaches 0."""
    if size <= reach(1.0):
        return 1.0
    if size >= reach(SMALLEST_P_VALUE):
        return SMALLEST_P_VALUE
    return scipy.optimize.brentq(lambda alpha: reach(alpha) - size, SMALLEST_P_VALUE, 1.0)


def _supported(p_values: np.ndarray) -> list[bool]:
    """NaN is not, and does not count."""
    defined = ~np.isnan(p_values)
    found = np.zeros(len(p_values), bool)
    found[defined] = scipy.stats.false_discovery_control(p_values[defined]) <= FALSE_DISCOVERY_RATE
    return found.tolist()
