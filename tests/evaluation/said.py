"""What a model that knows the label more or less says of random examples, and when two reports say the same."""

import numpy as np
import pytest

from umemma_jax.evaluation.split_logits import PriorCorrected, SplitLogits
from umemma_jax.patterns import all_patterns


def split(examples=200, classes=4, modalities=("a", "b"), multi_label=False, complete=True, seed=0):
    """The prior-corrected ensemble of uni-modal models of which each one is worse than the one before."""
    rng = np.random.default_rng(seed)
    label = rng.random((examples, classes)) < 0.3 if multi_label else rng.integers(classes, size=examples)
    truth = 2.0 * label - 1 if multi_label else np.eye(classes)[label]
    unimodal = {
        m: ((2.0 - 0.3 * number) * truth + rng.normal(size=truth.shape)).astype(np.float32)
        for number, m in enumerate(modalities)
    }
    patterns = all_patterns(len(modalities))
    present = patterns[np.zeros(examples, int) if complete else rng.integers(len(patterns), size=examples)]
    together = PriorCorrected(modalities, present, unimodal, np.zeros(classes))
    names = tuple(f"class {k}" for k in range(classes))
    return SplitLogits(modalities, names, label, present, together, unimodal)


def assert_close(found, expected):
    """Nested dicts and lists of the same words, and of numbers that are as close as the logits of two compilations."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name in expected:
            assert_close(found[name], expected[name])
    elif isinstance(expected, list):
        for pair in zip(found, expected, strict=True):
            assert_close(*pair)
    else:
        assert found == (pytest.approx(expected, rel=1e-4, abs=1e-6) if isinstance(expected, float) else expected)
