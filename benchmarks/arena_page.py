"""Builds docs/arena.md below its line `## Results` from the results in docs/arena/, with the figure of ranks.

python -m benchmarks.arena_page [--add=COMPARISON --cell=NAME --encoders=WORDS --ran=COMMAND]

With --add, the comparison.json of a run becomes the file of a cell first. Nothing is trained here.
"""

import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

from benchmarks import arena_claims, arena_results
from benchmarks.arena_results import CELLS, REFERENCES
from umemma_jax import command
from umemma_jax.errors import UserError
from umemma_jax.evaluation import dataset_ranks
from umemma_jax.evaluation.verdict import LOWER_IS_BETTER
from umemma_jax.reporting import verdict
from umemma_jax.reporting.critical_difference import critical_difference_figure
from umemma_jax.reporting.files import write_files
from umemma_jax.reporting.markdown import parts_markdown
from umemma_jax.reporting.parts import Part
from umemma_jax.reporting.results import ABSENT, method_label

PAGE = arena_results.FOLDER.parent / "arena.md"
BEGIN = "## Results\n"
FIGURE = "critical_difference.png"
RANKED_BY = "mean_over_patterns"
DPI = 150


def main() -> None:
    """Adds a comparison where it is asked to, and writes the page and its figure."""
    parser = command.Parser(prog=command.program(__name__), description=__doc__.partition("\n")[0])
    parser.add_argument("--add", type=Path, metavar="COMPARISON", help="comparison.json of a run")
    parser.add_argument("--cell", help=f"what it is of: one of {', '.join(CELLS)}")
    parser.add_argument("--encoders", default="", help="how encoders were trained, in words")
    parser.add_argument("--ran", default="", help="the command that made it, where that was not the cell's")
    asked = parser.parse_args()
    if asked.add is not None:
        add(asked.add, asked.cell, asked.encoders, asked.ran)
    found = arena_results.read()
    ranks, names = ranked(found)
    if ranks is not None:
        write_files({FIGURE: _png(ranks, len(names))}, arena_results.FOLDER)
    write_files({PAGE.name: page(PAGE.read_text(), found).encode()}, PAGE.parent)


def add(path: Path, cell: str | None, encoders: str, ran: str = "") -> None:
    """Makes a comparison the results of a cell.

    Raises:
      UserError: there is no such cell, or the file is no comparison of its protocol with a verdict.
    """
    if cell not in CELLS:
        raise UserError(f"--cell={cell}: no cell of the arena, use one of {', '.join(CELLS)}")
    comparison = arena_results.read_json(path, "run the comparison again")
    results = arena_results.of_comparison(comparison, encoders, ran or CELLS[cell].command)
    if comparison.get("eta") != CELLS[cell].eta:
        raise UserError(f"{path}: its protocol is eta = {comparison.get('eta')}, not that of {cell}: name its own cell")
    text = json.dumps(results, indent=1, allow_nan=False) + "\n"
    write_files({f"{cell}.json": text.encode()}, arena_results.FOLDER)


def page(text: str, found: Mapping[str, dict[str, Any]]) -> str:
    """The page's new text: what stands above `## Results` is kept.

    Raises:
      UserError: the page has no such line.
    """
    head, line, _ = text.partition(BEGIN)
    if not line:
        raise UserError(f"{PAGE}: there is no line '{BEGIN.strip()}', below which results belong")
    return head + BEGIN + "\n" + "\n\n".join(filter(None, body(found))) + "\n"


def body(found: Mapping[str, dict]) -> list[str]:
    """The blocks of what is built."""
    ranks, names = ranked(found)
    measures = {name: verdict.defined(arena_results.measures(results)) for name, results in found.items()}
    judged = {name: measures[name] for name, results in found.items() if "comparisons" in results}
    parts = [
        Part("Is any method better?", [*overall(judged), *_unjudged(found)], *_plan(found)),
        Part("Ranks over datasets", *_ranks(ranks, names)),
        Part("Published claims, and what is left of them here", [CLAIMED], *_claims(judged)),
    ]
    lines = parts_markdown(parts[:1], "###")
    lines += _commands(found)
    lines += parts_markdown(parts[1:2], "###")
    lines += [f"![Average ranks](arena/{FIGURE})"] if ranks is not None else []
    lines += parts_markdown(parts[2:], "###")
    for name, results in found.items():
        lines += _cell(name, results, measures[name])
    return lines


CLAIMED = (
    "Each claim is of its own data and encoders, and its figures are not compared with ours: confirmed or contradicted "
    "is what our comparisons find, by Holm's procedure."
)


def overall(measures: Mapping[str, Mapping[str, dict]]) -> list[str]:
    """What can be said over all cells whose error is known, a sentence for each reference; nothing where none is."""
    sentences = []
    for reference in REFERENCES:
        better = {}
        for name in measures:
            for one in better_than(measures[name], reference):
                better.setdefault(one, []).append(name)
        label = method_label(reference)
        if better:
            told = "; ".join(f"{method_label(name)} on {', '.join(cells)}" for name, cells in better.items())
            sentences.append(f"Better than {label} by more than the error, by one measure or more: {told}.")
        elif measures:
            sentences.append(f"No method beats {label} by more than the error, on any of {len(measures)} cells.")
    return sentences + ([BASIS] if sentences else [])


BASIS = (
    "More than the error: a p-value of at most 0.05 over examples and seeds after Holm's correction, within a measure "
    "for all methods and both references."
)
SEEDS_ALONE = (
    "its file has no comparisons over examples, so that the error of what is found there is over its seeds alone"
)


def _unjudged(found: Mapping[str, dict]) -> list[str]:
    return [f"No verdict on {name}: {SEEDS_ALONE}." for name, results in found.items() if "comparisons" not in results]


def better_than(measures: Mapping[str, dict], reference: str) -> list[str]:
    """Methods found better than a reference by a measure of the metric, each once."""
    found = [
        one["method"]
        for measure in verdict.JUDGED
        for one in measures.get(measure, {}).get("comparisons", [])
        if (one["reference"], one["finding"]) == (reference, "better")
    ]
    return list(dict.fromkeys(found))


def _plan(found: Mapping[str, dict]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: datasets by protocols, with what was run; empty where nothing was."""
    protocols = list(dict.fromkeys(cell.protocol for cell in CELLS.values()))
    rows = {}
    for name, cell in CELLS.items():
        said = f"{len(found[name]['methods'])} methods, {len(found[name]['seeds'])} seeds" if name in found else ""
        rows.setdefault(cell.title, dict.fromkeys(protocols, ""))[cell.protocol] = said
    return ["dataset", *protocols], [[title, *cells.values()] for title, cells in rows.items()]


def _commands(found: Mapping[str, dict]) -> list[str]:
    """The commands of the cells that are empty."""
    missing = [cell for name, cell in CELLS.items() if name not in found]
    if not missing:
        return []
    lines = [f"# {cell.name}: {cell.title}, {cell.protocol}\n{cell.command}" for cell in missing]
    run = "```bash\n" + "\n".join(lines) + f"\n{ADD}\n```"
    return ["An empty cell has not been run. Its command, and then what adds it to this page:", run]


ADD = "python -m benchmarks.arena_page --add=DIR/report/comparison.json --cell=av_mnist_small --encoders=frozen"


def ranked(found: Mapping[str, dict]) -> tuple[dataset_ranks.Ranks | None, list[str]]:
    """Ranks of the methods that all datasets have, with complete training, and these; None where there are too few."""
    names = [name for name in found if CELLS[name].protocol == arena_results.COMPLETE]
    means = {name: arena_results.means(found[name], RANKED_BY) for name in names}
    methods = [method for method in next(iter(means.values()), {}) if all(method in own for own in means.values())]
    if len(names) < 2 or len(methods) < 3:
        return None, names
    values = [[means[name][method] for method in methods] for name in names]
    return dataset_ranks.ranks(values, methods, RANKED_BY in LOWER_IS_BETTER), names


def _ranks(ranks: dataset_ranks.Ranks | None, names: list[str]) -> tuple[list[str], list[str], list[list[str]]]:
    """Sentences, header and rows."""
    if ranks is None:
        return (
            [f"They need three methods on two datasets with complete training; datasets so far: {len(names)}."],
            [],
            [],
        )
    p_value = "all are even" if math.isnan(ranks.p_value) else f"p = {ranks.p_value:.3g}"
    sentence = (
        f"By {verdict.TITLES[RANKED_BY]}, complete training, over {', '.join(names)}. Friedman's test that all methods "
        f"are the same: {p_value}. Two average ranks differ where they are {ranks.critical_difference:.2f} apart "
        "(Nemenyi, 0.05)."
    )
    rows = [[method_label(method), f"{rank:.2f}"] for method, rank in zip(ranks.methods, ranks.average, strict=True)]
    return [sentence], ["method", "average rank"], rows


def _png(ranks: dataset_ranks.Ranks, datasets: int) -> bytes:
    figure = critical_difference_figure(ranks, datasets, verdict.TITLES[RANKED_BY])
    content = io.BytesIO()
    with matplotlib.rc_context({"savefig.dpi": DPI}):
        figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def _claims(measures: Mapping[str, Mapping[str, dict]]) -> tuple[list[str], list[list[str]]]:
    rows = []
    for claim in arena_claims.CLAIMS:
        method = claim.method if claim.method == arena_claims.ANY else f"`{claim.method}`"
        shown = f"{method} {' or '.join(claim.expected)} than `{claim.reference}`, {verdict.TITLES[claim.measure]}"
        rows.append([claim.claim, claim.source, shown, arena_claims.what_is_left(claim, measures, REFERENCES)])
    return ["published claim", "source", "must show here", "what is left of it"], rows


def _cell(name: str, results: Mapping[str, Any], measures: Mapping[str, dict]) -> list[str]:
    """The section of a cell that was run."""
    cell, examples = CELLS[name], results["test_examples"]
    over = "examples and seeds" if "comparisons" in results else "the seeds alone"
    sentences = [
        f"Encoders: {results['encoders'] or 'as the recipe has them'}.",
        f"{results['metric'].capitalize()} of {examples:,} test examples under {results['patterns']} patterns, "
        f"{len(results['seeds'])} seeds, mean ± standard deviation. Differences are over {over}.",
        *(f"`{method}`: {of['encoders']}." for method, of in results["methods"].items() if "encoders" in of),
        *results.get("notes", []),
        *(verdict.words(measures, REFERENCES, examples) if "comparisons" in results else []),
    ]
    parts = [
        Part(f"{cell.title}, {cell.protocol}", sentences, *verdict.standings(measures, examples)),
        Part("What is found", [], *_findings(measures, examples)),
        Part("Budget", [], *_budget(results.get("budget", {}))),
    ]
    (title, said, table), rest = parts_markdown(parts[:1], "###"), parts_markdown(parts[1:], "####")
    run = f"```bash\n{results['command']}\n```"
    return [title, said, table, *rest, f"Raw numbers: `docs/arena/{name}.json`, by", run]


def _findings(measures: Mapping[str, dict], examples: int) -> tuple[list[str], list[list[str]]]:
    """The comparisons that come to a finding; the others are in the file."""
    header, rows = verdict.comparisons(measures, examples)
    return header, [row for row in rows if row[-1] != "undecided"]


def _budget(budget: Mapping[str, Mapping[str, float]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: what each method was given or took; a dash where that is not known."""
    names = list(dict.fromkeys(name for of in budget.values() for name in of))
    rows = [
        [method_label(method), *(f"{of[name]:,.4g}" if name in of else ABSENT for name in names)]
        for method, of in budget.items()
    ]
    return ["method", *names], rows


if __name__ == "__main__":
    command.run(main)
