"""Kinetics-Sound: the classes of Kinetics that can be seen and heard, in clips of 10 s, from class folders or lists.

It is in `umemma_jax/data_prep/kinetics_sound.py`.
"""

from umemma_jax import command
from umemma_jax.data_prep.kinetics_sound import main, prepare

__all__ = ["main", "prepare"]

if __name__ == "__main__":
    command.run(main)
