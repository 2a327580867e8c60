"""AV-MNIST from raw files: handwritten digits (MNIST) beside spoken ones (FSDD), paired by digit.

It is in `umemma_jax/data_prep/av_mnist.py`.
"""

from umemma_jax import command
from umemma_jax.data_prep.av_mnist import main, prepare

__all__ = ["main", "prepare"]

if __name__ == "__main__":
    command.run(main)
