"""What a caller gives of one modality, checked, and as the program of an exported model takes it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from umemma_jax.errors import UserError

Arrays = dict[str, np.ndarray]
VALUES = "values"  # the name of an input that is one array


class Input:
    """One modality of an exported model.

    Attributes:
      name: of it.
      required: whether no row may lack it.
      description: as `model.json` has it.
    """

    def __init__(self, name: str, description: Mapping[str, Any]) -> None:
        """Raises KeyError or TypeError where the description is none."""
        self.name, self.description = name, description
        self.required = bool(description["required"])
        self._dtypes = {array: np.dtype(x["dtype"]) for array, x in description["arrays"].items()}
        self._shapes = {array: tuple(x["shape"]) for array, x in description["arrays"].items()}
        self._counts = description.get("counted_by")
        self._lengths = tuple(description.get("lengths", ()))

    def checked(self, value: Any) -> Arrays:
        """The arrays of N rows, by name.

        Args:
          value: an array, or of what is several a mapping of arrays by name.

        Raises:
          UserError: arrays are missing or unknown, or one has not the dtype or the shape.
        """
        given = dict(value) if isinstance(value, Mapping) else {VALUES: value}
        if given.keys() != self._dtypes.keys():
            raise UserError(f"{self.name}: arrays {_listed(given)} instead of {_listed(self._dtypes)}")
        arrays = {array: self._checked(array, given[array]) for array in self._dtypes}
        if len({len(x) for x in arrays.values()}) > 1:
            raise UserError(f"{self.name}: {_listed(arrays)} are not of the same number of rows")
        return arrays

    def _checked(self, array: str, x: Any) -> np.ndarray:
        where = self.name if array == VALUES else f"{self.name}.{array}"
        if not hasattr(x, "dtype"):
            raise UserError(f"{where}: {type(x).__name__} instead of an array of {self._dtypes[array]}")
        x = np.asarray(x)
        if x.dtype != self._dtypes[array]:
            raise UserError(f"{where}: {x.dtype} instead of {self._dtypes[array]}")
        shape = [*self._shapes[array]]
        shape[0] = "N"
        if self._is_counted(array):
            shape[1] = "any"
        if x.ndim != len(shape) or any(isinstance(n, int) and n != m for n, m in zip(shape, x.shape, strict=True)):
            raise UserError(f"{where}: shape {list(x.shape)} instead of [{', '.join(map(str, shape))}]")
        return x

    def fitted(self, arrays: Arrays | None, present: np.ndarray, rows: int) -> Arrays:
        """Arrays of so many rows, at the least of the input's lengths that holds what is there; zero where absent.

        Args:
          arrays: of N rows, as `checked` gives them; None: no row has any.
          present: which of these rows have it, bool [N].
          rows: N or more.

        Raises:
          UserError: what is there is longer than the model takes, or infinite.
        """
        arrays = {} if arrays is None else {name: _kept(x, present) for name, x in arrays.items()}
        length = self._length(arrays)
        return {
            name: _placed(arrays.get(name), (rows, *self._sizes(name, length)), self._dtypes[name])
            for name in self._dtypes
        }

    def _length(self, arrays: Arrays) -> int | None:
        for name, x in arrays.items():
            if x.dtype.kind == "f" and np.isinf(x).any():
                raise UserError(f"{self.name}: infinite numbers in {name}")
        if self._counts is None:
            return None
        counts = arrays.get(self._counts, np.zeros(1, np.int32))
        held = min([self._lengths[-1], *(x.shape[1] for name, x in arrays.items() if self._is_counted(name))])
        if counts.min() < 0 or counts.max() > held:
            raise UserError(f"{self.name}.{self._counts}: from {counts.min()} to {counts.max()}, not from 0 to {held}")
        return next(length for length in self._lengths if length >= counts.max())

    def _sizes(self, array: str, length: int | None) -> tuple[int, ...]:
        """The shape of a row."""
        sizes = self._shapes[array][1:]
        return (length, *sizes[1:]) if self._is_counted(array) else sizes

    def _is_counted(self, array: str) -> bool:
        return self._counts is not None and array != self._counts


def _kept(x: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Zeros in the rows that are absent, whatever they held."""
    return x if present.all() else np.where(present.reshape(-1, *[1] * (x.ndim - 1)), x, np.zeros((), x.dtype))


def _placed(x: np.ndarray | None, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """The array, cut to a shape or filled up with zeros."""
    if x is not None and x.shape == shape:
        return x
    placed = np.zeros(shape, dtype)
    if x is not None:
        common = tuple(slice(min(sizes)) for sizes in zip(x.shape, shape, strict=True))
        placed[common] = x[common]
    return placed


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(map(str, names))
