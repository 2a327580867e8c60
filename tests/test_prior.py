import numpy as np
import pytest

from umemma_jax.prior import log_prior, of_heads

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
