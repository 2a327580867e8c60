"""Host side: on-disk format, random-access source and input pipeline. NumPy only, no JAX."""
