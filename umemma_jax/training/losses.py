"""What a wrong answer costs: the loss of each row, from its logits and its label.

A loss is a function (logits, label) -> float32 [B]; the training step takes its weighted mean over the rows.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from umemma_jax import gaussian
from umemma_jax.data.targets import Target, scale

LEAST = 1e-7  # of 1 - p, so that powers of it have finite gradients where float32 rounds p to 1


@dataclasses.dataclass(frozen=True)
class ClassLoss:
    """Of classes: cross-entropy, or focal loss (Lin et al. 2017, equation 4), which is it at gamma = 0.

    Single-label, the softmax cross-entropy; multi-label, the mean of K binary ones.

    Attributes:
      label_smoothing: share of the label mass spread over all classes, single-label only.
      gamma: how much less than the hard rows the easy ones count, 0 or more.
      class_weights: K factors, or None: single-label, on the rows of a class; multi-label, on the positives of
        a class (`pos_weight` of PyTorch's BCEWithLogitsLoss). The mean over a batch divides by the number of rows, not
        by their weights, so that a rare class counts in full in the few batches that have it.
    """

    label_smoothing: float = 0.0
    gamma: float = 0.0
    class_weights: Sequence[float] | None = None

    def __call__(self, logits: jax.Array, label: jax.Array) -> jax.Array:
        """Loss of each row, float32 [B].

        Args:
          logits: [B, K].
          label: int [B]; multi-label: float [B, K] of zeros and ones.
        """
        logits = logits.astype(jnp.float32)
        weights = (
            jnp.ones(logits.shape[-1]) if self.class_weights is None else jnp.array(self.class_weights, jnp.float32)
        )
        if label.ndim == 2:
            return (jnp.where(label > 0, weights, 1.0) * _binary(logits, label, self.gamma)).mean(axis=-1)
        target = optax.smooth_labels(jax.nn.one_hot(label, logits.shape[-1]), self.label_smoothing)
        return weights[label] * _softmax(logits, target, self.gamma)


@dataclasses.dataclass(frozen=True)
class TargetLoss:
    """Of regression: the negative log-likelihood of standardised targets under a Gaussian belief, mean over them.

    With `huber`, the mean is trained by Huber's loss (1964), whose gradient is at most 1 however far off a target is,
    and the precision alone by the likelihood of what the mean leaves over.

    Attributes:
      targets: T, with mean and standard deviation.
      huber: whether the mean is trained so.
    """

    targets: tuple[Target, ...]
    huber: bool = False

    def __call__(self, logits: jax.Array, label: jax.Array) -> jax.Array:
        """Loss of each row, float32 [B].

        Args:
          logits: evidence [B, 2 T], as in `gaussian`.
          label: float [B, T], in the units of the targets.
        """
        centre, spread = (jnp.array(x, jnp.float32)[None, :] for x in scale(self.targets))
        standard, evidence = (label - centre) / spread, logits.astype(jnp.float32)
        mean, variance = gaussian.moments(evidence)
        error = standard - mean
        if not self.huber:
            return (0.5 * (jnp.square(error) / variance + jnp.log(2 * jnp.pi * variance))).mean(axis=-1)
        held = jax.lax.stop_gradient
        of_mean = optax.huber_loss(held(variance) * gaussian.parts(evidence)[0], standard)
        of_precision = 0.5 * (jnp.square(held(error)) / variance + jnp.log(2 * jnp.pi * variance))
        return (of_mean + of_precision).mean(axis=-1)


def _softmax(logits: jax.Array, target: jax.Array, gamma: float) -> jax.Array:
    """Sum over the classes of -target (1 - p)^gamma log p, [B]."""
    if not gamma:
        return optax.softmax_cross_entropy(logits, target)
    log_p = jax.nn.log_softmax(logits)
    others = jnp.maximum(-jnp.expm1(log_p), LEAST)
    return -(target * others**gamma * log_p).sum(axis=-1)


def _binary(logits: jax.Array, label: jax.Array, gamma: float) -> jax.Array:
    """Of each decision -(1 - p)^gamma log p, [B, K], where p is the probability of what is true."""
    if not gamma:
        return optax.sigmoid_binary_cross_entropy(logits, label)
    towards = jnp.where(label > 0, logits, -logits)
    return -jnp.exp(gamma * jax.nn.log_sigmoid(-towards)) * jax.nn.log_sigmoid(towards)
