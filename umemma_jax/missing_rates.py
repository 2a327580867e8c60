"""Missing rates: seeded tables of what each example of a split loses, the same on any machine."""

import functools
import hashlib
import itertools
import operator
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

MIXED = "mixed"


def missing_table(available: np.ndarray, kind: str, rate: float, seed: int, modalities: Sequence[str]) -> np.ndarray:
    """Which modalities each of N examples keeps at a missing rate.

    Exactly round(rate * N) examples, chosen by the seed, lose the modality `kind`; for `mixed` the chosen examples
    lose one modality each, all modalities in equal shares (the `both` of the prompt papers). The tables of one seed
    are nested: what is lost at 30 % is also lost at 40 %. An example never loses the last modality it has.

    Args:
      available: bool [N, M], what the data has.
      kind: a modality's name, or `mixed`.
      rate: share of examples, 0 to 1.
      seed: of the table.
      modalities: names in column order.

    Returns:
      bool [N, M].
    """
    return keep(available, ranks(len(available), seed), *_loss(kind, rate, len(available), modalities))


def ranks(num_examples: int, seed: int | np.random.SeedSequence) -> np.ndarray:
    """When each of N examples is chosen by the seed, int32 [N]: 0 for the first."""
    found = np.empty(num_examples, np.int32)
    found[np.random.Generator(np.random.PCG64(seed)).permutation(num_examples)] = np.arange(num_examples)
    return found


def keep(available: np.ndarray, rank: np.ndarray, column: int, count: int) -> np.ndarray:
    """What is left to N examples of which those chosen first lose one modality, unless it is their last.

    Args:
      available: bool [N, M], what the data has.
      rank: int [N], from `ranks`.
      column: of the modality that is lost; M where it is each one's in turn.
      count: how many examples lose one.

    Returns:
      bool [N, M].
    """
    modalities = range(available.shape[1])
    chosen, turn = rank < count, rank % len(modalities)
    lost = [chosen & ((column == m) | ((column == len(modalities)) & (turn == m))) for m in modalities]
    kept = [available[:, m] & ~lost[m] for m in modalities]
    nothing = ~functools.reduce(operator.or_, kept)  # over an axis this short, `any` takes NumPy many times as long
    kept = [kept[m] | (available[:, m] & nothing) for m in modalities]
    return np.stack(kept, axis=-1)


def independent_ranks(num_examples: int, num_modalities: int, seed: int) -> np.ndarray:
    """When each of N examples is chosen to lose each of M modalities, int32 [N, M]: a draw of its own for each."""
    seeds = np.random.SeedSequence(seed).spawn(num_modalities)
    return np.stack([ranks(num_examples, own) for own in seeds], axis=-1)


def keep_independent(available: np.ndarray, rank: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """What is left to N examples that lose each of M modalities independently of the others.

    What is chosen is nested over the counts. An example that would lose all that it has keeps what is chosen last.

    Args:
      available: bool [N, M], what the data has.
      rank: int [N, M], from `independent_ranks`.
      counts: how many examples lose each modality.

    Returns:
      bool [N, M].
    """
    kept = available & (rank >= np.asarray(counts))
    nothing = ~functools.reduce(operator.or_, kept.T)
    last = np.where(available, rank, -1)[nothing].argmax(axis=1)
    kept[np.flatnonzero(nothing), last] = available[nothing, last]
    return kept


def _loss(kind: str, rate: float, num_examples: int, modalities: Sequence[str]) -> tuple[int, int]:
    """`column` and `count` for `keep`."""
    return (*modalities, MIXED).index(kind), round(rate * num_examples)


class GridTables(Mapping[str, np.ndarray]):
    """The tables of the missing-rate grid, bool [seeds, N, M] by `kind@rate`: each modality lost alone, and mixed.

    Each is made when it is asked for: all of them together may not fit into memory.

    Attributes:
      ranks: int32 [seeds, N], of seeds 0, 1, ...
      cells: (kind, rate) by name.
      losses: `column` and `count` for `keep` by name.
    """

    def __init__(self, available: np.ndarray, rates: Sequence[float], seeds: int, modalities: Sequence[str]) -> None:
        """Takes what the data has, bool [N, M], and the names of its columns."""
        self._available = available
        self.ranks = np.stack([ranks(len(available), seed) for seed in range(seeds)])
        kinds_rates = itertools.product((*modalities, MIXED), rates)
        self.cells = {f"{kind}@{rate:g}": (kind, rate) for kind, rate in kinds_rates}
        self.losses = {name: _loss(*cell, len(available), modalities) for name, cell in self.cells.items()}

    def __getitem__(self, name: str) -> np.ndarray:
        """What `missing_table` gives, seed by seed."""
        return np.stack([keep(self._available, rank, *self.losses[name]) for rank in self.ranks])

    def __iter__(self) -> Iterator[str]:
        return iter(self.cells)

    def __len__(self) -> int:
        return len(self.cells)


def table_hash(tables: np.ndarray) -> str:
    """SHA-256 of bool tables of any shape: of the shape as text, then the bits packed big-endian in C order."""
    digest = hashlib.sha256(repr(tables.shape).encode())
    digest.update(np.packbits(tables).tobytes())
    return digest.hexdigest()
