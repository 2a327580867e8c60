"""What the best possible model says of targets that are known up to noise."""

import numpy as np

from umemma_jax.data.targets import Target
from umemma_jax.evaluation.split_logits import PriorCorrected, SplitLogits
from umemma_jax.patterns import all_patterns

NOISE = (0.5, 1.0, 2.0)  # of the modalities' one reading of each target
TARGETS = (Target("price", 100.0, 20.0), Target("views", -3.0, 0.1))


def split(examples=500, modalities=("a", "b"), targets=TARGETS[:1], complete=True, sharper=1.0, seed=0):
    """Standardised targets of N(0, 1), each read once with noise by each modality: the product of experts is exact.

    `sharper` is a factor on all precision, by which a model believes too much.
    """
    rng = np.random.default_rng(seed)
    standard = rng.normal(size=(examples, len(targets)))
    unimodal = {}
    for noise, name in zip(NOISE, modalities, strict=False):
        gain = np.full(standard.shape, noise**-2)
        eta = (standard + noise * rng.normal(size=standard.shape)) * gain
        precision = 1 + gain
        mean, precision = eta / precision, precision * sharper
        unimodal[name] = np.concatenate([mean * precision, precision - 1], axis=1).astype(np.float32)
    patterns = all_patterns(len(modalities))
    present = patterns[np.zeros(examples, int) if complete else rng.integers(len(patterns), size=examples)]
    together = PriorCorrected(modalities, present, unimodal, np.zeros(2 * len(targets)))
    label = np.float32([target.mean for target in targets] + standard * [target.std for target in targets])
    return SplitLogits(modalities, (), label, present, together, unimodal, targets)


def spread_left(pattern, modalities=("a", "b")):
    """The standard deviation that is left of a standardised target, which is the best possible RMSE."""
    noise = dict(zip(modalities, NOISE, strict=False))
    return (1 + sum(noise[m] ** -2 for m in pattern.split("+"))) ** -0.5
