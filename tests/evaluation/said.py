"""What a model that knows the label more or less says of random examples."""

import numpy as np

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
