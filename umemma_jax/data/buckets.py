"""Length buckets: a few static lengths for what varies in length, so that short texts do not pay for the longest.

A batch gets the smallest of the lengths that holds its longest value, and a step is compiled once per length. How long
a value is comes from decoding it, once per row; all processes look at all rows of a global batch, and so agree.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Lengths = Mapping[str, int | Sequence[int]]  # modality -> its static length, or several in ascending order


def largest(lengths: Lengths) -> dict[str, int]:
    """The length at which values are decoded, per modality."""
    return {name: length if isinstance(length, int) else max(length) for name, length in lengths.items()}


def several(lengths: Lengths) -> dict[str, tuple[int, ...]]:
    """The modalities that have more than one. Raises ValueError if they are not in ascending order."""
    found = {name: tuple(length) for name, length in lengths.items() if not isinstance(length, int)}
    for name, length in found.items():
        if not length or length[0] < 1 or any(a >= b for a, b in itertools.pairwise(length)):
            raise ValueError(f"modality {name!r}: lengths {length} are not positive and ascending")
    return found


class Buckets:
    """Chooses the lengths of batches."""

    def __init__(
        self, lengths: Mapping[str, Sequence[int]], decode: Callable[[np.ndarray], Mapping[str, Any]], rows: int
    ) -> None:
        """Args: several lengths per modality; rows int [B] -> their decoded inputs; N, rows of the split."""
        self._lengths = {name: np.array(length) for name, length in lengths.items()}
        self._decode = decode
        self._numbers = np.full((rows + 1, len(lengths)), -1)  # of the bucket; the last row is that of padding, -1
        self._numbers[-1] = 0

    def numbers(self, rows: np.ndarray) -> np.ndarray:
        """Which of a modality's lengths each row needs at least, int [B, modalities with several]."""
        unknown = rows[(self._numbers[rows] < 0).any(axis=1)]
        if len(unknown):
            inputs = self._decode(unknown)
            sizes = [np.searchsorted(lengths, inputs[name]["length"]) for name, lengths in self._lengths.items()]
            self._numbers[unknown] = np.stack(sizes, axis=1)  # the same whichever thread writes it
        return self._numbers[rows]

    def cut(self, inputs: Mapping[str, Any], rows: np.ndarray) -> dict[str, Any]:
        """Inputs of some of the `rows` of a global batch, cut to the lengths that all of its rows fit into."""
        inputs = dict(inputs)
        for (name, lengths), number in zip(self._lengths.items(), self.numbers(rows).max(axis=0), strict=True):
            inputs[name] = shortened(inputs[name], lengths[number])
        return inputs


def shortened(values: Mapping[str, np.ndarray], length: int) -> dict[str, np.ndarray]:
    """Decoded values of variable length, arrays [B, T, ...] and `length` [B], cut to a T that holds them all."""
    return {key: x if key == "length" else x[:, :length] for key, x in values.items()}
