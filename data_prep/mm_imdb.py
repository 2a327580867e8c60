"""MM-IMDb: posters, plots and genres of movies, from the raw download.

It is in `umemma_jax/data_prep/mm_imdb.py`.
"""

from umemma_jax import command
from umemma_jax.data_prep.mm_imdb import main, prepare

__all__ = ["main", "prepare"]

if __name__ == "__main__":
    command.run(main)
