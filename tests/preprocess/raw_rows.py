"""Modalities, and batches of them as the pipeline delivers them."""

import jax
import numpy as np

from umemma_jax.data.kinds import Modality
from umemma_jax.preprocess import build

IMAGE = Modality("image", "raw", shape=(28, 28, 1), mean=(33.3,), std=(78.6,))
COLOUR = Modality("image", "raw", shape=(9, 7, 3), mean=(120.0, 110.0, 100.0), std=(60.0, 50.0, 40.0))
AUDIO = Modality("audio", "pcm_s16le", sample_rate=8000)
TABLE = Modality("tabular", "float32", shape=(3,), mean=(1.0, -2.0, 0.0), std=(2.0, 0.5, 0.0))
TEXT = Modality("text", "utf-8")


def preprocess(modality, **config):
    return build(modality.kind, modality, config, "m")


def keys(rows, seed=0):
    return jax.random.split(jax.random.key(seed), rows)


def pixels(rows, modality, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, *modality.shape), np.uint8)


def batch(*waveforms, size=4000):
    """int16 waveforms as the pipeline delivers them: cut or zero-padded to `size`, with their lengths."""
    samples = np.zeros((len(waveforms), size), np.int16)
    for row, waveform in zip(samples, waveforms, strict=True):
        row[: len(waveform)] = waveform[:size]
    return {"samples": samples, "length": np.array([min(len(w), size) for w in waveforms], np.int32)}


def synthetic():
    """Silence, nothing, one sample, a click, full-scale tone, full-scale noise, quiet noise, longer than the batch."""
    rng, time = np.random.default_rng(0), np.arange(5000)
    return batch(
        np.zeros(3000, np.int16),
        np.zeros(0, np.int16),
        np.array([-32768], np.int16),
        np.eye(1, 900, 450).ravel() * 32767,
        np.round(32767 * np.sin(time * 2 * np.pi * 440 / 8000)),
        rng.integers(-32768, 32768, 2500),
        rng.integers(-3, 4, 2500),
        rng.integers(-32768, 32768, 5000),
    )
