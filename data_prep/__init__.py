"""Raw downloads to prepared datasets: `python -m data_prep.<dataset>`."""

from umemma_jax import command

command.begin(__name__)
