"""The robustness report of any model, from its logits alone: what is lost when what is missing, why, and how sure."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from umemma_jax.errors import UserError
from umemma_jax.evaluation import grid, label_free_bias, summaries, uncertainty
from umemma_jax.evaluation.bootstrap import Resamples
from umemma_jax.evaluation.ceilings import Ceiling, ceilings
from umemma_jax.evaluation.decisions import Decisions
from umemma_jax.evaluation.headline import Headline
from umemma_jax.evaluation.judgement import Judgement
from umemma_jax.evaluation.kinds import Calibration, Kind, kind_of
from umemma_jax.evaluation.metrics import undefined_as_none
from umemma_jax.evaluation.split_logits import SplitLogits
from umemma_jax.missing_rates import GridTables


@dataclass(frozen=True)
class Options:
    """What a report is asked for.

    Attributes:
      rates: shares of the examples that are incomplete in the missing-rate grid.
      seeds: tables per cell, seeded 0, 1, ...
      resamples: of the bootstrap.
      bootstrap_seed: of its draws.
      alpha: share of the true classes that conformal sets may lack.
      deployment: weight by pattern name, of the mixture that is expected in use; {}: all the same.
      unequal: rates by modality at which test examples lose it, each by itself; {}: nothing is asked of it.
      prior: log-prior of the classes, float [K], multi-label their logits; None: as frequent as in the validation
        examples, without which all are the same.
      prior_source: where a prior that is given comes from.
      label_free_bias: whether the report also says what the model comes to with a bias that `label_free_bias` fits.
    """

    rates: Sequence[float] = tuple(rate / 10 for rate in range(11))
    seeds: int = 5
    resamples: int = 1000
    bootstrap_seed: int = 0
    alpha: float = 0.1
    deployment: Mapping[str, float] = field(default_factory=dict)
    unequal: Mapping[str, float] = field(default_factory=dict)
    prior: np.ndarray | None = None
    prior_source: str = ""
    label_free_bias: bool = False


class Report(NamedTuple):
    """A report, the tables that it is made by, and what the model has decided.

    Attributes:
      results: what report.json holds of the numbers that come from logits, None where no example defines them.
      tables: of the missing-rate grid.
      decisions: that the headline metric is of, to compare methods by.
    """

    results: dict[str, Any]
    tables: GridTables
    decisions: Decisions


def report(test: SplitLogits, validation: SplitLogits | None, options: Options) -> Report:
    """Reports on a model.

    Args:
      test: examples that every number is of.
      validation: others, that temperatures, thresholds and quantiles are fitted on; with the same uni-modal models.
      options: of the report.

    Raises:
      UserError: a bias is asked for where there are no classes, or no validation examples.
    """
    if options.label_free_bias and (test.targets or validation is None):
        lacking = "classes, and these are targets" if test.targets else "validation examples, and there are none"
        raise UserError(f"evaluation.label_free_bias needs {lacking}: leave it false")
    kind = kind_of(test)
    prior, prior_source = kind.prior(options.prior, validation)
    model, fitted = _judged(kind, test, validation, options.alpha)
    decided_without, nll_without = kind.without(prior)
    resamples = Resamples(len(test.label), options.resamples, options.bootstrap_seed)
    headline = kind.headline(resamples)
    tables = GridTables(test.available, options.rates, options.seeds, test.modalities)
    cells = grid.missing_rates(model, tables, test.modalities, headline)
    beside = _beside(kind, test, validation, model, prior, headline, options.alpha)
    results = {
        "metric": kind.metric,
        "headline": model.headline,
        "prior": options.prior_source or prior_source,
        "modalities": list(test.modalities),
        "examples": len(test.label),
        "naturally_missing": dict(zip(test.modalities, (~test.available).sum(axis=0).tolist(), strict=True)),
        "patterns": _scores(model, test.names),
        **beside.scores,
        **_thresholds(fitted, beside.thresholds),
        "missing_rates": cells,
        **_unequal(model, test, options, headline),
        "uncertainty": {
            "level": uncertainty.LEVEL,
            "resamples": options.resamples,
            "seed": options.bootstrap_seed,
            "patterns": uncertainty.of_patterns(model, test.names, headline),
            "lost": uncertainty.lost(model, test.names, headline),
            **beside.intervals,
        },
        **kind.confidence(fitted, beside.temperatures),
        **kind.worst(model),
        "robustness": summaries.robustness(
            model, test, headline, cells, options.deployment, beside.ceilings, kind.harm(model)
        ),
        "shapley": summaries.shapley(model, test, headline, decided_without),
        "information": summaries.knowledge(model, test, nll_without, kind.bounds),
        "rate_maps": grid.rate_maps(
            model, test.available, test.modalities, sorted(options.rates), options.seeds, headline
        ),
        **(_with_bias(kind, test, validation, model, headline, options.alpha) if options.label_free_bias else {}),
    }
    decisions = Decisions(tuple(test.names), len(test.classes), model.label, model.counted, model.decided)
    return Report(undefined_as_none(results), tables, decisions)


def _unequal(model: Judgement, test: SplitLogits, options: Options, headline: Headline) -> dict[str, dict]:
    if not options.unequal:
        return {}
    rates = [options.unequal.get(name, 0.0) for name in test.modalities]
    return {"unequal": grid.unequal(model, test.available, rates, options.seeds, test.modalities, headline)}


def _judged(
    kind: Kind, test: SplitLogits, validation: SplitLogits | None, alpha: float
) -> tuple[Judgement, Calibration]:
    fitted = kind.fit(validation, alpha)
    return kind.judge(test, fitted), fitted


def _scores(judgement: Judgement, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Of each pattern all metrics, and how many examples count."""
    examples = np.count_nonzero(judgement.counted, axis=1).tolist()
    rows = zip(names, judgement.scores, examples, strict=True)
    return {name: {**scores, "examples": count} for name, scores, count in rows}


def _with_bias(
    kind: Kind, test: SplitLogits, validation: SplitLogits, model: Judgement, headline: Headline, alpha: float
) -> dict[str, Any]:
    """The key `label_free_bias`: what the model comes to with it, calibrated anew, and what it gains."""
    bias = label_free_bias.fit(test, validation)
    with_it, _ = _judged(kind, label_free_bias.biased(test, bias), label_free_bias.biased(validation, bias), alpha)
    found = {
        "complete_examples": int(np.count_nonzero(validation.available.all(axis=1))),
        "patterns": _scores(with_it, test.names),
        "gained": uncertainty.gained(with_it, model, test.names, headline),
        "bias": dict(zip(test.names, bias.tolist(), strict=True)),
    }
    return {"label_free_bias": found}


class _Beside(NamedTuple):
    """What the uni-modal models, alone (`ceilings`) and together (`ensembles`), come to beside the model."""

    scores: dict[str, dict]
    temperatures: dict[str, dict]
    thresholds: dict[str, dict]
    intervals: dict[str, dict]
    ceilings: Sequence[Ceiling]


def _beside(
    kind: Kind,
    test: SplitLogits,
    validation: SplitLogits | None,
    model: Judgement,
    prior: np.ndarray,
    headline: Headline,
    alpha: float,
) -> _Beside:
    alone_and_together = functools.partial(_alone_and_together, modalities=test.modalities)
    if not test.unimodal:
        nothing = alone_and_together({})
        return _Beside(nothing, nothing, nothing, {**nothing, "to_ceiling": {}}, ())
    ensemble, fitted = _judged(kind, test.ensembles(prior), validation and validation.ensembles(prior), alpha)
    found = ceilings(model, ensemble, test.modalities, headline)
    intervals = alone_and_together(uncertainty.of_patterns(ensemble, test.names, headline))
    return _Beside(
        alone_and_together(_scores(ensemble, test.names)),
        alone_and_together(dict(zip(test.names, fitted.temperatures.tolist(), strict=True))),
        alone_and_together(_thresholds_by_name(fitted)),
        {**intervals, "to_ceiling": uncertainty.to_ceiling(model, ensemble, found, test.names, headline)},
        found,
    )


def _alone_and_together(by_pattern: Mapping[str, Any], modalities: Sequence[str]) -> dict[str, dict]:
    return {
        "ceilings": {name: value for name, value in by_pattern.items() if name in modalities},
        "ensembles": {name: value for name, value in by_pattern.items() if name not in modalities},
    }


def _thresholds(fitted: Calibration, beside: Mapping[str, dict]) -> dict[str, dict]:
    """The key `thresholds` of report.json; nothing where none were tuned."""
    found = _thresholds_by_name(fitted)
    return {"thresholds": {"patterns": found, **beside}} if found else {}


def _thresholds_by_name(fitted: Calibration) -> dict[str, list[float]]:
    return {} if fitted.thresholds is None else dict(zip(fitted.names, fitted.thresholds.tolist(), strict=True))
