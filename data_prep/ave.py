"""AVE: audio-visual events of 28 classes in clips of 10 s, from the raw download.

It is in `umemma_jax/data_prep/ave.py`.
"""

from umemma_jax import command
from umemma_jax.data_prep.ave import main, prepare

__all__ = ["main", "prepare"]

if __name__ == "__main__":
    command.run(main)
