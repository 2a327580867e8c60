"""What is asked of arrays from a file that anyone may have written."""

import numpy as np

from umemma_jax.errors import UserError

Arrays = dict[str, np.ndarray]


def require(condition: bool, where: str, remedy: str) -> None:
    """Raises UserError, naming the array, unless the condition holds."""
    if not condition:
        raise UserError(f"{where}: {remedy}")


def take(arrays: Arrays, where: str, name: str) -> np.ndarray:
    """An array that must be there, under that name, and is called `where` in messages."""
    require(name in arrays, where, "is missing, see docs/logits.md")
    return arrays[name]


def names(arrays: Arrays, key: str) -> tuple[str, ...]:
    """An array of different names."""
    array = take(arrays, key, key)
    require(array.dtype.kind == "U" and array.ndim == 1, key, "are no names, an array of str")
    found = tuple(array.tolist())
    require(len(set(found)) == len(found) > 0 and all(found), key, "a name is empty or stands twice, or there is none")
    return found


def numbers(array: np.ndarray, shape: tuple[int, int], axes: str, where: str) -> np.ndarray:
    """An array of numbers of that shape; `axes` says of what."""
    require(array.shape == shape, where, f"is {list(array.shape)}, not {list(shape)}: {axes}")
    require(array.dtype.kind in "fiu", where, f"is of type {array.dtype}")
    return array


def finite(array: np.ndarray, rows: np.ndarray, where: str) -> np.ndarray:
    """float32, zero in rows that are not read; the others, bool [N], must be finite."""
    with np.errstate(over="ignore"):
        read = np.where(rows[:, None], array, 0).astype(np.float32)
    fine = np.isfinite(read).all(axis=1)
    require(bool(fine.all()), where, f"is not finite in row {fine.argmin()}")
    return read
