"""Any dataset of tensorflow-datasets, read through its data source, without TensorFlow.

It is in `umemma_jax/data_prep/tfds.py`.
"""

from umemma_jax import command
from umemma_jax.data_prep.tfds import main, prepare

__all__ = ["main", "prepare"]

if __name__ == "__main__":
    command.run(main)
