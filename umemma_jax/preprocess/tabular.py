"""Rows of numbers and categories."""

import dataclasses
import statistics

import jax
import jax.numpy as jnp
import numpy as np

from umemma_jax.preprocess.ranges import check_at_most, check_not_negative, check_positive

MISSING, POOLED = 0, 1  # ids of a category; its levels follow


@dataclasses.dataclass(frozen=True)
class Tabular:
    """float32 [B, D] -> float32 [B, D + L]: standardised per column, and a bit for each of the L that can be missing.

    A number that is missing (NaN) becomes the column's mean, 0, and so does every number of a column that never varies
    in training, which says nothing.

    Attributes:
      mean: per column.
      std: per column.
      missing: how many rows of the training split lack it, per column; empty where none lacks any.
      level_counts: as `Modality.level_counts`; empty where all columns are numbers, and no other is taken.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    missing: tuple[float, ...] = ()
    level_counts: tuple[tuple[int, ...] | None, ...] = ()

    STATED = ("mean", "std", "missing", "level_counts")

    def __post_init__(self) -> None:
        """Checks ranges; messages start with the field, as `build` expects."""
        check_not_negative(self, "std")
        if self.level_counts:
            raise ValueError("form: 'standardised' takes numbers alone, for categories choose 'columns'")

    def __call__(self, raw: jax.Array, keys: jax.Array | None = None, train: bool = False) -> jax.Array:
        """Raw [B, D] -> standardised [B, D] and 1 where a number is missing, else 0, [B, L]; nothing random."""
        mean, std = np.array([self.mean, self.std], np.float32)[:, np.newaxis]
        standardised = (raw - mean) / np.where(std > 0, std, 1)
        lacking = jnp.isnan(raw)
        values = jnp.where(lacking | (std == 0), 0, standardised)
        can_lack = np.flatnonzero(self.missing)
        return jnp.concatenate([values, lacking[:, can_lack].astype(jnp.float32)], axis=1) if len(can_lack) else values


@dataclasses.dataclass(frozen=True)
class Columns:
    """float32 [B, D] -> what encoders of tables take: numbers of one scale, which of them are missing, and categories.

    A number becomes that quantile of the normal distribution that it is of the column in training, so that neither
    scale nor tail of a column matters: linearly between the quantiles that are known, and the outermost one beyond.
    Where they are not known it is standardised. Columns that never vary in training are left out, if others do.

    A category's level becomes an id: 0 where it is missing, 1 if training has it in fewer than `pooled_below` rows or
    not at all, and from 2 on the others, most frequent first.

    In training, a share of the values can be taken as missing, so that a column may be missing later which never was in
    training.

    Attributes:
      mean: per column.
      std: per column.
      missing: how many rows of the training split lack it, per column; empty where none lacks any.
      level_counts: as `Modality.level_counts`; empty where all columns are numbers.
      quantiles: as `Modality.quantiles`; empty where they are not known.
      pooled_below: rows of the training.
      drop: share of the values that are taken as missing, in training.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    missing: tuple[float, ...] = ()
    level_counts: tuple[tuple[int, ...] | None, ...] = ()
    quantiles: tuple[tuple[float, ...], ...] = ()
    pooled_below: int = 3
    drop: float = 0.0

    STATED = ("mean", "std", "missing", "level_counts", "quantiles")

    def __post_init__(self) -> None:
        """Checks ranges; messages start with the field, as `build` expects."""
        check_not_negative(self, "std")
        check_positive(self, "pooled_below")
        check_not_negative(self, "drop")
        check_at_most(self, drop=1.0)
        if len({len(known) for known in self.quantiles if known}) > 1:
            raise ValueError("quantiles: must be as many of each column that has any")

    @property
    def levels(self) -> tuple[int, ...]:
        """How many ids each of the Dc categories has."""
        return tuple(2 + sum(n >= self.pooled_below for n in self.level_counts[c]) for c in self._categories)

    @property
    def _categories(self) -> np.ndarray:
        return np.array([c for c, counts in enumerate(self.level_counts) if counts is not None], np.intp)

    @property
    def _numbers(self) -> np.ndarray:
        """Those columns that vary, in value or in whether they are missing; all if nothing varies."""
        varies = (np.array(self.std) > 0) | (np.array(self.missing or 0) > 0)
        numbers = np.setdiff1d(np.arange(len(self.std)), self._categories)
        kept = numbers[varies[numbers]]
        return kept if kept.size or self._categories.size else numbers

    def __call__(self, raw: jax.Array, keys: jax.Array | None = None, train: bool = False) -> dict[str, jax.Array]:
        """Raw [B, D] -> `numbers` float32 [B, Dn], `missing` float32 [B, Dn], `categories` int32 [B, Dc].

        A number that is missing is 0, and `missing` 1 there, else 0.
        """
        if train and self.drop:
            dropped = jax.vmap(lambda key: jax.random.bernoulli(key, self.drop, raw.shape[1:]))(keys)
            raw = jnp.where(dropped, jnp.nan, raw)
        numbers, levels = raw[:, self._numbers], raw[:, self._categories]
        lacking, unknown = jnp.isnan(numbers), jnp.isnan(levels)
        ids = jnp.where(unknown | (levels < 0), -1, levels).astype(jnp.int32) + 2
        ids = jnp.where(ids < np.array([self.levels], np.int32), ids, POOLED)
        scaled = self._to_normal(numbers) if self.quantiles else self._standardised(numbers)
        return {
            "numbers": jnp.where(lacking, 0, scaled),
            "missing": lacking.astype(jnp.float32),
            "categories": jnp.where(unknown, MISSING, ids),
        }

    def _standardised(self, numbers: jax.Array) -> jax.Array:
        mean, std = np.array([self.mean, self.std], np.float32)[:, np.newaxis, self._numbers]
        return jnp.where(std > 0, (numbers - mean) / np.where(std > 0, std, 1), 0)

    def _to_normal(self, numbers: jax.Array) -> jax.Array:
        """As the sum of what each of the intervals between two quantiles adds to the first one."""
        size = max(map(len, self.quantiles))
        known = [_edges(self.quantiles[column] or (0.0,) * size) for column in self._numbers]
        edges, values = np.stack(known, axis=1)[:, np.newaxis]
        low, width, gain = edges[..., :-1], np.diff(edges), np.diff(values)
        passed = jnp.clip((numbers[..., np.newaxis] - low) / np.where(width > 0, width, 1), 0, 1)
        return values[..., 0] + jnp.sum(passed * gain, axis=-1)


def _edges(quantiles: tuple[float, ...]) -> np.ndarray:
    """Quantiles of a column, and the normal distribution's beside each, float32 [2, Q]; the mean of those that tie."""
    half = 0.5 / len(quantiles)  # of a share: the normal distribution has no end
    shares = np.clip(np.linspace(0, 1, len(quantiles)), half, 1 - half)
    normal = np.array([statistics.NormalDist().inv_cdf(share) for share in shares])
    _, groups = np.unique(quantiles, return_inverse=True)
    means = np.bincount(groups, normal) / np.bincount(groups)
    return np.array([quantiles, means[groups]], np.float32)
