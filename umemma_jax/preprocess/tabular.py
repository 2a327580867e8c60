"""Rows of numbers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from umemma_jax.preprocess.ranges import check_not_negative


@dataclasses.dataclass(frozen=True)
class Tabular:
    """float32 [B, D] -> float32 [B, D + L]: standardised per column, and a bit for each of the L that can be missing.

    A number that is missing (NaN) becomes the column's mean, 0, and so does every number of a column that never varies
    in training, which says nothing.

    Attributes:
      mean: per column.
      std: per column.
      missing: how many rows of the training split lack it, per column; empty where none lacks any.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    missing: tuple[float, ...] = ()

    STATED = ("mean", "std", "missing")

    def __post_init__(self) -> None:
        """Checks ranges; messages start with the field, as `build` expects."""
        check_not_negative(self, "std")

    def __call__(self, raw: jax.Array, keys: jax.Array | None = None, train: bool = False) -> jax.Array:
        """Raw [B, D] -> standardised [B, D] and 1 where a number is missing, else 0, [B, L]; nothing random."""
        mean, std = np.array([self.mean, self.std], np.float32)[:, np.newaxis]
        standardised = (raw - mean) / np.where(std > 0, std, 1)
        lacking = jnp.isnan(raw)
        values = jnp.where(lacking | (std == 0), 0, standardised)
        can_lack = np.flatnonzero(self.missing)
        return jnp.concatenate([values, lacking[:, can_lack].astype(jnp.float32)], axis=1) if len(can_lack) else values
