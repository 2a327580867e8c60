"""Labelled clips in the raw layouts of AVE and Kinetics-Sound: a handwritten digit moves while spoken ones are heard.

It is in `umemma_jax/data_prep/rendered_clips.py`.
"""

from umemma_jax import command
from umemma_jax.data_prep.rendered_clips import main, prepare

__all__ = ["main", "prepare"]

if __name__ == "__main__":
    command.run(main)
