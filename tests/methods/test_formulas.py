"""Each method's loss and its gradients against an independent writing of its formula in PyTorch."""

import itertools

import jax
import numpy as np
import pytest
import torch

from tests.methods import arrays
from tests.methods.arrays import COMPLETE, INCOMPLETE, LABEL, NAMES, ROWS
from umemma_jax.methods import METHODS
from umemma_jax.missing import Policy, draw

fused, cross_entropy = arrays.torch_fused, arrays.torch_cross_entropy


def unimodal_losses(features):
    has = torch.tensor(INCOMPLETE)
    losses = [cross_entropy(arrays.torch_alone(features, INCOMPLETE, m)) for m in NAMES]
    return sum(has[:, index] * loss for index, loss in enumerate(losses))


def test_multi_loss():
    arrays.check(
        METHODS["multi_loss"], lambda x: cross_entropy(fused(x, INCOMPLETE)) + 0.7 * unimodal_losses(x), weight=0.7
    )


def test_dgl():
    def loss(features):
        held = {m: x.detach() for m, x in features.items()}
        return cross_entropy(fused(held, INCOMPLETE)) + 0.7 * unimodal_losses(features)

    arrays.check(METHODS["dgl"], loss, weight=0.7)


def test_simultaneous():
    def loss(features):
        total, count = torch.zeros(ROWS), np.zeros(ROWS)
        for pattern in arrays.patterns():
            left = (INCOMPLETE & pattern).any(axis=1)
            total = total + torch.tensor(left) * cross_entropy(fused(features, INCOMPLETE & pattern))
            count += left
        return total / torch.tensor(count)

    arrays.check(METHODS["simultaneous"], loss)


@pytest.mark.parametrize("present", [COMPLETE, INCOMPLETE])
def test_tcmax_is_brute_force_over_all_tuples(present):
    """5^3 tuples of rows, each modality from its own; what is absent adds nothing."""

    def loss(features):
        added = {}
        for index, m in enumerate(NAMES):
            only = np.zeros_like(present)
            only[:, index] = present[:, index]
            added[m] = fused(features, only) - torch.tensor(arrays.PRIOR)
        every = [
            torch.tensor(arrays.PRIOR) + sum(added[m][row] for m, row in zip(NAMES, tuple_, strict=True))
            for tuple_ in itertools.product(range(ROWS), repeat=3)
        ]
        normaliser = torch.log(torch.stack(every).double().exp().mean()).float()
        return normaliser - fused(features, present)[torch.arange(ROWS), torch.tensor(LABEL)]

    arrays.check(METHODS["tcmax"], loss, present)


def test_tcmax_does_not_overflow_nor_count_padding():
    method = METHODS["tcmax"]
    large = {m: 100 * x for m, x in arrays.FEATURES.items()}
    assert np.isfinite(method.row_losses(arrays.rows(large))).all()
    counted = np.arange(ROWS) < 3
    padded = method.row_losses(arrays.rows(counted=counted))[:3]
    few = {m: x[:3] for m, x in arrays.FEATURES.items()}
    np.testing.assert_allclose(padded, method.row_losses(arrays.rows(few, INCOMPLETE[:3], LABEL[:3])), rtol=1e-5)


def test_cml():
    keys = jax.random.split(jax.random.key(0), ROWS)
    logits = np.where(INCOMPLETE, 0.0, -np.inf)
    dropped = np.array(jax.vmap(jax.random.categorical)(keys, logits))
    assert INCOMPLETE[np.arange(ROWS), dropped].all()  # drawn among what is there
    fewer = INCOMPLETE & (np.arange(3) != dropped[:, None])
    has_more = torch.tensor(INCOMPLETE.sum(axis=1) > 1)

    def loss(features):
        whole, part = fused(features, INCOMPLETE), fused(features, fewer)
        rise = part.softmax(-1).max(-1).values - whole.softmax(-1).max(-1).values
        return cross_entropy(whole) + 0.7 * has_more * rise.clamp(min=0)

    arrays.check(METHODS["cml"], loss, weight=0.7)


def test_ranking():
    proper = [tuple(map(bool, mask)) for mask in arrays.patterns() if not mask.all()]
    keys = jax.random.split(jax.random.key(0), ROWS)
    fewer = np.array(draw(Policy(tuple(proper), (1 / 6,) * 6), keys, INCOMPLETE))
    assert (fewer <= INCOMPLETE).all() and fewer.any(axis=1).all() and not fewer.all(axis=1).any()

    def loss(features):
        of_all, of_fewer = (cross_entropy(fused(features, mask)) for mask in (INCOMPLETE, fewer))
        return of_all + of_fewer + 0.7 * (of_all - of_fewer).clamp(min=0)

    arrays.check(METHODS["ranking"], loss, weight=0.7)


def test_independent_dropout():
    keys = jax.random.split(jax.random.key(0), ROWS)
    kept = np.array(jax.vmap(lambda key: jax.random.bernoulli(key, 0.4, (3,)))(keys)) & INCOMPLETE
    kept = np.where(kept.any(axis=1, keepdims=True), kept, INCOMPLETE)
    arrays.check(METHODS["modality_dropout"], lambda x: cross_entropy(fused(x, kept)), rate=0.6)


def test_ogm():
    """The loss is the plain one; the leading modality's gradient is multiplied."""
    features = {m: torch.tensor(x, requires_grad=True) for m, x in arrays.FEATURES.items()}
    scores = []
    for index, _ in enumerate(NAMES):
        only = INCOMPLETE & (np.arange(3) == index)
        probability = fused(features, only).softmax(-1)[torch.arange(ROWS), torch.tensor(LABEL)].detach().numpy()
        scores.append(probability[INCOMPLETE[:, index]].mean())
    ratios = [score / np.mean([s for s in scores if s is not score]) for score in scores]
    wanted = [1 - np.tanh(0.3 * ratio) if ratio > 1 else 1.0 for ratio in ratios]
    np.testing.assert_allclose(METHODS["ogm"].factors(arrays.rows(), 0.3), wanted, rtol=1e-5)
    losses, gradients = arrays.loss_and_gradients(METHODS["ogm"], alpha=0.3)
    expected = cross_entropy(fused(features, INCOMPLETE))
    expected.sum().backward()
    np.testing.assert_allclose(losses, expected.detach(), rtol=1e-5)
    for m, factor in zip(NAMES, wanted, strict=True):
        np.testing.assert_allclose(gradients[m], factor * features[m].grad, rtol=1e-4, atol=1e-6)
