"""Measurements of speed, each run as `python -m benchmarks.<name>`."""

from umemma_jax import command

command.begin(__name__)
