"""UPMC Food101: photos and page titles of 101 dishes, from the raw download.

It is in `umemma_jax/data_prep/food101.py`.
"""

from umemma_jax import command
from umemma_jax.data_prep.food101 import main, prepare

__all__ = ["main", "prepare"]

if __name__ == "__main__":
    command.run(main)
