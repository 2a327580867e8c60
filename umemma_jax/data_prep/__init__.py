"""Raw downloads to prepared datasets: `python -m data_prep.<dataset>`, or with `umemma_jax.` before it."""

from umemma_jax import command

command.begin(__name__)
