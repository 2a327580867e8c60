"""Losses and their gradients against PyTorch."""

import jax
import numpy as np
import pytest

from umemma_jax.data.targets import Target
from umemma_jax.training.losses import ClassLoss, TargetLoss

torch = pytest.importorskip("torch")
functional = torch.nn.functional

ROWS, CLASSES = 6, 4
WEIGHTS = (0.5, 2.0, 1.0, 3.0)


def logits_and_label(multi_label):
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=3, size=(ROWS, CLASSES)).astype(np.float32)
    if multi_label:
        return logits, rng.integers(2, size=(ROWS, CLASSES)).astype(np.float32)
    return logits, np.array([0, 1, 2, 3, 3, 1])


def of_torch(loss, logits):
    """The loss of each row, and the gradient of their sum."""
    leaf = torch.tensor(logits, requires_grad=True)
    rows = loss(leaf)
    rows.sum().backward()
    return rows.detach().numpy(), leaf.grad.numpy()


def agree(loss, of_rows, logits, label):
    rows, gradient = of_torch(of_rows, logits)
    np.testing.assert_allclose(loss(logits, label), rows, rtol=1e-5, atol=1e-6)
    found = jax.grad(lambda logits: loss(logits, label).sum())(logits)
    np.testing.assert_allclose(found, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_classes(smoothing):
    logits, label = logits_and_label(multi_label=False)

    def of_rows(x):
        return functional.cross_entropy(x, torch.tensor(label), label_smoothing=smoothing, reduction="none")

    agree(ClassLoss(smoothing), of_rows, logits, label)


def test_the_weight_of_a_class_is_that_of_its_rows():
    logits, label = logits_and_label(multi_label=False)

    def of_rows(x):
        return functional.cross_entropy(x, torch.tensor(label), weight=torch.tensor(WEIGHTS), reduction="none")

    agree(ClassLoss(class_weights=WEIGHTS), of_rows, logits, label)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_of_several_labels_the_weight_of_a_class_is_that_of_its_positives(weights):
    logits, label = logits_and_label(multi_label=True)

    def of_rows(x):
        positive = torch.tensor(weights or [1.0] * CLASSES)
        return functional.binary_cross_entropy_with_logits(
            x, torch.tensor(label), pos_weight=positive, reduction="none"
        ).mean(dim=1)

    agree(ClassLoss(class_weights=weights), of_rows, logits, label)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_focal_loss_of_classes(gamma):
    logits, label = logits_and_label(multi_label=False)

    def of_rows(x):
        true = functional.softmax(x, dim=1)[range(ROWS), label]
        return -torch.tensor(WEIGHTS)[label] * (1 - true) ** gamma * true.log()

    agree(ClassLoss(gamma=gamma, class_weights=WEIGHTS), of_rows, logits, label)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_focal_loss_of_several_labels(gamma):
    logits, label = logits_and_label(multi_label=True)

    def of_rows(x):
        positive, yes = x.sigmoid(), torch.tensor(label) > 0
        true = torch.where(yes, positive, 1 - positive)
        return (torch.where(yes, torch.tensor(WEIGHTS), 1.0) * -((1 - true) ** gamma) * true.log()).mean(dim=1)

    agree(ClassLoss(gamma=gamma, class_weights=WEIGHTS), of_rows, logits, label)


@pytest.mark.parametrize("multi_label", [False, True])
def test_rows_that_are_certainly_right_or_wrong_have_finite_gradients(multi_label):
    label = np.eye(3, dtype=np.float32) if multi_label else np.arange(3)
    logits = 1000 * np.eye(3, dtype=np.float32)
    for sign in (1, -1):
        gradient = jax.grad(lambda x: ClassLoss(gamma=0.5)(x, label).sum())(sign * logits)
        assert np.isfinite(gradient).all()


TARGETS = (Target("price", 30.0, 4.0), Target("views", -1.0, 0.5))


def evidence_and_label():
    rng = np.random.default_rng(0)
    evidence = np.abs(rng.normal(size=(ROWS, 4))).astype(np.float32) * [1, -1, 1, 1]
    return evidence.astype(np.float32), np.float32(rng.normal(size=(ROWS, 2)) * [4, 0.5] + [30, -1])


def test_the_likelihood_of_targets():
    evidence, label = evidence_and_label()

    def of_rows(x):
        precision = 1 + x[:, 2:]
        standard = torch.tensor((label - [30, -1]) / [4, 0.5], dtype=torch.float32)
        options = {"full": True, "eps": 1e-12, "reduction": "none"}
        return functional.gaussian_nll_loss(x[:, :2] / precision, standard, 1 / precision, **options).mean(dim=1)

    agree(TargetLoss(TARGETS), of_rows, evidence, label)


def test_the_mean_is_trained_by_hubers_loss_and_the_precision_by_the_likelihood():
    evidence, label = evidence_and_label()
    label[0] += 1000  # far off

    def of_rows(x):
        precision = 1 + x[:, 2:]
        standard = torch.tensor((label - [30, -1]) / [4, 0.5], dtype=torch.float32)
        mean = x[:, :2] / precision
        of_mean = functional.huber_loss(x[:, :2] / precision.detach(), standard, reduction="none")
        options = {"full": True, "eps": 1e-12, "reduction": "none"}
        of_precision = functional.gaussian_nll_loss(mean.detach(), standard, 1 / precision, **options)
        return (of_mean + of_precision).mean(dim=1)

    agree(TargetLoss(TARGETS, huber=True), of_rows, evidence, label)
