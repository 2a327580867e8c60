"""The missing-rate grid: every cell chooses, per example, among the predictions under the missing patterns."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from umemma_jax.evaluation.bootstrap import interval
from umemma_jax.evaluation.headline import Headline
from umemma_jax.evaluation.judgement import Judgement
from umemma_jax.missing_rates import GridTables, independent_ranks, keep_independent, table_hash
from umemma_jax.patterns import pattern_numbers


def missing_rates(
    model: Judgement, tables: GridTables, modalities: Sequence[str], headline: Headline
) -> list[dict[str, Any]]:
    """The cells of report.json's `missing_rates`: each modality lost alone, and mixed, at every rate."""
    cells = [
        {"kind": kind, "rate": rate, **_cell(model, tables[name], modalities)}
        for name, (kind, rate) in tables.cells.items()
    ]
    decided = (model.chosen(pattern_numbers(table)) for table in tables.values())  # of one cell at a time
    low, high = interval(headline.resampled_means(decided, model.counted[0]))
    return [{**cell, "interval": list(ends)} for cell, *ends in zip(cells, low.tolist(), high.tolist(), strict=True)]


def _cell(model: Judgement, table: np.ndarray, modalities: Sequence[str]) -> dict[str, Any]:
    """What a cell's table, bool [seeds, N, M], comes to."""
    seeds, rows, _ = table.shape
    choices = pattern_numbers(table)
    scores = [model.scores_of(choice) for choice in choices]
    lost = [1.0 - np.count_nonzero(table[..., m]) / (seeds * rows) for m in range(len(modalities))]
    return {
        "rates": dict(zip(modalities, lost, strict=True)),
        "seeds": seeds,
        "complete": float(np.mean(choices == 0)),
        "mean": {name: float(np.mean([one[name] for one in scores])) for name in scores[0]},
        "std": {name: float(np.std([one[name] for one in scores])) for name in scores[0]},
        "nll": float(np.mean([_mean_nll(model, choice) for choice in choices])),
        "table_sha256": table_hash(table),
    }


def _mean_nll(model: Judgement, choice: np.ndarray) -> float:
    rows = np.flatnonzero(choice >= 0)
    return model.nll[choice[rows], rows].mean() if len(rows) else np.nan


def unequal(
    model: Judgement,
    available: np.ndarray,
    rates: Sequence[float],
    seeds: int,
    modalities: Sequence[str],
    headline: Headline,
) -> dict[str, Any]:
    """A cell in which each modality is lost by itself at a rate of its own, less `kind` and `rate`.

    Args:
      model: judged under every pattern.
      available: bool [N, M], what the data has.
      rates: of the M modalities.
      seeds: draws 0, 1, ... of `independent_ranks`.
      modalities: M names.
      headline: of the same examples.
    """
    counts = [round(rate * len(available)) for rate in rates]
    draws = (independent_ranks(*available.shape, seed) for seed in range(seeds))
    table = np.stack([keep_independent(available, rank, counts) for rank in draws])
    decided = model.chosen(pattern_numbers(table))
    (low,), (high,) = interval(headline.resampled_means([decided], model.counted[0]))
    return {**_cell(model, table, modalities), "interval": [float(low), float(high)]}


def rate_maps(
    model: Judgement,
    available: np.ndarray,
    modalities: Sequence[str],
    rates: Sequence[float],
    seeds: int,
    headline: Headline,
) -> list[dict[str, Any]]:
    """For each two modalities the headline where either is lost at a rate of its own, mean over the seeds.

    Args:
      model: judged under every pattern.
      available: bool [N, M], what the data has.
      modalities: M names.
      rates: of one modality, and of the other.
      seeds: draws 0, 1, ... of `independent_ranks`.
      headline: of the same examples.
    """
    ranks = [independent_ranks(*available.shape, seed) for seed in range(seeds)]

    def value(pair: tuple[int, int], pair_rates: tuple[float, float]) -> float:
        counts = np.zeros(len(modalities), int)
        counts[list(pair)] = [round(rate * len(available)) for rate in pair_rates]
        kept = [pattern_numbers(keep_independent(available, rank, counts)) for rank in ranks]
        return float(np.mean([headline.value(model.chosen(choice), choice >= 0) for choice in kept]))

    return [
        {
            "modalities": [modalities[m] for m in pair],
            "rates": list(rates),
            "values": [[value(pair, (a, b)) for b in rates] for a in rates],
        }
        for pair in itertools.combinations(range(len(modalities)), 2)
    ]
