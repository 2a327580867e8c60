"""How much each row of a table weighs in training."""

from collections.abc import Sequence

from umemma_jax.data_prep.build.rows import Row
from umemma_jax.data_prep.raw.numbers import as_number
from umemma_jax.errors import UserError


def read_sample_weights(rows: Sequence[Row], column: str, missing: Sequence[str]) -> dict[str, float]:
    """The weight of each row, by `Row.where`: numbers as `as_number` reads them.

    Raises:
      UserError: a weight is missing, no finite number or negative, or all are zero.
    """
    weights = {}
    for row in rows:
        try:
            weight = as_number(row.values.get(column), missing)
        except ValueError as error:
            raise UserError(f"{row.where}: the weight in column {column!r} {error}: correct it") from error
        if weight is None or weight < 0:
            what = "is missing" if weight is None else f"is {weight:g}"
            raise UserError(f"{row.where}: the weight in column {column!r} {what}: give a number from 0 on")
        weights[row.where] = weight
    if weights and not any(weights.values()):
        raise UserError(f"--weight={column}: all weights are 0, nothing would be learned: name another column")
    return weights
