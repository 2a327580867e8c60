"""Regression: what the heads say of targets, and how what they say adds up."""

import jax
import numpy as np
import pytest
from scipy import stats

from tests import toy
from tests.test_model import masks, row_keys
from umemma_jax import fusion, gaussian
from umemma_jax.model import start_from_heads
from umemma_jax.patterns import all_patterns
from umemma_jax.task import GAUSSIAN

NAMES, TARGETS, READINGS = ("a", "b", "c"), 2, 3


class Given(toy.nn.Module):
    """The input is the feature."""

    @toy.nn.compact
    def __call__(self, x, mask=None, train=False):
        return x


def model(names=NAMES, encoder=Given, **fields):
    towers = tuple(toy.Tower(name, toy.identity, encoder) for name in names)
    return toy.LateFusion(towers, gaussian.width(TARGETS), family=GAUSSIAN, **fields)


def linear_gaussian_joint(rows, seed=0):
    """Targets [rows, T] of N(0, 1), the inputs of M modalities that are independent given them, and the joint's matrix.

    Each modality has a few noisy readings of each target: inputs are [rows, T * READINGS].
    """
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(rows, TARGETS))
    slopes, noises = rng.uniform(0.3, 1, (3, TARGETS, READINGS)), rng.uniform(0.7, 2, (3, TARGETS, READINGS))
    inputs = {}
    for m, name in enumerate(NAMES):
        readings = slopes[m] * y[:, :, None] + noises[m] * rng.normal(size=(rows, TARGETS, READINGS))
        inputs[name] = readings.reshape(rows, -1).astype(np.float32)
    return y, inputs, slopes, noises


def best_heads(slopes, noises):
    """Kernel and bias with which each head says what its modality tells: eta = sum a x / s^2, gain = sum a^2 / s^2."""
    heads = {}
    for m, name in enumerate(NAMES):
        weights = slopes[m] / noises[m] ** 2
        kernel = np.zeros((TARGETS, READINGS, 2 * TARGETS))
        for target in range(TARGETS):
            kernel[target, :, target] = weights[target]
        gain = (slopes[m] * weights).sum(axis=1)
        bias = np.concatenate([np.zeros(TARGETS), np.log(np.expm1(gain))])  # softplus's inverse
        kernel = kernel.reshape(TARGETS * READINGS, 2 * TARGETS)
        heads[f"heads_{name}"] = {"kernel": np.float32(kernel), "bias": np.float32(bias)}
    return heads


def posterior(pattern, x, slopes, noises, target):
    """Mean and variance of one target given the readings of it, by conditioning the joint normal distribution."""
    kept = [m for m, keep in enumerate(pattern) if keep]
    a, s = slopes[kept, target].ravel(), noises[kept, target].ravel()
    readings = np.concatenate([x[NAMES[m]].reshape(-1, TARGETS, READINGS)[:, target] for m in kept], axis=1)
    covariance = np.outer(a, a) + np.diag(s**2)
    gain = a @ np.linalg.inv(covariance)
    return readings @ gain, 1 - gain @ a


@pytest.mark.parametrize("head", fusion.HEADS)
@pytest.mark.parametrize("stand_in", ["zero", "token"])
def test_it_starts_as_the_posterior_under_every_pattern(head, stand_in):
    """Where modalities are independent given the targets and all is Gaussian: the prior counts once."""
    _, inputs, slopes, noises = linear_gaussian_joint(20)
    built = model(head=head, stand_in=stand_in)
    everything = np.ones((20, 3), bool)
    params = dict(built.init(jax.random.key(0), inputs, everything)["params"]) | best_heads(slopes, noises)
    params = start_from_heads(params, head, np.zeros(2 * TARGETS), GAUSSIAN)
    for pattern in all_patterns(3):
        outputs = built.apply({"params": params}, inputs, everything & pattern)
        mean, variance = gaussian.moments(np.asarray(outputs["logits"]))
        for target in range(TARGETS):
            expected, spread = posterior(pattern, inputs, slopes, noises, target)
            np.testing.assert_allclose(mean[:, target], expected, atol=2e-5)
            np.testing.assert_allclose(variance[:, target], spread, rtol=1e-5)
    alone = outputs["logits/c"]  # the last pattern is of this modality alone
    np.testing.assert_allclose(alone, outputs["logits"], rtol=1e-5, atol=1e-6)


def test_evidence_about_nothing_is_the_prior():
    mean, variance = gaussian.moments(np.zeros((4, 2)))
    assert (mean == 0).all() and (variance == 1).all()


def test_evidence_adds_up_as_densities_multiply():
    """Compared with the product of the densities themselves, on a grid: prior x likelihood x likelihood."""
    one, other = np.array([1.2, 0.8]), np.array([-0.5, 2.0])
    grid = np.linspace(-9, 9, 20001)
    density = stats.norm.pdf(grid)
    for evidence in (one, other):
        mean, variance = (x.item() for x in gaussian.moments(evidence))
        density *= stats.norm.pdf(grid, mean, variance**0.5) / stats.norm.pdf(grid)
    density /= density.sum()
    mean, variance = gaussian.moments(one + other)
    assert mean.item() == pytest.approx((density * grid).sum(), abs=1e-6)
    assert variance.item() == pytest.approx((density * grid**2).sum() - mean.item() ** 2, abs=1e-6)


@pytest.mark.parametrize("head", fusion.HEADS)
@pytest.mark.parametrize("stand_in", ["zero", "token"])
def test_no_value_of_an_absent_modality_reaches_any_output(head, stand_in):
    built = model(("a", "b"), encoder=toy.Encoder, stand_in=stand_in, head=head)
    variables, batch = toy.variables(built), toy.batch(12)
    present = masks(12, 2)

    def run(params, inputs):
        found = {**variables, "params": params}
        outputs = built.apply(found, inputs, present, keys=row_keys(12))
        return toy.jnp.square(outputs["logits"]).sum(), outputs

    def garbage(value):
        return {
            name: np.where(present[:, [m]], x, np.float32(value)) for m, (name, x) in enumerate(batch["inputs"].items())
        }

    expected = jax.value_and_grad(run, has_aux=True)(variables["params"], batch["inputs"])
    found = jax.value_and_grad(run, has_aux=True)(variables["params"], garbage(np.nan))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    _, gain = gaussian.parts(expected[0][1]["logits"])
    assert (gain >= 0).all()
