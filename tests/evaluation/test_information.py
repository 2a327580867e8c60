import itertools

import numpy as np
import pytest
from scipy import stats

from umemma_jax.evaluation import calibration, information

NONE, X, Z, XZ = frozenset(), frozenset("x"), frozenset("z"), frozenset("xz")


def entropy(p):
    p = p[p > 0]
    return -np.sum(p * np.log(p))


def discrete_entropies(joint):
    """H(Y|S) of p(x, z, y) for each S, exactly: H(S, Y) - H(S)."""
    return {
        NONE: entropy(joint.sum((0, 1))),
        X: entropy(joint.sum(1)) - entropy(joint.sum((1, 2))),
        Z: entropy(joint.sum(0)) - entropy(joint.sum((0, 2))),
        XZ: entropy(joint) - entropy(joint.sum(2)),
    }


def mutual_information(joint):
    """I(A; B) of p(a, b) as a Kullback-Leibler divergence."""
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    there = joint > 0
    return np.sum(joint[there] * np.log(joint[there] / independent[there]))


def random_joint(seed, shape=(3, 4, 5)):
    return np.random.default_rng(seed).dirichlet(np.full(np.prod(shape), 0.3)).reshape(shape)


@pytest.mark.parametrize("seed", range(20))
def test_discrete_joints_are_known_exactly(seed):
    joint = random_joint(seed)
    found = discrete_entropies(joint)
    total = mutual_information(joint.reshape(-1, 5))
    alone = [mutual_information(joint.sum(1)), mutual_information(joint.sum(0))]
    given_z = sum(joint[:, z].sum() * mutual_information(joint[:, z] / joint[:, z].sum()) for z in range(4))
    complementary = information.complementary(found, "xz")
    assert complementary["x"] == pytest.approx(given_z, abs=1e-12)
    assert information.redundancy(found, "xz") == pytest.approx(sum(alone) - total, abs=1e-12)
    assert information.complementary_share(found, "xz")["x"] == pytest.approx(given_z / total)


def test_a_copy_is_redundant_and_a_parity_is_synergetic():
    copy, parity = np.zeros((2, 2, 2, 2))
    for x, z in itertools.product(range(2), repeat=2):
        copy[x, x, x] = 1 / 2
        parity[x, z, x ^ z] = 1 / 4
    one_bit = np.log(2)
    assert information.redundancy(discrete_entropies(copy), "xz") == pytest.approx(one_bit)
    assert information.complementary(discrete_entropies(copy), "xz") == pytest.approx({"x": 0, "z": 0})
    assert information.redundancy(discrete_entropies(parity), "xz") == pytest.approx(-one_bit)
    assert information.complementary_share(discrete_entropies(parity), "xz") == pytest.approx({"x": 1, "z": 1})


@pytest.mark.parametrize("seed", range(20))
def test_bayes_error_is_within_its_bound(seed):
    joint = random_joint(seed)
    found = discrete_entropies(joint)
    for kept, error in ((XZ, 1 - joint.max(2).sum()), (X, 1 - joint.sum(1).max(1).sum())):
        assert error <= information.bayes_error_at_most(found[kept]) <= 1
    assert information.bayes_error_at_most(0.0) == 0


def test_exact_posteriors_as_logits_estimate_the_information_from_samples():
    """Mean NLLs of the Bayes classifier, and of one twice too sharp after its temperature, on 100,000 samples."""
    joint = random_joint(0) + 1e-3
    joint /= joint.sum()
    rows = np.random.default_rng(1).choice(joint.size, size=100_000, p=joint.ravel())
    x, z, y = np.unravel_index(rows, joint.shape)
    logits = {
        NONE: np.tile(np.log(joint.sum((0, 1))), (len(y), 1)),
        X: np.log(joint.sum(1))[x],
        Z: np.log(joint.sum(0))[z],
        XZ: np.log(joint)[x, z],
    }
    exact = discrete_entropies(joint)
    everything = np.ones(len(y), bool)
    for sharpness in (1, 2):
        temperature = calibration.temperature(sharpness * logits[XZ], y, everything)
        found = {kept: calibration.nll(sharpness * part, y, temperature).mean() for kept, part in logits.items()}
        assert found == pytest.approx(exact, abs=0.015)
        assert information.complementary(found, "xz") == pytest.approx(information.complementary(exact, "xz"), abs=0.02)
        assert information.redundancy(found, "xz") == pytest.approx(information.redundancy(exact, "xz"), abs=0.03)


def test_gaussian_modalities_have_the_information_of_the_closed_form():
    """y normal; x = y + noise, z = y + noise: I(S; y) = log(1 + sum of 1 / variance) / 2.

    y in 64 equally likely cells, and the posterior's mass in each: the information of y but for what is within a cell.
    """
    noise, cells, rows = {"x": 1.0, "z": 0.5}, 64, 20_000
    rng = np.random.default_rng(0)
    y = rng.normal(size=rows)
    seen = {name: y + np.sqrt(variance) * rng.normal(size=rows) for name, variance in noise.items()}
    label = np.minimum((stats.norm.cdf(y) * cells).astype(int), cells - 1)
    edges = stats.norm.ppf(np.arange(cells + 1) / cells)
    found, exact = {}, {}
    for kept in (NONE, X, Z, XZ):
        precision = 1 + sum(1 / noise[name] for name in kept)
        mean = sum((seen[name] / noise[name] for name in kept), np.zeros(rows)) / precision
        mass = np.diff(stats.norm.cdf((edges - mean[:, None]) * np.sqrt(precision)), axis=1)
        found[kept] = calibration.nll(np.log(mass + 1e-300), label).mean()
        exact[kept] = np.log(cells) - np.log(precision) / 2
    assert found == pytest.approx(exact, abs=0.03)
    assert information.complementary(found, "xz")["x"] == pytest.approx(np.log(4 / 3) / 2, abs=0.02)
    assert information.redundancy(found, "xz") == pytest.approx(np.log(2 * 3 / 4) / 2, abs=0.03)


def test_six_modalities_that_each_know_one_bit():
    modalities = "abcdef"
    names = itertools.chain.from_iterable(itertools.combinations(modalities, size) for size in range(7))
    entropies = {frozenset(kept): (6 - len(kept)) * np.log(2) for kept in names}
    assert information.complementary(entropies, modalities) == pytest.approx(dict.fromkeys(modalities, np.log(2)))
    assert information.redundancy(entropies, modalities) == pytest.approx(0)
    assert information.complementary_share(entropies, modalities) == pytest.approx(dict.fromkeys(modalities, 1 / 6))


def test_no_information_has_no_shares():
    flat = dict.fromkeys((NONE, X, Z, XZ), 0.7)
    assert np.isnan(list(information.complementary_share(flat, "xz").values())).all()
