"""What the folds of a cross-validation come to, from their reports."""

import json
from collections.abc import Sequence

from umemma_jax.errors import UserError
from umemma_jax.reporting.results import mean_std, metrics, reduced

SHARED = ("dataset", "split", "method", "seed", "metric", "modalities")


def over_folds(rows: Sequence[dict]) -> dict:
    """Means and sample standard deviations over the folds of what their reports say.

    Args:
        rows: the results of each fold, in order, as report.json holds them.

    Returns:
        {dataset, split, method, seed, metric, modalities, metrics,
         examples: [of each fold],
         patterns: {pattern: {metric: {mean, std, folds: [value of each]}}},
         ceilings: {modality: likewise}}
        A value is None where a fold has none, and so are mean and std then.

    Raises:
        UserError: the reports are of different evaluations.
    """
    for key in SHARED:
        values = sorted({json.dumps(row[key]) for row in rows})
        if len(values) > 1:
            raise UserError(f"folds that do not belong together: {key} is {' and '.join(values)}: evaluate them again")
    names = metrics(rows[0])
    found = {key: rows[0][key] for key in SHARED} | {"metrics": names, "examples": [row["examples"] for row in rows]}
    for table in ("patterns", "ceilings"):
        found[table] = reduced(_spread, [row[table] for row in rows], names)
    return found


def _spread(values: list[float | None]) -> dict:
    return mean_std(values) | {"folds": values}
