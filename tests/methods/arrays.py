"""Small arrays as a method's loss sees them, and the same in PyTorch: five rows of three modalities, four classes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import torch

from umemma_jax.fusion import Linear
from umemma_jax.training.losses import ClassLoss
from umemma_jax.training.rows import FusionRows

NAMES, ROWS, CLASSES, WIDTH = ("a", "b", "c"), 5, 4, 3
INCOMPLETE = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 0], [1, 1, 1], [1, 1, 0]], bool)
COMPLETE = np.ones((ROWS, 3), bool)
_rng = np.random.default_rng(0)
KERNELS = {m: _rng.normal(size=(WIDTH, CLASSES)).astype(np.float32) for m in NAMES}
BIASES = {m: _rng.normal(size=CLASSES).astype(np.float32) for m in NAMES}
HEADS = {m: _rng.normal(size=(WIDTH, CLASSES)).astype(np.float32) for m in NAMES}  # the uni-modal ones
PRIOR = _rng.normal(size=CLASSES).astype(np.float32)
LABEL = _rng.integers(CLASSES, size=ROWS)
FEATURES = {m: _rng.normal(size=(ROWS, WIDTH)).astype(np.float32) for m in NAMES}
TAUGHT = {m: _rng.normal(size=(ROWS, WIDTH)).astype(np.float32) for m in NAMES}


def rows(features=FEATURES, present=INCOMPLETE, label=LABEL, kernels=KERNELS, counted=None):
    """The rows, whose head is the linear one with zero stand-ins."""
    params = {f"kernel_{m}": kernels[m] for m in NAMES} | {f"bias_{m}": BIASES[m] for m in NAMES} | {"prior": PRIOR}
    head, present = Linear(NAMES, CLASSES), jnp.array(present)

    def join(features, present):
        filled = {m: jnp.where(present[:, i, None], features[m], 0) for i, m in enumerate(NAMES)}
        return head.apply({"params": params}, filled, present)

    return FusionRows(
        features=features,
        present=present,
        logits=join(features, present),
        unimodal={m: jnp.where(present[:, i, None], features[m] @ HEADS[m], 0) for i, m in enumerate(NAMES)},
        label=jnp.array(label),
        counted=jnp.ones(len(label), bool) if counted is None else jnp.array(counted),
        keys=jax.random.split(jax.random.key(0), len(label)),
        loss=ClassLoss(),
        join=join,
        taught={m: x[: len(label)] for m, x in TAUGHT.items()},
    )


def loss_and_gradients(method, present=INCOMPLETE, **settings):
    """Losses of the rows [B], and gradients of their sum with respect to the features."""

    def total(features):
        losses = method.row_losses(rows(features, present), **settings)
        return losses.sum(), losses

    gradients, losses = jax.jit(jax.grad(total, has_aux=True))(FEATURES)
    return np.array(losses), {m: np.array(x) for m, x in gradients.items()}


def torch_fused(features, present):
    """Fused logits [B, K] of features {m: [B, D]}, in PyTorch."""
    logits = torch.tensor(PRIOR).expand(ROWS, CLASSES)
    for index, m in enumerate(NAMES):
        added = features[m] @ torch.tensor(KERNELS[m]) + torch.tensor(BIASES[m] - PRIOR)
        logits = logits + torch.tensor(present[:, index, None]) * added
    return logits


def torch_alone(features, present, m):
    """Logits of one modality's uni-modal head, [B, K]."""
    return features[m] @ torch.tensor(HEADS[m])


def torch_cross_entropy(logits):
    """Of each row, [B]."""
    return torch.nn.functional.cross_entropy(logits, torch.tensor(LABEL), reduction="none")


def check(method, of_torch, present=INCOMPLETE, **settings):
    """Compares losses and gradients with what a function of the features in PyTorch gives."""
    losses, gradients = loss_and_gradients(method, present, **settings)
    features = {m: torch.tensor(x, requires_grad=True) for m, x in FEATURES.items()}
    expected = of_torch(features)
    expected.sum().backward()
    np.testing.assert_allclose(losses, expected.detach().numpy(), rtol=2e-5, atol=2e-6)
    for m, x in features.items():
        wanted = np.zeros(x.shape) if x.grad is None else x.grad.numpy()
        np.testing.assert_allclose(gradients[m], wanted, rtol=1e-4, atol=1e-5)


def patterns():
    """All non-empty masks of the three modalities."""
    return [np.array(mask) for mask in itertools.product((False, True), repeat=3) if any(mask)]
