"""Gaussian beliefs about T standardised targets, as what is known beyond the prior N(0, 1).

Evidence is [..., 2 T]: for each target a natural parameter eta, and then for each a gain of precision, 0 or more. The
belief is N(eta / (1 + gain), 1 / (1 + gain)), the prior itself where there is no evidence. Evidence of several sources
adds up: that is Bayes' rule where they are independent given the target, with the prior counted once.

Functions take arrays of NumPy or JAX.
"""

from typing import TypeVar

Array = TypeVar("Array")


def width(num_targets: int) -> int:
    """Numbers of the evidence about so many targets."""
    return 2 * num_targets


def parts(evidence: Array) -> tuple[Array, Array]:
    """Natural parameters and gains of precision, [..., T] each."""
    num_targets = evidence.shape[-1] // 2
    return evidence[..., :num_targets], evidence[..., num_targets:]


def moments(evidence: Array) -> tuple[Array, Array]:
    """Mean and variance of the belief, [..., T] each, in standard deviations of the targets and their squares."""
    eta, gain = parts(evidence)
    return eta / (1 + gain), 1 / (1 + gain)
