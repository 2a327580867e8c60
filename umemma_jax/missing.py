"""Presence masks: which modalities an example has, which ones training drops, and in which rows.

A presence mask is bool [B, M]. It is what the data has AND what the policy keeps; at least one available modality
always survives. Two layouts draw it:

- random: an independent draw per row (`draw`);
- stratified: by position in the (already shuffled) batch (`Layout`), so that the rows of each encoder are static
  slices and the absent rows are never computed. Rows that do not divide evenly among the patterns are drawn at
  random and computed by every encoder, so that both layouts have the same distribution.

Where the rows of an encoder are not static, because the data are incomplete or the draw is random, those that the mask
keeps are gathered into a static number of rows (`Compacted`).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from umemma_jax.devices.sharding import Devices
from umemma_jax.patterns import Pattern, pattern_shares

PyTree = Any
Capacities = tuple[tuple[int, ...], ...]  # choices of rows per shard, for each modality


@dataclasses.dataclass(frozen=True)
class Policy:
    """Distribution over the subsets of modalities that training keeps.

    Attributes:
      patterns: P subsets of the M modalities.
      probabilities: P floats that sum to 1.
    """

    patterns: tuple[Pattern, ...]
    probabilities: tuple[float, ...]

    @property
    def drops(self) -> bool:
        """Whether any modality is ever dropped."""
        return not all(all(pattern) for pattern in self.patterns)


def policy_from_config(missing: Mapping, modalities: Sequence[str]) -> Policy:
    """Policy from `config.missing`.

    Args:
      missing: `augment` False keeps everything. `keep` maps pattern names such as `image+audio` to weights; when
        empty, all non-empty subsets are equally likely (for two modalities: thirds of complete, only-A, only-B).
      modalities: names in model order.

    Raises:
      UserError: an unknown modality in a pattern's name, or weights that are negative or all zero.
    """
    if not missing["augment"]:
        return Policy((tuple(True for _ in modalities),), (1.0,))
    kept = pattern_shares(missing["keep"], modalities, "config.missing.keep")
    return Policy(*zip(*kept, strict=True))


def draw(policy: Policy, keys: jax.Array, available: jax.Array) -> jax.Array:
    """One independent draw per row, among the patterns that leave the row something.

    Args:
      policy: distribution over P patterns.
      keys: typed PRNG keys [B], one per row.
      available: bool [B, M], what the data has.

    Returns:
      Presence mask, bool [B, M]; a row that no pattern fits keeps all it has.
    """
    patterns = jnp.asarray(policy.patterns)
    overlaps = (available[:, None, :] & patterns[None, :, :]).any(axis=-1)
    log_probabilities = jnp.log(jnp.asarray(policy.probabilities))
    logits = jnp.where(overlaps, log_probabilities[None, :], -jnp.inf)
    fits = overlaps.any(axis=-1, keepdims=True)
    choice = jax.vmap(jax.random.categorical)(keys, jnp.where(fits, logits, 0.0))
    return jnp.where(fits, available & patterns[choice], available)


@dataclasses.dataclass(frozen=True)
class Layout:
    """Static assignment of patterns to the rows of a batch; it repeats on every shard of the batch.

    Attributes:
      patterns: which encoders run on each group of rows.
      counts: rows of each group per shard.
      free: groups whose patterns are drawn at random, from `free_policy`, rather than fixed.
      free_policy: distribution of the free rows, or None when there are none.
      shards: how many equal consecutive slices (devices) the batch has.
    """

    patterns: tuple[Pattern, ...]
    counts: tuple[int, ...]
    free: tuple[bool, ...]
    free_policy: Policy | None
    shards: int

    @property
    def batch_size(self) -> int:
        """Rows of the whole batch."""
        return sum(self.counts) * self.shards

    def slices(self, modality: int) -> list[tuple[int, int]]:
        """Row ranges within one shard whose pattern keeps the modality, adjacent ones merged."""
        ranges, start = [], 0
        for pattern, count in zip(self.patterns, self.counts, strict=True):
            stop = start + count
            if pattern[modality]:
                if ranges and ranges[-1][1] == start:
                    ranges[-1] = (ranges[-1][0], stop)
                else:
                    ranges.append((start, stop))
            start = stop
        return ranges

    def computed(self) -> np.ndarray:
        """Which encoders run on which rows, bool [B, M]."""
        return np.tile(np.repeat(self.patterns, self.counts, axis=0), (self.shards, 1))

    def take(self, x: jax.Array, modality: int) -> jax.Array:
        """The rows [N, ...] of x [B, ...] that the modality's encoder runs on. No data leaves its shard."""
        shards = x.reshape(self.shards, -1, *x.shape[1:])
        parts = [shards[:, start:stop] for start, stop in self.slices(modality)]
        return jnp.concatenate(parts, axis=1).reshape(-1, *x.shape[1:])

    def put(self, rows: jax.Array, modality: int) -> jax.Array:
        """Inverse of `take`: x [B, ...] with zeros in the rows that were not computed."""
        parts, used, position = [], 0, 0
        shards = rows.reshape(self.shards, -1, *rows.shape[1:])

        def zeros(count: int) -> jax.Array:
            return jnp.zeros((self.shards, count, *rows.shape[1:]), rows.dtype)

        for start, stop in self.slices(modality):
            parts += [zeros(start - position), shards[:, used : used + stop - start]]
            used, position = used + stop - start, stop
        parts.append(zeros(sum(self.counts) - position))
        return jnp.concatenate(parts, axis=1).reshape(-1, *rows.shape[1:])

    def draw(self, keys: jax.Array, available: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The presence mask [B, M] by position, and bool [B]: rows that fit their position.

        A row that does not fit (its position's pattern drops all that it has) keeps all it has, though `take` passes it
        over: in incomplete data the mask must decide what is computed (`Compacted`).
        """
        kept = available
        if self.free_policy is not None:
            is_free = np.tile(np.repeat(self.free, self.counts), self.shards)
            kept = jnp.where(is_free[:, None], draw(self.free_policy, keys, available), available)
        kept = kept & self.computed()
        fits = kept.any(axis=-1)
        return jnp.where(fits[:, None], kept, available), fits


def stratified_layout(policy: Policy, batch_size: int, shards: int = 1) -> Layout:
    """Layout with floor(p * B) rows of each pattern per shard; the rest are free rows.

    Args:
      policy: distribution over patterns.
      batch_size: rows of the whole batch; divisible by shards.
      shards: slices of the batch that stay on one device each.
    """
    if batch_size % shards:
        raise ValueError(f"batch of {batch_size} rows on {shards} shards")
    rows = batch_size // shards
    wanted = np.array(policy.probabilities) * rows
    counts = np.floor(wanted + 1e-9).astype(int)
    remainder = rows - int(counts.sum())
    strata = [(p, int(n), False) for p, n in zip(policy.patterns, counts, strict=True) if n]
    free_policy = None
    if remainder:
        left = np.maximum(wanted - counts, 0.0)
        chosen = left > 1e-9
        patterns = tuple(p for p, c in zip(policy.patterns, chosen, strict=True) if c)
        free_policy = Policy(patterns, tuple((left[chosen] / left.sum()).tolist()))
        union = tuple(bool(any(column)) for column in zip(*patterns, strict=True))
        strata.append((union, remainder, True))
    strata.sort(key=lambda stratum: _gray_rank(stratum[0]))
    patterns, counts, free = zip(*strata, strict=True)
    return Layout(patterns, counts, free, free_policy, shards)


def _gray_rank(pattern: Pattern) -> int:
    """Position in the Gray code, in which neighbours differ in one modality: it keeps encoders' slices long."""
    rank = 0
    for bit in pattern:
        rank = (rank << 1) | (int(bit) ^ (rank & 1))
    return rank


def arrange(available: np.ndarray, layout: Layout) -> np.ndarray:
    """Row permutation under which naturally incomplete rows fit their position, as far as there is one by swaps.

    Rows that fit stay where they are; a row that does not is swapped with the next one (cyclically) such that both
    fit. Runs on the host, once per batch of an incomplete dataset.

    Args:
      available: bool [B, M], what the data has.
      layout: of the same batch.

    Returns:
      int [B]: position i of the batch gets row `order[i]`.
    """
    computed = layout.computed()
    order = np.arange(len(available))
    for i in np.flatnonzero(~(available & computed).any(axis=1)):
        there = (available[order[i]] & computed).any(axis=1)
        here = (available[order] & computed[i]).any(axis=1)
        candidates = np.flatnonzero(there & here)
        if candidates.size:
            j = candidates[np.searchsorted(candidates, i) % candidates.size]
            order[[i, j]] = order[[j, i]]
    return order


# Compaction: rows that follow from the mask, not from their position.

SAMPLED_BATCHES, SAMPLED_ROWS = 64, 2**17
MIN_SAVING = 0.05  # of the rows, for which it is worth to compile once more


@dataclasses.dataclass(frozen=True)
class Compacted:
    """The rows that a presence mask keeps, gathered within each shard; `take` and `put` are those of `Layout`.

    Made inside a jitted step, where the mask is a traced value. The result is that of computing every row.

    Attributes:
      present: presence mask, bool [B, M].
      capacities: rows per shard that each encoder runs on, no fewer than any shard keeps (see `run_compacted`).
      shards: how many equal consecutive slices (devices) the batch has.
    """

    present: jax.Array
    capacities: tuple[int, ...]
    shards: int

    def take(self, x: jax.Array, modality: int) -> jax.Array:
        """The kept rows of x [B, ...] in their order, then others up to the capacity, shard by shard: [N, ...]."""
        kept, capacity = self._kept(modality), self.capacities[modality]
        if capacity == kept.shape[1]:
            return x
        order = jnp.argsort(~kept, axis=1, stable=True)
        return self._gather(x, order[:, :capacity])

    def put(self, rows: jax.Array, modality: int) -> jax.Array:
        """Inverse of `take`: x [B, ...] with zeros in the rows that the mask leaves out."""
        kept, capacity = self._kept(modality), self.capacities[modality]
        place = jnp.clip(kept.cumsum(axis=1) - 1, 0, capacity - 1)
        x = rows if capacity == kept.shape[1] else self._gather(rows, place)
        return jnp.where(jnp.expand_dims(kept.reshape(-1), tuple(range(1, x.ndim))), x, 0)

    def _kept(self, modality: int) -> jax.Array:
        return self.present[:, modality].reshape(self.shards, -1)

    def _gather(self, x: jax.Array, rows: jax.Array) -> jax.Array:
        """Of each shard of x [B, ...] the rows, int [shards, N]: [shards * N, ...]. No data leaves its shard."""
        shards = x.reshape(self.shards, -1, *x.shape[1:])
        return jax.vmap(lambda shard, row: shard[row])(shards, rows).reshape(-1, *x.shape[1:])


def run_compacted(
    run: Callable[[Compacted | None], PyTree],
    choices: Capacities,
    present: jax.Array,
    devices: Devices,
) -> PyTree:
    """What `run` returns on the rows that a presence mask keeps, or on all: the same, by less work.

    Args:
      run: function of a layout, None for all rows. It is compiled for each choice and once for all rows.
      choices: ascending capacities, of which the first that holds is taken; where none does, all rows.
      present: presence mask, bool [B, M].
      devices: how its rows relate to the global batch.
    """
    if not choices:
        return run(None)
    counts = present.reshape(devices.shards, -1, present.shape[1]).sum(axis=1).max(axis=0, keepdims=True)
    overflows = (counts > jnp.asarray(choices)).any(axis=1)
    # All devices take the same branch, or the collectives inside would wait for each other forever.
    holds = devices.total(overflows.astype(jnp.int32)) == 0
    branches = [functools.partial(run, Compacted(present, choice, devices.shards)) for choice in choices]
    return jax.lax.switch(jnp.append(holds, True).argmax(), [*branches, functools.partial(run, None)])


def choose_capacities(kept: np.ndarray, sizes: int) -> Capacities:
    """Capacities under which encoders would have run on the fewest rows in sample batches.

    Args:
      kept: presence masks of T batches of S shards of R rows, bool [T, S, R, M].
      sizes: how many choices at most; there are fewer where one more would save less than MIN_SAVING of all rows.

    Returns:
      Ascending choices of rows per shard for each modality: each holds what the batches that it is for keep.
    """
    samples, _, rows, modalities = kept.shape
    counts = np.maximum(kept.sum(axis=2).max(axis=1), 1)  # of the fullest shard, int [T, M]
    levels = np.unique(np.sort(counts, axis=0), axis=0)  # ascending for every modality
    level = (counts[:, None, :] <= levels[None]).all(axis=-1).argmax(axis=1)  # the first that holds each sample
    held = np.bincount(level, minlength=len(levels)).cumsum()
    every_row = samples * modalities * rows

    def computed(chosen: Sequence[int]) -> int:
        """Rows that encoders run on in all samples."""
        chosen = sorted(chosen)
        each = np.diff(held[chosen], prepend=0) * levels[chosen].sum(axis=1)
        return int(each.sum()) + (samples - int(held[chosen[-1]])) * modalities * rows

    chosen, least = [], every_row
    for _ in range(sizes):
        candidate = min(range(len(levels)), key=lambda number: computed([*chosen, number]))
        if computed([*chosen, candidate]) > least - MIN_SAVING * every_row:
            break
        chosen, least = [*chosen, candidate], computed([*chosen, candidate])
    return tuple(tuple(levels[number].tolist()) for number in sorted(chosen))


def sample_masks(
    available: np.ndarray, policy: Policy | None, layout: Layout | None, batch_size: int, seed: int
) -> np.ndarray:
    """Presence masks of random training batches, bool [T, B, M]: such as a step will meet, not the same ones.

    Args:
      available: bool [N, M], what the examples have.
      policy: of the stage; None drops nothing.
      layout: stratified, of the whole batch; None draws every row at random.
      batch_size: B.
      seed: of the batches and the draws.
    """
    samples = max(8, min(SAMPLED_BATCHES, SAMPLED_ROWS // batch_size))
    rows = np.random.Generator(np.random.PCG64(seed)).integers(len(available), size=(samples, batch_size))
    batches = available[rows]
    if policy is None:
        return batches
    if layout is None:
        keys = jax.random.split(jax.random.key(seed), rows.size)
        return np.asarray(draw(policy, keys, available[rows.ravel()])).reshape(batches.shape)
    # Free rows count as kept by every encoder that may have to run on them.
    arranged = np.stack([batch[arrange(batch, layout)] for batch in batches])
    kept = arranged & layout.computed()
    return np.where(kept.any(axis=-1, keepdims=True), kept, arranged)
