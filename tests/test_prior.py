import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, special

from umemma_jax.class_weights import balanced
from umemma_jax.prior import log_prior, of_heads
from umemma_jax.training.losses import ClassLoss

LABELS = np.array([0, 0, 0, 1, 1, 2])


def test_it_is_the_share_of_each_class_with_one_more_example_of_each():
    np.testing.assert_allclose(np.exp(log_prior(LABELS, 4)), np.array([4, 3, 2, 1]) / 10, rtol=1e-6)


def test_of_multi_label_data_it_is_a_logit_for_each_class():
    labels = np.array([[1, 0], [1, 0], [0, 0], [1, 1], [0, 0], [1, 0]], np.float32)
    share = np.array([5 / 8, 2 / 8])
    np.testing.assert_allclose(log_prior(labels, 2), np.log(share / (1 - share)), rtol=1e-6)


def test_each_head_learns_the_prior_of_the_examples_with_its_modality():
    """In the eta protocol, or by nature, they are not the same ones."""
    present = np.ones((6, 2), bool)
    present[:3, 1] = False  # the second modality is never seen with class 0
    first, second = (np.array(counts) / sum(counts) for counts in ((4, 3, 2), (1, 3, 2)))
    np.testing.assert_allclose(of_heads(LABELS, present, 3), (np.log(first) + np.log(second)) / 2, rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_with_label_smoothing_it_is_what_the_smoothed_loss_asks_for(smoothing):
    """Without any input, the logits that minimise the smoothed cross-entropy are the log-prior."""
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    target = (1 - smoothing) * np.bincount(labels) / 1000 + smoothing / 3
    found = log_prior(labels, 3, smoothing)
    np.testing.assert_allclose(found, np.log(target), atol=0.01)
    assert np.isclose(np.exp(found).sum(), 1)


def test_a_class_that_no_example_has_keeps_a_finite_logit():
    assert np.isfinite(log_prior(LABELS, 100)).all()
    assert np.isfinite(log_prior(np.ones((6, 2), np.float32), 2)).all()


# Of a weighted loss, or of focal loss: what a model learns that sees no input.


def learned(loss, labels, row_weights):
    """The logits that minimise the weighted sum of the losses, [K]."""
    num_classes = 3

    @jax.jit
    @jax.value_and_grad
    def total(logits):
        rows = loss(jnp.broadcast_to(logits, (len(labels), num_classes)), labels)
        return (row_weights * rows).sum() / row_weights.sum()

    found = optimize.minimize(total, np.zeros(num_classes), jac=True, tol=1e-9, options={"maxiter": 1000}).x
    return np.asarray(jax.nn.log_softmax(found) if labels.ndim == 1 else found)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_it_is_what_a_model_without_input_learns(gamma, multi_label, smoothing):
    rng = np.random.default_rng(0)
    labels = rng.choice(3, p=[0.6, 0.3, 0.1], size=5000)
    labels = np.eye(3)[labels] + np.eye(3)[rng.permutation(labels)] > 0 if multi_label else labels
    labels = labels.astype(np.float32 if multi_label else np.int32)
    row_weights, class_weights = rng.uniform(0.2, 3, size=5000), np.array([0.5, 1.0, 4.0])
    loss = ClassLoss(smoothing, gamma, class_weights)
    found = log_prior(labels, 3, smoothing, row_weights, class_weights, gamma)
    np.testing.assert_allclose(found, learned(loss, labels, row_weights), atol=0.01)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_of_balanced_classes_it_is_uniform(multi_label, gamma):
    labels = np.eye(3)[LABELS] if multi_label else LABELS
    found = log_prior(labels, 3, class_weights=balanced(labels, 3), gamma=gamma)
    np.testing.assert_allclose(found, np.zeros(3) if multi_label else np.log(np.full(3, 1 / 3)), atol=1e-5)


@pytest.mark.parametrize("multi_label", [False, True])
def test_heads_of_balanced_classes_join_as_the_posterior_of_balanced_classes(multi_label):
    """Two modalities of a few symbols, independent given the class; each head is exact on its own, as trained."""
    rng = np.random.default_rng(0)
    classes, symbols, drawn = 2 if multi_label else 3, 4, 200_000
    share, likelihood = rng.dirichlet(np.ones(classes)), rng.dirichlet(np.ones(symbols), size=(2, classes))
    label = rng.choice(classes, p=share, size=drawn)
    of_loss = (label == 1).astype(np.float32)[:, None] if multi_label else label
    num_classes = 1 if multi_label else classes
    weights = balanced(of_loss, num_classes)
    b0 = of_heads(of_loss, np.ones((drawn, 2), bool), num_classes, class_weights=weights)
    # A head minimises the weighted loss on each symbol by itself: its posterior there is that of weighted counts.
    by_class = weights if not multi_label else np.array([1.0, weights[0]])
    joint = (by_class * share)[:, None] * likelihood
    head = np.log(joint / joint.sum(axis=1, keepdims=True))
    head = head[:, 1:] - head[:, :1] if multi_label else head  # [2, K, symbols]
    logits = b0[:, None, None] + sum(
        np.expand_dims(head[m] - b0[:, None], axis=2 - m) for m in range(2)
    )  # of every pair of symbols
    product = likelihood[0][:, :, None] * likelihood[1][:, None, :]  # the posterior, where classes are alike beforehand
    posterior = np.log(product / product.sum(axis=0))
    expected = posterior[1:] - posterior[:1] if multi_label else posterior
    found = logits if multi_label else special.log_softmax(logits, axis=0)
    np.testing.assert_allclose(found, expected, atol=0.05)
