"""The quickstart's dataset, made from nothing: handwritten digits beside their telephone touch-tones in noise.

It is in `umemma_jax/data_prep/quickstart.py`.
"""

from umemma_jax import command
from umemma_jax.data_prep.quickstart import main, prepare

__all__ = ["main", "prepare"]

if __name__ == "__main__":
    command.run(main)
