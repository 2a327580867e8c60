"""Evaluation results: their names, numbers and ceilings, and means over seeds.

`results` is the dict that report.json holds (see `umemma_jax.reporting.report.write_report`); all metrics are
fractions from 0 to 1, or None where no example defines them. Of regression, R2 can be below 0, and errors are in the
units of the target.
"""

import json
import statistics
from collections.abc import Callable, Sequence

from umemma_jax.errors import UserError
from umemma_jax.evaluation.names import TUNED
from umemma_jax.methods import METHODS

MINUS = "\u2212"
ABSENT = "\u2013"  # en dash: there is no such number
METRIC_LABELS = {
    "macro_f1": "macro-F1",
    "micro_f1": "micro-F1",
    "weighted_f1": "weighted F1",
    "samples_f1": "samples F1",
    "r2": "R\u00b2",
    "rmse": "RMSE",
    "mae": "MAE",
    "spearman": "Spearman correlation",
}
IN_UNITS = ("rmse", "mae")  # of the target; the lower the better


def method_label(method: str) -> str:
    """The method as people write it."""
    return METHODS[method].LABEL if method in METHODS else method.replace("_", " ")


def metric_label(metric: str) -> str:
    """The metric as people write it."""
    if metric.startswith(TUNED):
        return f"{metric_label(metric.removeprefix(TUNED))} at the tuned threshold"
    return METRIC_LABELS.get(metric, metric.replace("_", " "))


def short_metric_label(metric: str) -> str:
    """The same in few words: "tuned macro-F1"."""
    tuned = metric.startswith(TUNED)
    return f"tuned {metric_label(metric.removeprefix(TUNED))}" if tuned else metric_label(metric)


def metric_column(metric: str) -> str:
    """The title of a column of values: "accuracy, %", "RMSE"."""
    return metric_label(metric) if metric in IN_UNITS else f"{metric_label(metric)}, %"


def metric_text(metric: str, value: float | None, examples: int) -> str:
    """A value as `metric_column` announces it; a dash for None."""
    return in_units(value) if metric in IN_UNITS else percent(value, examples)


def in_units(value: float | None) -> str:
    """A number in a target's unit; a dash for None."""
    return ABSENT if value is None else f"{value:.4g}".replace("-", MINUS)


def worst_class_measure(results: dict) -> str:
    """What the worst class is worst in."""
    return "F1" if results["metric"] == "macro_f1" else "recall"


def kind_label(kind: str) -> str:
    """What a kind of missing-rate cell loses: "image missing", or "mixed"."""
    return kind if kind == "mixed" else f"{kind} missing"


def headline(results: dict) -> str:
    """The metric that the report is about."""
    return results.get("headline", results["metric"])


def headline_value(results: dict, pattern: str) -> float | None:
    """The headline metric of a pattern."""
    return results["patterns"][pattern][headline(results)]


def lost(results: dict, pattern: str) -> float | None:
    """The headline metric of complete less that of the pattern; None of complete itself.

    It is over the examples that the pattern counts, as its interval is, where the results tell so; otherwise each of
    the two is over its own.
    """
    if pattern == complete(results):
        return None
    told = results.get("robustness", {}).get("lost", {})
    if pattern in told:
        return told[pattern]
    return difference(headline_value(results, complete(results)), headline_value(results, pattern))


def complete(results: dict) -> str:
    """The pattern of all modalities."""
    return "+".join(results["modalities"])


def rest(results: dict, modality: str) -> str:
    """The pattern that is left where one modality is lost."""
    return "+".join(other for other in results["modalities"] if other != modality)


def interval(results: dict, table: str, name: str) -> Sequence[float | None]:
    """Both ends of an interval of `uncertainty`, None where there is none."""
    return results.get("uncertainty", {}).get(table, {}).get(name) or (None, None)


def between(ends: Sequence[float | None], examples: int, form: Callable | None = None) -> str:
    """An interval of fractions in percent, or in another form: "98.4 to 99.9"; a dash where it is not known."""
    form = form or percent
    return ABSENT if None in ends else f"{form(ends[0], examples)} to {form(ends[1], examples)}"


def rate_maps(results: dict) -> list[dict]:
    """The maps of two missing rates, rates in ascending order."""
    return [_ascending(one) for one in results.get("rate_maps", [])]


def _ascending(rate_map: dict) -> dict:
    rates, values = rate_map["rates"], rate_map["values"]
    order = sorted(range(len(rates)), key=rates.__getitem__)
    return {**rate_map, "rates": [rates[a] for a in order], "values": [[values[a][b] for b in order] for a in order]}


def pattern_label(pattern: str, modalities: Sequence[str]) -> str:
    """A pattern with what it lacks: "image alone (audio missing)"."""
    left = pattern.split("+")
    lost = [modality for modality in modalities if modality not in left]
    if not lost:
        return f"complete ({' + '.join(left)})"
    return f"{' + '.join(left) if len(left) > 1 else f'{left[0]} alone'} ({', '.join(lost)} missing)"


def short_label(pattern: str, modalities: Sequence[str]) -> str:
    """A pattern by what is lost, or by what is left where that is less: "without image", "only image + text"."""
    left = pattern.split("+")
    lost = [modality for modality in modalities if modality not in left]
    if not lost:
        return "everything there"
    return f"without {', '.join(lost)}" if len(lost) <= len(left) else f"only {' + '.join(left)}"


def patterns_by_size(results: dict) -> list[str]:
    """The patterns, complete first, single modalities last."""
    return sorted(results["patterns"], key=lambda pattern: -pattern.count("+"))


def metrics(results: dict) -> list[str]:
    """The names of the metrics of a pattern: the headline metric first, those at tuned thresholds last."""
    names = [name for name in next(iter(results["patterns"].values())) if name != "examples"]
    return sorted(names, key=lambda name: (name != results["metric"], name.startswith(TUNED)))


def grid_metrics(results: dict) -> list[str]:
    """Those of them that the cells of the missing-rate grid have."""
    return [name for name in metrics(results) if name in results["missing_rates"][0]["mean"]]


def kinds(cells: Sequence[dict]) -> list[str]:
    """The kinds of missing-rate cells, in their order."""
    return list(dict.fromkeys(cell["kind"] for cell in cells))


def percent(fraction: float | None, examples: int) -> str:
    """97.2; two decimals where more than 5,000 examples carry them; a dash for None. R2 can be below 0: −4.1."""
    if fraction is None:
        return ABSENT
    return f"{100 * fraction:.{2 if examples > 5000 else 1}f}".replace("-", MINUS)


def points(difference: float | None, examples: int) -> str:
    """A difference of fractions in percentage points, with its sign: +0.2, −0.2, 0.0; a dash for None."""
    if difference is None:
        return ABSENT
    text = percent(abs(difference), examples)
    if float(text) == 0:
        return text
    return f"{'+' if difference > 0 else MINUS}{text}"


def lost_points(difference: float | None, examples: int) -> str:
    """What is lost in percentage points, without a plus: 0.2, −0.2 where something is gained."""
    return points(difference, examples).removeprefix("+")


def difference(value: float | None, other: float | None) -> float | None:
    """value - other, None where either is."""
    return None if value is None or other is None else value - other


def best_left(ceilings: dict, pattern: str, metric: str) -> tuple[str, float | None]:
    """The pattern's ceiling: which uni-modal model of what is left is best, and its metric; (first, None) where none
    of them has any.
    """
    left = pattern.split("+")
    defined = [modality for modality in left if ceilings[modality][metric] is not None]
    pick = min if metric in IN_UNITS else max
    best = pick(defined or left[:1], key=lambda modality: ceilings[modality][metric])
    return best, ceilings[best][metric]


def ceilings_by_loss(results: dict, metric: str) -> dict[str, tuple[str, float]]:
    """For each modality lost: the best modality left and its uni-modal metric, where it has one.

    Args:
        results: anything with `modalities` and `ceilings`.
    """
    if not results["ceilings"]:
        return {}
    found = {lost: best_left(results["ceilings"], rest(results, lost), metric) for lost in results["modalities"]}
    return {lost: (best, height) for lost, (best, height) in found.items() if height is not None}


def losses_by_ceiling(results: dict, metric: str) -> dict[tuple[str, float], list[str]]:
    """The same the other way round: the modalities whose loss leaves a model, by its modality and metric."""
    found = {}
    for lost, ceiling in ceilings_by_loss(results, metric).items():
        found.setdefault(ceiling, []).append(lost)
    return found


def not_validated(results: dict) -> list[str]:
    """What no validation example has chosen, and what stands in its place: a sentence each."""
    found, sentences = results.get("not_validated", {}), []
    if "ceilings" in found:
        names = " or ".join(found["ceilings"])
        sentences.append(
            f"No validation example can judge {names} alone: "
            "what stands as ceiling is of the last epoch, not of the best."
        )
    if "thresholds" in found:
        patterns = ", ".join(found["thresholds"])
        sentences.append(f"No validation example can tune the thresholds of {patterns}: they stay 0.50.")
    return sentences


def ended_early(results: dict) -> list[str]:
    """Which stages of training ended before their last step, and why: a sentence each."""
    return [
        f"Stage {stage} ended after {end['step']:,} of {end['steps']:,} steps ({end['reason']})."
        for stage, end in results.get("ended_early", {}).items()
    ]


def compare(rows: Sequence[dict], paired: dict | None = None) -> dict:
    """Means and sample standard deviations over seeds of every method, methods in given order.

    A ceiling belongs to a seed: the mean over that seed's rows that trained uni-modal models.

    Args:
        rows: results of several methods and seeds on one split.
        paired: {metric, level, resamples, seed, false_discovery_rate, differences}, of which the last are from
            `evaluation.paired.differences` and the others say how they were found; None where nothing is known of the
            examples.

    Returns:
        {dataset, split, examples, metric, modalities, metrics,
         ceilings: {modality: {metric: {mean, std}}},
         eta: {rate, kind},   # where the results have it
         methods: {method: {seeds, patterns: {pattern: {metric: {mean, std}}},
                            differences: {pattern: {mean, std}},   # from the seed's ceiling
                            missing_rates: [{kind, rate, metric: {mean, std}, ...}]}}}
        std is None for a single seed, and both are where a seed's number is. Where any of the rows has it,
        `not_validated` is what any of them has not. `paired` is there where it is given.

    Raises:
        UserError: no rows, rows of different evaluations, or a method and seed given twice.
    """
    shared = _shared(rows)
    names = metrics(rows[0])
    ceilings = {}  # of each seed that has them
    for seed in sorted({row["seed"] for row in rows}):
        of_seed = [row["ceilings"] for row in rows if row["seed"] == seed and row["ceilings"]]
        if of_seed:
            ceilings[seed] = reduced(_mean, of_seed, names)
    methods = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        methods[method] = _over_seeds([row for row in rows if row["method"] == method], ceilings)
    return (
        shared
        | _not_validated_anywhere(rows)
        | {
            "metrics": names,
            "ceilings": reduced(mean_std, list(ceilings.values()), names) if ceilings else {},
            "methods": methods,
        }
        | ({} if paired is None else {"paired": paired})
    )


def _shared(rows: Sequence[dict]) -> dict:
    """What makes the rows comparable; raises UserError where they are not."""
    if not rows:
        raise UserError("nothing to compare: no results given")
    keys = ("dataset", "split", "examples", "metric", "modalities")
    shared = [{**{key: row[key] for key in keys}, "eta": _protocol(row)} for row in rows]
    for key in shared[0]:
        values = sorted({json.dumps(values[key]) for values in shared})
        if len(values) > 1:
            raise UserError(
                f"results that cannot be compared: {key} is {' and '.join(values)}; "
                "give results of one split and metric"
            )
    grids = [[(cell["kind"], cell["rate"]) for cell in row["missing_rates"]] for row in rows]
    runs = [(row["method"], row["seed"]) for row in rows]
    for grid, (method, seed) in zip(grids, runs, strict=True):
        if runs.count((method, seed)) > 1:
            raise UserError(f"method {method}, seed {seed} comes twice; give each run once")
        if grid != grids[0]:
            raise UserError(
                f"results that cannot be compared: method {method}, seed {seed} has other missing "
                "rates than the first; evaluate it again"
            )
    return {key: value for key, value in shared[0].items() if value is not None}


def _not_validated_anywhere(rows: Sequence[dict]) -> dict:
    found = {}
    for row in rows:
        for what, names in row.get("not_validated", {}).items():
            found[what] = list(dict.fromkeys([*found.get(what, []), *names]))
    return {"not_validated": found} if found else {}


def _protocol(row: dict) -> dict | None:
    return {key: value for key, value in row["eta"].items() if key != "table_sha256"} if "eta" in row else None


def _over_seeds(rows: list[dict], ceilings: dict[int, dict]) -> dict:
    """One method's entry of `compare`."""
    metric, complete = rows[0]["metric"], "+".join(rows[0]["modalities"])
    bounded = [row for row in rows if row["seed"] in ceilings]
    differences = {}
    for pattern in rows[0]["patterns"]:
        if bounded and pattern != complete:
            differences[pattern] = mean_std(
                [
                    difference(row["patterns"][pattern][metric], best_left(ceilings[row["seed"]], pattern, metric)[1])
                    for row in bounded
                ]
            )
    cells = [{(c["kind"], c["rate"]): c["mean"] for c in row["missing_rates"]} for row in rows]
    means = reduced(mean_std, cells, grid_metrics(rows[0]))
    return {
        "seeds": sorted(row["seed"] for row in rows),
        "patterns": reduced(mean_std, [row["patterns"] for row in rows], metrics(rows[0])),
        "differences": differences,
        "missing_rates": [{"kind": kind, "rate": rate} | means[kind, rate] for kind, rate in means],
    }


def reduced(function: Callable, tables: list[dict], names: list[str]) -> dict:
    """{row: {name: function(numbers at this place of every table)}}."""
    return {row: {name: function([table[row][name] for table in tables]) for name in names} for row in tables[0]}


def _mean(values: list[float | None]) -> float | None:
    """None where any value is: a mean is over as many as it says."""
    return None if None in values else statistics.fmean(values)


def mean_std(values: list[float | None]) -> dict:
    """{mean, std}, the sample's; std is None of a single value, and both are where any value is."""
    std = statistics.stdev(values) if len(values) > 1 and None not in values else None
    return {"mean": _mean(values), "std": std}
