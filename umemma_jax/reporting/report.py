"""From results to files that people read: JSON, Markdown, a page and figures.

`write_report` takes one evaluation, `write_comparison` several (methods x seeds). Both render
everything in memory first and then put the files in place together, by rename. The same results
give the same bytes.
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from umemma_jax import checksums
from umemma_jax.data import npz
from umemma_jax.evaluation import decisions, pattern_calibration
from umemma_jax.evaluation.robustness import Report
from umemma_jax.reporting.definitions import definitions
from umemma_jax.reporting.diagrams import information_figure, rate_map_figure, reliability_figure
from umemma_jax.reporting.figures import comparison_figure, robustness_figure
from umemma_jax.reporting.files import write_files
from umemma_jax.reporting.markdown import comparison_markdown, cross_validation_markdown, report_markdown
from umemma_jax.reporting.page import report_page

FIGURE_DPI = 200
DIAGRAMS = {  # of which key of the results
    "reliability": ("calibration", reliability_figure),
    "information": ("information", information_figure),
    "rate_maps": ("rate_maps", rate_map_figure),
}


def write_report(
    results: dict,
    folder: Path,
    tables: Mapping[str, np.ndarray] | None = None,
    beside: Mapping[str, bytes] | None = None,
) -> None:
    """Writes report.json, report.md, report.html, figures and, where given, missing_tables.npz and other files.

    Figures are robustness, and where the results have numbers for them reliability, information and rate_maps, each
    as .png and .svg.

    Args:
        results: the content of report.json, less `definitions`, which are added; report.schema.json beside this
            module says what it holds and what may be absent. Metrics are fractions from 0 to 1 as Python floats, None
            where no example defines them.
        folder: made if absent, and then appears complete; other files in it stay.
        tables: what each cell of `missing_rates` kept, bool [seeds, examples, M], by name.
        beside: content of other files by name.

    Raises:
        UserError: the folder cannot be written.
        ValueError: a number is not finite.
    """
    results = {**results, "definitions": definitions(results)}
    files = {
        "report.json": _json(checksums.seal(results)),
        "report.md": report_markdown(results).encode(),
        "report.html": report_page(results).encode(),
        **_images("robustness", robustness_figure(results)),
    }
    for name, (key, draw) in DIAGRAMS.items():
        if results.get(key):
            files |= _images(name, draw(results))
    if tables is not None:
        files["missing_tables.npz"] = npz.encode_compressed(tables)
    files |= beside or {}
    write_files(files, Path(folder))


def write_evaluation(evaluated: Report, workdir: Path) -> None:
    """Writes what an evaluation has found into the folder of the run: the report, and what is computed from it later.

    That is what `predict` takes of it, and what a comparison does.

    Raises:
        UserError: the folder cannot be written.
    """
    kept = {decisions.FILE_NAME: decisions.encode(evaluated.decisions)}
    write_report(evaluated.results, workdir / "report", evaluated.tables, kept)
    pattern_calibration.write(evaluated.results, workdir)


def write_comparison(comparison: dict, folder: Path) -> None:
    """Writes comparison.json, comparison.md, comparison.png and comparison.svg.

    Args:
        comparison: from `results.compare`; the last of its methods is drawn heavier.
        folder: as in `write_report`.

    Raises:
        UserError: the folder cannot be written.
    """
    files = {
        "comparison.json": _json(comparison),
        "comparison.md": comparison_markdown(comparison).encode(),
        **_images("comparison", comparison_figure(comparison)),
    }
    write_files(files, Path(folder))


def write_cross_validation(found: dict, folder: Path) -> None:
    """Writes cross_validation.json and cross_validation.md, of what `cross_validation.over_folds` returns.

    Raises:
        UserError: the folder cannot be written.
    """
    files = {
        "cross_validation.json": _json(found),
        "cross_validation.md": cross_validation_markdown(found).encode(),
    }
    write_files(files, Path(folder))


def _json(content: dict) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _images(name: str, figure: Figure) -> dict[str, bytes]:
    """The files NAME.png and NAME.svg."""
    png, svg = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", dpi=FIGURE_DPI)
    with matplotlib.rc_context({"svg.hashsalt": name}):  # without it, ids within the file are random
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return {f"{name}.png": png.getvalue(), f"{name}.svg": svg.getvalue()}
