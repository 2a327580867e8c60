"""Late-fusion heads: features of every modality to class logits, or to Gaussian evidence about targets.

Each head exports `__call__(features, present)` and, in `FAMILIES`, how its parameters start from the uni-modal heads so
that at step 0 it joins what they say by Bayes' rule. `features[m]` is float [B, D_m] with the stand-in already in place
of what is absent.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from umemma_jax import gaussian
from umemma_jax.task import GAUSSIAN, LOGITS

Features = Mapping[str, jax.Array]
PRECISION = "highest"  # accelerators would multiply float32 in fewer bits, and logits are too few to gain from it


class Linear(nn.Module):
    """One linear layer on the concatenated features and presence bits.

    Written as a sum over modalities: logits = b_0 + sum_m (x_m W_m + present_m (b_m - b_0)). With W_m and b_m of the
    uni-modal heads, b_0 the log-prior of the classes and a zero stand-in, the logits of EVERY missing pattern are those
    of a product of experts that counts the prior once: a single modality decides as its own head, and where the
    modalities are independent given the class, the logits are those of Bayes' posterior.
    """

    modalities: tuple[str, ...]
    outputs: int

    @nn.compact
    def __call__(self, features: Features, present: jax.Array) -> jax.Array:
        """Class logits, float32 [B, K], from features {m: [B, D_m]} and the presence mask, bool [B, M]."""
        prior = self.param("prior", nn.initializers.zeros, (self.outputs,))
        logits = prior[None, :]
        for index, m in enumerate(self.modalities):
            product, bias = _layer(self, features, m)
            logits += product + present[:, index, None] * (bias - prior)[None, :]
        return logits


class Mlp(nn.Module):
    """`Linear` plus a hidden layer on the concatenation, whose output layer starts at zero.

    The sum of both starts as `Linear` alone, so it can start from the uni-modal heads too.
    """

    modalities: tuple[str, ...]
    outputs: int
    hidden: int = 256

    @nn.compact
    def __call__(self, features: Features, present: jax.Array) -> jax.Array:
        """Class logits, float32 [B, K], from features {m: [B, D_m]} and the presence mask, bool [B, M]."""
        linear = Linear(self.modalities, self.outputs, name="linear")(features, present)
        return linear + _hidden(self, features, present)


class GaussianLinear(nn.Module):
    """The sum of what each present modality tells of the targets, from one linear layer each.

    A product of experts that counts the prior once: with the kernels and biases of the uni-modal heads and a zero
    stand-in, a single modality says what its own head does, and where the modalities are independent given the targets,
    and all is Gaussian, the belief is Bayes' posterior under EVERY missing pattern. A stand-in can move the mean; what
    is absent adds no precision.
    """

    modalities: tuple[str, ...]
    outputs: int

    @nn.compact
    def __call__(self, features: Features, present: jax.Array) -> jax.Array:
        """Evidence, float32 [B, 2 T], as in `gaussian`, from features {m: [B, D_m]} and the mask, bool [B, M]."""
        total = 0.0
        for index, m in enumerate(self.modalities):
            kept = present[:, index, None]
            product, bias = _layer(self, features, m)
            eta, gain = gaussian.parts(gaussian_evidence(product + kept * bias[None, :]))
            total += jnp.concatenate([eta, kept * gain], axis=-1)
        return total


class GaussianMlp(nn.Module):
    """`GaussianLinear`, whose evidence a hidden layer on the concatenation tempers and shifts; it starts as it is."""

    modalities: tuple[str, ...]
    outputs: int
    hidden: int = 256

    @nn.compact
    def __call__(self, features: Features, present: jax.Array) -> jax.Array:
        """As `GaussianLinear`: eta exp(s) + t and gain exp(s), where s and t are 0 at the start."""
        eta, gain = gaussian.parts(GaussianLinear(self.modalities, self.outputs, name="linear")(features, present))
        shift, log_scale = gaussian.parts(_hidden(self, features, present))
        scale = jnp.exp(log_scale)
        return jnp.concatenate([eta * scale + shift, gain * scale], axis=-1)


def gaussian_evidence(x: jax.Array) -> jax.Array:
    """What a linear layer gives, [..., 2 T], as evidence: its second half becomes gains of precision by softplus."""
    eta, gain = gaussian.parts(x)
    return jnp.concatenate([eta, nn.softplus(gain)], axis=-1)


def _layer(head: nn.Module, features: Features, m: str) -> tuple[jax.Array, jax.Array]:
    """A modality's features times its kernel, float32 [B, outputs], and its bias [outputs]: a head's parameters."""
    width = sum(features[name].shape[-1] for name in head.modalities)
    x = features[m].astype(jnp.float32)
    # fan_in of the concatenation, though each modality has its own kernel.
    init = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
    kernel_init = _scaled(init, (x.shape[-1] / width) ** 0.5)
    kernel = head.param(f"kernel_{m}", kernel_init, (x.shape[-1], head.outputs))
    bias = head.param(f"bias_{m}", nn.initializers.zeros, (head.outputs,))
    return jnp.dot(x, kernel, precision=PRECISION), bias


def _hidden(head: nn.Module, features: Features, present: jax.Array) -> jax.Array:
    """A hidden layer on the concatenated features and presence bits, and an output layer that starts at zero."""
    x = [features[m].astype(jnp.float32) for m in head.modalities]
    x = jnp.concatenate([*x, present.astype(jnp.float32)], axis=-1)
    x = nn.relu(nn.Dense(head.hidden, precision=PRECISION, name="hidden")(x))
    return nn.Dense(head.outputs, kernel_init=nn.initializers.zeros, precision=PRECISION, name="output")(x)


def _scaled(init: Callable, factor: float) -> Callable:
    return lambda key, shape: factor * init(key, shape)


def _linear_from_heads(fusion: Mapping, heads: Mapping, prior: np.ndarray) -> dict:
    """Each modality's kernel and bias are its uni-modal head's."""
    return {**_gaussian_from_heads(fusion, heads, prior), "prior": prior}


def _gaussian_from_heads(fusion: Mapping, heads: Mapping, prior: np.ndarray) -> dict:
    """The same; the prior, N(0, 1), is no parameter."""
    started = {f"kernel_{m}": head["kernel"] for m, head in heads.items()}
    started |= {f"bias_{m}": head["bias"] for m, head in heads.items()}
    return {**fusion, **started}


def _within(start: Callable) -> Callable:
    """Of a head that has the other one as its part `linear`."""
    return lambda fusion, heads, prior: {**fusion, "linear": start(fusion["linear"], heads, prior)}


class Head(NamedTuple):
    """A fusion head: its module, and how its parameters start from the uni-modal heads' and the prior."""

    module: type[nn.Module]
    from_heads: Callable[[Mapping, Mapping, np.ndarray], dict]


class Family(NamedTuple):
    """What heads say: what becomes of a uni-modal head's linear layer, and the fusion heads by name."""

    link: Callable[[jax.Array], jax.Array]
    heads: Mapping[str, Head]


FAMILIES = {
    LOGITS: Family(
        lambda x: x, {"linear": Head(Linear, _linear_from_heads), "mlp": Head(Mlp, _within(_linear_from_heads))}
    ),
    GAUSSIAN: Family(
        gaussian_evidence,
        {
            "linear": Head(GaussianLinear, _gaussian_from_heads),
            "mlp": Head(GaussianMlp, _within(_gaussian_from_heads)),
        },
    ),
}
HEADS = tuple(FAMILIES[LOGITS].heads)  # names, the same in all families
