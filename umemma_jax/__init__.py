"""UME-MMA in JAX: uni-modal ensembles that stand when a modality is missing (arXiv 2310.06383)."""

__version__ = "0.1.0"

from umemma_jax import command

command.begin(__name__)  # where one of its modules is the command
