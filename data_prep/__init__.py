"""Raw downloads to prepared datasets: `python -m data_prep.<dataset>`. What they do is in `umemma_jax/data_prep/`."""

from umemma_jax import command

command.begin(__name__)
