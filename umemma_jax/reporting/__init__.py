"""From numbers to files for people; imports no JAX."""
