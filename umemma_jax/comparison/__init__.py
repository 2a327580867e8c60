"""Parts of `umemma_jax.compare`: what is to be run, and the trials of hyper-parameters."""
