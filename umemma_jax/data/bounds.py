"""How large datasets and tables may be, and what they state: damaged or hostile ones would take all memory, or time.

`UMEMMA_BOUNDS=off` in the environment lifts all of them.
"""

import os
import sys

_VARIABLE = "UMEMMA_BOUNDS"

JSON_BYTES = 64 << 20  # of dataset.json
FILE_BYTES = 1 << 30  # of any other file that is read whole
TABLE_BYTES = 2 << 30  # of a Parquet table's columns that are read, decoded
TABLE_ROWS = 20_000_000  # likewise
CLASSES = 100_000
HERTZ = 1_000_000  # of a sample or frame rate


def most(bound: int) -> int:
    """The bound, or none worth the name where they are lifted."""
    return sys.maxsize if os.environ.get(_VARIABLE) == "off" else bound


def check(what: str, value: float, bound: int) -> None:
    """Raises ValueError if the value is beyond its bound."""
    if value > most(bound):
        raise ValueError(f"{what}: {value} is more than {bound}, which {_VARIABLE}=off allows")
