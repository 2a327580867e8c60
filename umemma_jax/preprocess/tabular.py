"""Rows of numbers."""

import dataclasses

import jax

from umemma_jax.preprocess.standardise import standardise


@dataclasses.dataclass(frozen=True)
class Tabular:
    """float32 [B, D] -> float32 [B, D], standardised per column.

    Attributes:
      mean: per column.
      std: per column.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    STATED = ("mean", "std")

    def __call__(self, raw: jax.Array, keys: jax.Array | None = None, train: bool = False) -> jax.Array:
        """Raw [B, D] -> standardised [B, D]; nothing random."""
        return standardise(raw, self.mean, self.std)
