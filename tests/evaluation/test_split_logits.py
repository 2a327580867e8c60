import numpy as np
import pytest

from tests.evaluation.said import split
from umemma_jax.evaluation.split_logits import PriorCorrected, find_prior, log_prior
from umemma_jax.patterns import pattern_names

NAMES = ("a", "b", "c")


def test_each_example_is_left_with_what_it_has_of_a_pattern():
    said = split(examples=3, modalities=NAMES, complete=False)
    said.available[:] = [[True, True, True], [False, True, True], [True, False, False]]
    names = pattern_names(NAMES)
    left = dict(zip(names, said.left, strict=True))
    assert [names[number] for number in left["a+b+c"]] == ["a+b+c", "b+c", "a"]
    assert [names[number] for number in left["a+b"]] == ["a+b", "b", "a"]
    np.testing.assert_array_equal(left["b"], [names.index("b"), names.index("b"), -1])


def test_the_ensemble_of_models_that_know_the_truth_is_the_bayes_posterior():
    """Modalities that are independent given the class, each a sign with probabilities p(x|y) of its own."""
    rng = np.random.default_rng(0)
    prior, given = rng.dirichlet(np.ones(4)), rng.dirichlet(np.ones(5), size=(3, 4))  # [K]; of 5 signs, [M, K, 5]
    signs, available = rng.integers(5, size=(50, 3)), rng.random((50, 3)) < 0.7
    likelihood = np.stack([given[m][:, signs[:, m]].T for m in range(3)])  # [M, N, K]
    posterior = np.log(prior * likelihood) - np.log((prior * likelihood).sum(axis=-1, keepdims=True))
    ensemble = PriorCorrected(NAMES, available, dict(zip(NAMES, posterior, strict=True)), np.log(prior))
    for name in pattern_names(NAMES):
        used = available & [m in name.split("+") for m in NAMES]
        joint = prior * np.where(used.T[..., None], likelihood, 1).prod(axis=0)
        found = np.exp(ensemble[name].astype(np.float64))
        found /= found.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(found, joint / joint.sum(axis=1, keepdims=True), rtol=1e-4)


def test_a_modality_alone_is_its_own_model_and_what_is_absent_is_never_read():
    said = split(modalities=NAMES, complete=False)
    for m, name in enumerate(NAMES):
        said.unimodal[name][~said.available[:, m]] = np.nan
    ensemble = said.ensembles(np.array([0.1, 0.2, 0.3, 0.4]))
    has_b = said.available[:, 1]
    np.testing.assert_allclose(ensemble.patterns["b"][has_b], said.unimodal["b"][has_b], atol=1e-6)
    assert all(np.isfinite(ensemble.patterns[name]).all() for name in said.names)


def test_the_prior_is_smoothed_and_of_what_is_given_first():
    label = np.array([0, 0, 2])
    np.testing.assert_allclose(np.exp(log_prior(label, 3)), [3 / 6, 1 / 6, 2 / 6], rtol=1e-6)
    several = np.array([[True, False], [True, False]])
    np.testing.assert_allclose(log_prior(several, 2), np.log([3 / 1, 1 / 3]), rtol=1e-6)
    prior, source = find_prior(None, None, label, 3)
    assert np.ptp(prior) == 0 and source == "uniform"
    assert find_prior(None, label, label, 3)[1] == "validation examples"
    assert find_prior(np.ones(3), label, label, 3)[1] == "given"


@pytest.mark.parametrize("multi_label", [False, True])
def test_without_examples_all_classes_are_as_likely(multi_label):
    prior, _ = find_prior(None, None, split(multi_label=multi_label).label, 4)
    np.testing.assert_allclose(prior, 0 if multi_label else np.log(0.25), atol=1e-6)
