"""What a reader wants to know first: what is lost when what is missing, why, and how sure that is."""

from umemma_jax.reporting.parts import Part
from umemma_jax.reporting.results import (
    ABSENT,
    MINUS,
    best_left,
    between,
    complete,
    difference,
    headline,
    headline_value,
    in_units,
    interval,
    kind_label,
    kinds,
    lost,
    lost_points,
    percent,
    points,
    rest,
    short_label,
    short_metric_label,
    worst_class_measure,
)
from umemma_jax.reporting.terms import is_regression, terms


def headlines(results: dict) -> list[Part]:
    """The parts for which the results have numbers.

    Args:
        results: as `report.write_report` takes them.
    """
    parts = [_lost(results)]
    if "information" in results or "shapley" in results:
        parts.append(_why(results))
    if results.keys() & {"uncertainty", "calibration", "conformal"}:
        parts.append(_sure(results))
    return parts


def nats(value: float | None) -> str:
    """An amount of information; a dash for None."""
    return ABSENT if value is None else f"{value:.3f}".replace("-", MINUS)


def _lost(results: dict) -> Part:
    examples, everything = results["examples"], complete(results)
    value = headline_value(results, everything)
    known = "uncertainty" in results
    header = [
        "missing",
        f"{short_metric_label(headline(results))}, %",
        *(["interval"] if known else []),
        "lost, points",
    ]
    header += [*(["interval"] if known else []), *(["ceiling, %"] if results["ceilings"] else [])]
    rows = []
    for modality in results["modalities"]:
        pattern = rest(results, modality)
        left = headline_value(results, pattern)
        row = [modality, percent(left, examples)]
        row += [between(interval(results, "patterns", pattern), examples)] if known else []
        row += [lost_points(lost(results, pattern), examples)]
        row += [between(interval(results, "lost", pattern), examples, lost_points)] if known else []
        row += [_ceiling_cell(results, pattern)] if results["ceilings"] else []
        rows.append(row)
    sentence = f"With everything there, {short_metric_label(headline(results))} is {percent(value, examples)} %"
    if known:
        sentence += f" ({between(interval(results, 'patterns', everything), examples)})"
    sentences = [f"{sentence}.", *_errors(results), *_over_patterns(results)]
    return Part("What is lost when what is missing", sentences, header, rows)


def _errors(results: dict) -> list[str]:
    """Of regression: how far off the predictions are, in the targets' units."""
    if not is_regression(results):
        return []
    scores, targets = results["patterns"][complete(results)], results["targets"]
    size = f"RMSE is {in_units(scores['rmse'])} and MAE {in_units(scores['mae'])}"
    if len(targets) > 1:
        return [f"{size}, means over {len(targets)} targets."]
    (target,) = targets
    return [f"{size}, in units of {target['name']}, whose standard deviation is {in_units(target['std'])} in training."]


def ceiling(results: dict, pattern: str) -> tuple[str, float | None]:
    """What a pattern should reach at least: the model's name and its headline metric.

    The hardest of the uni-modal models of what is left and their ensemble, where the results name it; otherwise the
    best of those models.
    """
    found = results.get("robustness", {}).get("ceilings", {}).get(pattern)
    if found:
        return found["model"], found["value"]
    return best_left(results["ceilings"], pattern, headline(results))


def _ceiling_cell(results: dict, pattern: str) -> str:
    best, value = ceiling(results, pattern)
    shown = percent(value, results["examples"])
    return f"{shown} ({best})" if "+" in pattern and value is not None else shown


def _over_patterns(results: dict) -> list[str]:
    """Sentences on `robustness`: the worst, the means, the area under the curves."""
    found, examples = results.get("robustness", {}), results["examples"]
    sentences = []
    worst = found.get("worst_pattern", {}).get("pattern")
    if worst is not None:
        sentence = f"Worst of all patterns: {short_label(worst, results['modalities'])}, "
        sentence += f"{percent(found['worst_pattern']['value'], examples)} %"
        one = results.get("worst_class", {}).get(worst)
        if one and one["value"] is not None:
            sentence += f"; worst class there: {one['class']}, {worst_class_measure(results)} "
            sentence += f"{percent(one['value'], examples)} %, {one['examples']:,} examples"
        sentences.append(f"{sentence}.")
    if "uniform_mean" in found:
        sentence = f"Mean over all {len(results['patterns'])} patterns: {percent(found['uniform_mean'], examples)} %"
        if "deployment" in found:
            sentence += f"; expected in deployment: {percent(found['deployment']['mean'], examples)} %"
        sentences.append(f"{sentence}.")
    if "area" in found:
        order = [kind for kind in kinds(results["missing_rates"]) if kind in found["area"]]
        areas = ", ".join(f"{kind_label(kind)} {percent(found['area'][kind], examples)} %" for kind in order)
        sentences.append(f"Over all missing rates, this much of the complete value is kept: {areas}.")
    if found.get("counter_intuitive", {}).get("rate") is not None:
        rate = percent(found["counter_intuitive"]["rate"], examples)
        what = "decisions" if results["metric"] == "macro_f1" else "examples"
        sentences.append(f"Right with fewer modalities and wrong with more: {rate} % of the {what}.")
    return sentences


def _why(results: dict) -> Part:
    found, shapley = results.get("information"), results.get("shapley")
    examples, everything = results["examples"], complete(results)
    header, sentences = ["modality"], []
    if found:
        header += ["information alone, nats", "complementary, nats", "share of all, %"]
        entropy = found["entropy"]
        known = difference(entropy[""], entropy[everything])
        if known is not None:
            sentence = f"Of {nats(entropy[''])} nats there are to know about a label, all modalities together tell "
            if is_regression(results):  # whose entropy is differential: there is no end to what can be known
                sentence, known = "All modalities together tell ", f"{nats(known)} nats about a target"
            else:
                known = nats(known)
            sentences.append(f"{sentence}{known}.{_repetition(found['redundancy'])}")
        defined = {m: value for m, value in found["complementary"].items() if value is not None}
        if defined:
            most = max(defined, key=defined.get)
            sentences.append(f"{most} has most that no other modality tells: {nats(defined[most])} nats.")
        bound = found.get("bayes_error_at_most", {}).get(everything)
        if bound is not None:
            sentences.append(f"The best possible classifier errs in at most {percent(bound, examples)} % of decisions.")
    if shapley:
        header += ["Shapley value, points"]
        without = percent(shapley["empty"], examples)
        sentences.append(f"Shapley values add up from {without} %, guessed without any, to the complete value.")
    rows = []
    for modality in results["modalities"]:
        row = [modality]
        if found:
            alone = difference(found["entropy"][""], found["entropy"][modality])
            share = found["complementary_share"].get(modality)
            row += [nats(alone), nats(found["complementary"][modality]), percent(share, 0)]
        row += [points(shapley["values"][modality], examples)] if shapley else []
        rows.append(row)
    return Part("Why", sentences, header, rows)


def _repetition(redundancy: float | None) -> str:
    if redundancy is None:
        return ""
    if redundancy < 0:
        return f" What each tells alone adds up to {nats(-redundancy)} less: together they tell more."
    return f" What each tells alone adds up to {nats(redundancy)} more: they repeat each other."


def _sure(results: dict) -> Part:
    sentences = []
    bootstrap, calibration, conformal = (results.get(key) for key in ("uncertainty", "calibration", "conformal"))
    if bootstrap:
        sentences.append(
            f"Intervals hold {100 * bootstrap['level']:.4g} % of {bootstrap['resamples']:,} bootstrap resamples of the "
            "examples, the same for every pattern."
        )
    if calibration and calibration["examples"]:
        sentences.append(terms(results).fitted.format(examples=calibration["examples"]))
    elif calibration:
        sentences.append("There are no validation examples, so that nothing is calibrated.")
    if conformal:
        covered = [entry["coverage"] for entry in conformal["patterns"].values() if entry["coverage"] is not None]
        if covered:
            level = f"{100 * (1 - conformal['alpha']):.4g}"
            held = between((min(covered), max(covered)), results["examples"])
            sentences.append(terms(results).promise.format(level=level, found=held))
    header, rows = ["pattern"], []
    if calibration:
        header += [f"{terms(results).error_label} before, %", "after", "NLL before, nats", "after"]
    if conformal:
        header += ["coverage, %", terms(results).size_label]
    for pattern in shown_patterns(results) if len(header) > 1 else ():
        rows.append([short_label(pattern, results["modalities"]), *_trust(results, pattern)])
    return Part("How sure", sentences, header if rows else [], rows)


def shown_patterns(results: dict) -> list[str]:
    """Complete, one modality lost, and the worst pattern."""
    worst = results.get("robustness", {}).get("worst_pattern", {}).get("pattern")
    found = [complete(results), *(rest(results, modality) for modality in results["modalities"]), worst]
    return list(dict.fromkeys(pattern for pattern in found if pattern is not None))


def size_text(results: dict, entry: dict) -> str:
    """How much a pattern's conformal answers hold: classes, or units of the target."""
    size = entry[terms(results).size]
    if is_regression(results):
        return in_units(size)
    return ABSENT if size is None else f"{size:.2f}"


def _trust(results: dict, pattern: str) -> list[str]:
    """Cells of calibration and conformal sets."""
    examples, cells = results["examples"], []
    if "calibration" in results:
        entry = results["calibration"]["patterns"][pattern]
        before, after = entry["before"], entry["after"] or dict.fromkeys(entry["before"])
        error = terms(results).error
        cells += [percent(before[error], examples), percent(after[error], examples)]
        cells += [nats(before["nll"]), nats(after["nll"])]
    if "conformal" in results:
        entry = results["conformal"]["patterns"][pattern]
        cells += [percent(entry["coverage"], examples), size_text(results, entry)]
    return cells
