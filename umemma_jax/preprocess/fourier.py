"""The Fourier transform of frames, on the device where their rows are.

XLA does not divide a transform among devices: left to itself it gathers the frames of the whole batch on each of them.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.custom_partitioning import custom_partitioning


def power_spectrum(frames: jax.Array, n_fft: int) -> jax.Array:
    """`|rfft|^2` of float32 [B, T, N], zero-padded to n_fft >= N points: [B, T, n_fft // 2 + 1]."""
    spectrum = _rfft(jnp.pad(frames, ((0, 0), (0, 0), (0, n_fft - frames.shape[2]))))
    return jnp.square(spectrum.real) + jnp.square(spectrum.imag)


@custom_partitioning
def _rfft(frames: jax.Array) -> jax.Array:
    return jnp.fft.rfft(frames)


def _partition(mesh: Any, arguments: Any, result: Any) -> tuple[Any, ...]:
    sharding = arguments[0].sharding
    return mesh, jnp.fft.rfft, sharding, (sharding,)


_rfft.def_partition(_partition, sharding_rule="b t n -> b t f", need_replication_factors=("n", "f"))
