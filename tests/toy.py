"""Two or three modalities of plain vectors with a one-layer encoder: the smallest model the contracts allow."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from umemma_jax.encoders.layers import BatchNorm
from umemma_jax.model import LateFusion, Tower

WIDTH, FEATURES, CLASSES = 5, 4, 3


class Encoder(nn.Module):
    """Dense, batch norm, tanh: [B, 5] -> [B, 4]. No bias: under batch norm its gradient is rounding noise."""

    axis_name: str | None = None
    norm: bool = True

    @nn.compact
    def __call__(self, x, mask=None, train=False):
        x = nn.Dense(FEATURES, use_bias=False)(x)
        if self.norm:
            x = BatchNorm(FEATURES, axis_name=self.axis_name)(x, mask, train)
        return jnp.tanh(x)


def identity(raw, keys=None, train=False):
    """No preprocessing."""
    return raw


def jitter(raw, keys=None, train=False):
    """Per-row noise while training."""
    if not train:
        return raw
    return raw + 0.1 * jax.vmap(lambda key: jax.random.normal(key, raw.shape[1:]))(keys)


def model(names=("a", "b"), axis_name=None, preprocess=identity, frozen=(), norm=True, **fields):
    """A LateFusion of toy towers."""
    encoder = functools.partial(Encoder, axis_name=axis_name, norm=norm)
    towers = tuple(Tower(name, preprocess, encoder, name in frozen) for name in names)
    return LateFusion(towers, CLASSES, **fields)


def batch(rows, names=("a", "b"), seed=0, present=None, padding=0):
    """A random batch of the pipeline's form; the last `padding` rows have weight 0."""
    rng = np.random.default_rng(seed)
    present = np.ones((rows, len(names)), bool) if present is None else present
    weight = np.ones(rows, np.float32)
    weight[rows - padding :] = 0
    return {
        "inputs": {name: rng.normal(size=(rows, WIDTH)).astype(np.float32) for name in names},
        "present": present & (weight > 0)[:, None],
        "label": rng.integers(CLASSES, size=rows).astype(np.int32),
        "weight": weight,
        "index": np.arange(rows, dtype=np.int32),
    }


def means(names=("a", "b")):
    """A mean input per modality, 1 row."""
    return {name: np.full((1, WIDTH), 0.5, np.float32) for name in names}


def variables(built, names=("a", "b"), seed=0):
    """Fresh variables with running statistics that are not the initial ones."""
    rows = batch(2, names)
    fresh = built.init(jax.random.key(seed), rows["inputs"], rows["present"], means=means(names))
    stats = jax.tree.map(lambda x: x + 0.3, fresh.get("batch_stats", {}))
    return {"params": dict(fresh["params"]), "batch_stats": dict(stats)}
