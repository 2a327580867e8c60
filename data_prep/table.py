"""Your own data: a table of image, video and sound files, texts, numbers and labels, any of them empty.

It is in `umemma_jax/data_prep/table.py`.
"""

from umemma_jax import command
from umemma_jax.data_prep.table import main, prepare

__all__ = ["main", "prepare"]

if __name__ == "__main__":
    command.run(main)
