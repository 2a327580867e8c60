"""Late-fusion heads: features of every modality to class logits.

Each head exports `__call__(features, present) -> logits` and, in `FROM_HEADS`, how its parameters start from the
uni-modal heads so that at step 0 it joins what they say by Bayes' rule. `features[m]` is float [B, D_m] with the
stand-in already in place of what is absent.
"""

from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

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
    num_classes: int

    @nn.compact
    def __call__(self, features: Features, present: jax.Array) -> jax.Array:
        """Class logits, float32 [B, K], from features {m: [B, D_m]} and the presence mask, bool [B, M]."""
        width = sum(features[m].shape[-1] for m in self.modalities)
        init = nn.initializers.variance_scaling(
            # fan_in of the concatenation, though each modality has its own kernel.
            1.0,
            "fan_in",
            "truncated_normal",
        )
        prior = self.param("prior", nn.initializers.zeros, (self.num_classes,))
        logits = prior[None, :]
        for index, m in enumerate(self.modalities):
            x = features[m].astype(jnp.float32)
            kernel_init = _scaled(init, (x.shape[-1] / width) ** 0.5)
            kernel = self.param(f"kernel_{m}", kernel_init, (x.shape[-1], self.num_classes))
            bias = self.param(f"bias_{m}", nn.initializers.zeros, (self.num_classes,))
            evidence = present[:, index, None] * (bias - prior)[None, :]
            logits += jnp.dot(x, kernel, precision=PRECISION) + evidence
        return logits


class Mlp(nn.Module):
    """`Linear` plus a hidden layer on the concatenation, whose output layer starts at zero.

    The sum of both starts as `Linear` alone, so it can start from the uni-modal heads too.
    """

    modalities: tuple[str, ...]
    num_classes: int
    hidden: int = 256

    @nn.compact
    def __call__(self, features: Features, present: jax.Array) -> jax.Array:
        """Class logits, float32 [B, K], from features {m: [B, D_m]} and the presence mask, bool [B, M]."""
        linear = Linear(self.modalities, self.num_classes, name="linear")(features, present)
        x = [features[m].astype(jnp.float32) for m in self.modalities]
        x = jnp.concatenate([*x, present.astype(jnp.float32)], axis=-1)
        x = nn.relu(nn.Dense(self.hidden, precision=PRECISION, name="hidden")(x))
        output = nn.Dense(self.num_classes, kernel_init=nn.initializers.zeros, precision=PRECISION, name="output")
        return linear + output(x)


def _scaled(init: Callable, factor: float) -> Callable:
    return lambda key, shape: factor * init(key, shape)


def _linear_from_heads(fusion: Mapping, heads: Mapping, prior: np.ndarray) -> dict:
    """Each modality's kernel and bias are its uni-modal head's."""
    started = {f"kernel_{m}": head["kernel"] for m, head in heads.items()}
    started |= {f"bias_{m}": head["bias"] for m, head in heads.items()}
    return {**fusion, **started, "prior": prior}


def _mlp_from_heads(fusion: Mapping, heads: Mapping, prior: np.ndarray) -> dict:
    return {**fusion, "linear": _linear_from_heads(fusion["linear"], heads, prior)}


HEADS = {"linear": Linear, "mlp": Mlp}
FROM_HEADS = {"linear": _linear_from_heads, "mlp": _mlp_from_heads}
