"""Reports as text: every pattern, metric and missing rate in Markdown tables that also read as plain text."""

import functools
from collections.abc import Callable, Sequence

from umemma_jax.evaluation.names import TUNED
from umemma_jax.reporting.budget import budget
from umemma_jax.reporting.details import details, rate_details
from umemma_jax.reporting.differences import supported_differences
from umemma_jax.reporting.eta import eta_cell, eta_label, eta_of_all
from umemma_jax.reporting.headlines import headlines
from umemma_jax.reporting.parts import Part
from umemma_jax.reporting.results import (
    ABSENT,
    IN_UNITS,
    best_left,
    difference,
    ended_early,
    grid_metrics,
    headline,
    kind_label,
    kinds,
    method_label,
    metric_column,
    metric_label,
    metric_text,
    metrics,
    not_validated,
    pattern_label,
    patterns_by_size,
    percent,
    points,
    short_metric_label,
)
from umemma_jax.reporting.verdict import verdict_parts


def summary(results: dict) -> str:
    """The table of patterns under one line that says of what, to print on a terminal."""
    table = _pattern_table(results, metrics(results)[:2])
    parts = [_heading(results), table, *ended_early(results), *not_validated(results), _eta(results)]
    return "\n\n".join(part for part in parts if part)


def report_markdown(results: dict) -> str:
    """The text of report.md."""
    examples = results["examples"]
    parts = [
        f"# {_heading(results)}",
        f"{examples:,} examples of the `{results['split']}` split: one example is {100 / examples:.2g} points."
        f"{_training(results)}",
        *ended_early(results),
        _naturally_missing(results),
        _eta(results),
        *parts_markdown(headlines(results), "##"),
        f"![{short_metric_label(headline(results))} against missing rate](robustness.png)",
        "## Every pattern",
        _pattern_table(results, _untuned(results)),
        *not_validated(results),
        *_tuned_part(results),
        *_ceiling_part(results),
        *parts_markdown(details(results), "###"),
        *_images(results, ("calibration", "reliability"), ("information", "information")),
        "## Every missing rate",
    ]
    for metric in grid_metrics(results):
        parts += [
            f"{_capital(metric_label(metric))}{'' if metric in IN_UNITS else ' in %'}, mean ± standard deviation over "
            f"{results['missing_rates'][0]['seeds']} seeded missing tables per cell:",
            _grid_table(results, metric),
        ]
    parts += [
        *parts_markdown(rate_details(results), "###"),
        *_images(results, ("rate_maps", "rate_maps")),
        "## What the words mean",
        "\n".join(f"- **{metric_label(word)}**: {meaning}" for word, meaning in results["definitions"].items()),
        *(["## Cost", _cost_table(results["timing"])] if "timing" in results else []),
        "## To reproduce it",
    ]
    if "command" in results:
        parts += [f"```\n{results['command']}\n```"]
    if "versions" in results:
        versions = [f"{name} {version}" for name, version in results["versions"].items()]
        parts += [f"With {', '.join(versions)}."]
    parts += [
        "`report.json` beside this file holds the unrounded numbers and the SHA-256 of every cell's missing tables; "
        "`report.html` shows them, to be opened in any browser."
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _training(results: dict) -> str:
    """How the model was trained; nothing of a model that is known by its logits alone."""
    if "stand_in" not in results:
        return ""
    return f" Seed {results['seed']}. What is missing is replaced by the stand-in `{results['stand_in']}`."


def comparison_markdown(comparison: dict) -> str:
    """The text of comparison.md, from the dict that `results.compare` returns."""
    methods, metric = comparison["methods"], comparison["metric"]
    seeds = sorted({seed for method in methods.values() for seed in method["seeds"]})
    numbers = f"seed {seeds[0]}"
    if len(seeds) > 1:
        numbers = f"mean ± sample standard deviation over the seeds {', '.join(map(str, seeds))}"
    parts = [
        f"# {comparison['dataset']}: {len(methods)} methods with modalities missing",
        f"{comparison['examples']:,} examples of the `{comparison['split']}` split; {numbers}. "
        "Ceiling: the best uni-modal model of what is left.",
        *not_validated(comparison),
        *eta_of_all(comparison),
        f"![{metric_label(metric)} against missing rate](comparison.png)",
    ]
    for name in sorted(comparison["metrics"], key=lambda name: name.removeprefix(TUNED) != metric):
        parts += [f"## {_capital(metric_column(name))}", _method_table(comparison, name)]
    if "paired" in comparison:
        parts += parts_markdown([*verdict_parts(comparison), supported_differences(comparison)], "##")
    if any(method["differences"] for method in methods.values()):
        parts += [
            f"## Distance from the ceiling, points of {metric_label(metric)}",
            _difference_table(comparison),
        ]
    if "budget" in comparison:
        parts += parts_markdown([budget(comparison)], "##")
    parts += [f"## {_capital(metric_label(metric))} at every missing rate, %"]
    for kind in kinds(next(iter(methods.values()))["missing_rates"]):
        parts += [f"{_capital(kind_label(kind))}:", _kind_table(comparison, kind)]
    return "\n\n".join(parts) + "\n"


def cross_validation_markdown(found: dict) -> str:
    """The text of cross_validation.md, from the dict that `cross_validation.over_folds` returns."""
    count, total = len(found["examples"]), sum(found["examples"])
    parts = [
        f"# {found['dataset']}: {method_label(found['method'])}, {count}-fold cross-validation",
        f"{total:,} examples, each tested on once; mean ± sample standard deviation over the folds, then each fold.",
    ]
    for name in found["metrics"]:
        parts += [f"## {_capital(metric_column(name))}", _fold_table(found, "patterns", name)]
        if found["ceilings"]:
            parts += ["The uni-modal models, which are the ceilings:", _fold_table(found, "ceilings", name)]
    return "\n\n".join(parts) + "\n"


def cross_validation_summary(found: dict) -> str:
    """The headline of each pattern, to print on a terminal."""
    return _fold_table(found, "patterns", found["metric"])


def _fold_table(found: dict, table: str, metric: str) -> str:
    rows = []
    for pattern in patterns_by_size({"patterns": found[table]}):
        value = found[table][pattern][metric]
        folds = [metric_text(metric, x, count) for x, count in zip(value["folds"], found["examples"], strict=True)]
        mean, std = (metric_text(metric, value[key], min(found["examples"])) for key in ("mean", "std"))
        rows.append([pattern_label(pattern, found["modalities"]), f"{mean} ± {std}", *folds])
    return _table(["pattern", "all folds", *(f"fold {number}" for number in range(len(found["examples"])))], rows)


def comparison_summary(comparison: dict) -> str:
    """The verdict, and which differences the data support, a sentence a line, to print on a terminal."""
    parts = [*verdict_parts(comparison), supported_differences(comparison)]
    return "\n".join(sentence for part in parts for sentence in part.sentences)


def parts_markdown(parts: Sequence[Part], level: str) -> list[str]:
    """Each part under a heading of the level given, without those that have nothing to tell."""
    found = []
    for part in parts:
        if part.sentences or part.rows:
            found += [f"{level} {part.title}"]
            found += ["\n".join(f"- {sentence}" for sentence in part.sentences)] if part.sentences else []
            found += [_table(part.header, part.rows)] if part.rows else []
    return found


def _images(results: dict, *figures: tuple[str, str]) -> list[str]:
    """The figures named second, where the results have the key named first."""
    return [f"![{name.replace('_', ' ')}]({name}.png)" for key, name in figures if results.get(key)]


def _pattern_table(results: dict, names: Sequence[str]) -> str:
    examples, headline = results["examples"], results["metric"]
    counts = {p: values.get("examples", examples) for p, values in results["patterns"].items()}
    fewer = any(count < examples for count in counts.values())  # where the data itself lacks some
    header = ["pattern", *(["examples"] if fewer else [])]
    header += [metric_column(name) for name in names]
    if results["ceilings"]:
        header += ["ceiling, %", "difference, points"]
    rows = []
    for pattern in patterns_by_size(results):
        values = results["patterns"][pattern]
        row = [pattern_label(pattern, results["modalities"])]
        row += [f"{counts[pattern]:,}"] if fewer else []
        row += [metric_text(name, values[name], examples) for name in names]
        if results["ceilings"]:
            row += _ceiling_cells(results, pattern, values[headline])
        rows.append(row)
    note = ""
    if results["ceilings"]:
        note = f"\n\nCeiling and difference are of {metric_label(headline)}: the best uni-modal model of what is left."
    return _table(header, rows) + note


def _ceiling_cells(results: dict, pattern: str, value: float | None) -> list[str]:
    if pattern == _complete(results):
        return [ABSENT, ABSENT]
    best, ceiling = best_left(results["ceilings"], pattern, results["metric"])
    shown = percent(ceiling, results["examples"])
    if "+" in pattern and ceiling is not None:
        shown += f" ({best})"
    return [shown, points(difference(value, ceiling), results["examples"])]


def _untuned(results: dict) -> list[str]:
    return [name for name in metrics(results) if not name.startswith(TUNED)]


def _tuned_part(results: dict) -> list[str]:
    """Every pattern at its tuned thresholds, where there are any."""
    if "thresholds" not in results:
        return []
    examples = results["examples"]
    names = [name for name in metrics(results) if name.startswith(TUNED)]
    rows = [
        [pattern_label(pattern, results["modalities"])]
        + [percent(results["patterns"][pattern][name], examples) for name in names]
        for pattern in patterns_by_size(results)
    ]
    labels = [f"{metric_label(name.removeprefix(TUNED))}, %" for name in names]
    return ["At the thresholds tuned on the validation examples:", _table(["pattern", *labels], rows)]


def _ceiling_part(results: dict) -> list[str]:
    """All metrics of the uni-modal models, where they are more than the table of patterns can hold."""
    if len(metrics(results)) <= 2 or not results["ceilings"]:
        return []
    tuned, examples = TUNED + results["metric"], results["examples"]
    labels = [metric_column(name) for name in _untuned(results)]
    if "thresholds" in results:
        labels += [f"{metric_label(tuned)}, %"]
    rows = []
    for modality, values in results["ceilings"].items():
        row = [modality, *(metric_text(name, values[name], examples) for name in _untuned(results))]
        if "thresholds" in results:
            row += [percent(values[tuned], examples)]
        rows.append(row)
    return ["The uni-modal models, which are the ceilings:", _table(["model", *labels], rows)]


def _grid_table(results: dict, metric: str) -> str:
    cells = {(cell["kind"], cell["rate"]): cell for cell in results["missing_rates"]}
    columns = kinds(results["missing_rates"])

    def text(kind: str, rate: float) -> str:
        if (kind, rate) not in cells:
            return ABSENT
        cell = cells[kind, rate]
        return _spread(metric, cell["mean"][metric], cell["std"][metric], results["examples"])

    rows = [
        [f"{100 * rate:.4g} %", *(text(kind, rate) for kind in columns)] for rate in sorted({rate for _, rate in cells})
    ]
    return _table(["missing rate", *map(kind_label, columns)], rows)


def _method_table(comparison: dict, metric: str) -> str:
    examples, methods = comparison["examples"], comparison["methods"]
    ceilings = comparison["ceilings"]
    means = {m: {metric: values[metric]["mean"]} for m, values in ceilings.items()}
    rows = []
    for pattern in patterns_by_size(next(iter(methods.values()))):
        row = [pattern_label(pattern, comparison["modalities"])]
        row += [_metric_cell(metric, method["patterns"][pattern][metric], examples) for method in methods.values()]
        if ceilings and pattern == _complete(comparison):
            row.append(ABSENT)
        elif ceilings:
            best, _ = best_left(means, pattern, metric)
            row.append(_metric_cell(metric, ceilings[best][metric], examples))
        rows.append(row)
    header = ["pattern", *map(method_label, methods), *(["ceiling"] if ceilings else [])]
    return _table(header, rows)


def _difference_table(comparison: dict) -> str:
    examples, methods = comparison["examples"], comparison["methods"]
    rows = []
    for pattern in patterns_by_size(next(iter(methods.values()))):
        if pattern != _complete(comparison):
            found = [method["differences"].get(pattern) for method in methods.values()]
            cells = [_cell(value, examples, points) if value else ABSENT for value in found]
            rows.append([pattern_label(pattern, comparison["modalities"]), *cells])
    return _table(["pattern", *map(method_label, methods)], rows)


def _kind_table(comparison: dict, kind: str) -> str:
    metric, examples = comparison["metric"], comparison["examples"]
    columns = [
        {cell["rate"]: cell[metric] for cell in method["missing_rates"] if cell["kind"] == kind}
        for method in comparison["methods"].values()
    ]
    rows = [
        [
            f"{100 * rate:.4g} %",
            *(_cell(column[rate], examples) if rate in column else ABSENT for column in columns),
        ]
        for rate in sorted(set().union(*columns))
    ]
    return _table(["missing rate", *map(method_label, comparison["methods"])], rows)


def _naturally_missing(results: dict) -> str:
    absent = {name: count for name, count in results["naturally_missing"].items() if count}
    if not absent:
        return ""
    counts = " and ".join(f"{name} in {count:,}" for name, count in absent.items())
    return (
        f"Missing in the data itself: {counts} of {results['examples']:,} examples. What the data "
        "lacks is missing under every pattern and rate."
    )


def _eta(results: dict) -> str:
    """The number that the eta protocol asks for, and what it means."""
    if "eta" not in results:
        return ""
    cell, metric = eta_cell(results), results["metric"]
    number = _plus_minus(cell["mean"][metric], cell["std"][metric], results["examples"])
    return (
        f"{eta_label(results['eta'])}; where as many of the test examples lose it, {metric_label(metric)} is "
        f"{number} %, mean ± standard deviation over {cell['seeds']} seeded tables."
    )


def _cost_table(timing: dict) -> str:
    rows = []
    for name, value in timing.items():
        if isinstance(value, dict):
            shown = ", ".join(f"{key} {number}" for key, number in value.items())
        elif name.endswith("_seconds"):
            name, shown = name.removesuffix("_seconds"), f"{value:.3g} s"
        else:
            shown = f"{value:,.0f}"
        rows.append([name.replace("_", " ").replace(" per ", "/"), shown])
    return _table(["what", "cost"], rows)


def _table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table that also reads as plain text: first column left, the others right."""
    rows = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]  # names of classes
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    align = [str.ljust] + [str.rjust] * (len(header) - 1)

    def line(cells: list[str]) -> str:
        padded = (pad(cell, width) for pad, cell, width in zip(align, cells, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(map(line, [header, rule, *rows]))


def _cell(value: dict, examples: int, form: Callable[[float | None, int], str] = percent) -> str:
    return _plus_minus(value["mean"], value["std"], examples, form)


def _plus_minus(
    mean: float | None, std: float | None, examples: int, form: Callable[[float | None, int], str] = percent
) -> str:
    return form(mean, examples) + ("" if std is None else f" ± {percent(std, examples)}")


def _metric_cell(metric: str, value: dict, examples: int) -> str:
    return _spread(metric, value["mean"], value["std"], examples)


def _spread(metric: str, mean: float | None, std: float | None, examples: int) -> str:
    """Mean and standard deviation of a metric; of what is in a unit the latter with two digits."""
    if metric not in IN_UNITS or std is None:
        return _plus_minus(mean, std, examples, functools.partial(metric_text, metric))
    return f"{metric_text(metric, mean, examples)} ± {std:.2g}"


def _heading(results: dict) -> str:
    return f"{results['dataset']}: {method_label(results['method'])} with modalities missing"


def _complete(results: dict) -> str:
    return "+".join(results["modalities"])


def _capital(text: str) -> str:
    return text if text[1].isupper() else text[0].upper() + text[1:]  # mAP stays
