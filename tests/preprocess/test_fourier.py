"""Power spectra against NumPy, on one device and on several."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.testing import assert_allclose

from umemma_jax.preprocess.fourier import power_spectrum


@pytest.fixture(params=["cpu", "tpu"], autouse=True)
def backend(request, monkeypatch):
    """What JAX says of its backend, which decides how power is computed."""
    monkeypatch.setattr(jax, "default_backend", lambda: request.param)
    jax.clear_caches()


@pytest.mark.parametrize("n_fft", [100, 101, 128])
def test_power_is_that_of_numpy(n_fft):
    frames = np.random.default_rng(0).normal(size=(3, 5, 100)).astype(np.float32)
    expected = np.abs(np.fft.rfft(frames, n_fft)) ** 2
    assert_allclose(jax.jit(power_spectrum, static_argnums=1)(frames, n_fft), expected, rtol=1e-3, atol=1e-3)


def test_each_device_computes_its_own_rows():
    mesh = Mesh(np.array(jax.devices()), ("data",))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    frames = np.random.default_rng(0).normal(size=(2 * mesh.size, 5, 64)).astype(np.float32)
    step = jax.jit(lambda x: power_spectrum(2 * x, 64), in_shardings=rows, out_shardings=rows)
    compiled = step.lower(frames).compile()
    assert mesh.size > 1 and "all-gather" not in compiled.as_text()
    assert_allclose(compiled(frames), np.abs(np.fft.rfft(2 * frames)) ** 2, rtol=1e-3, atol=1e-3)
