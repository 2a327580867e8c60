"""A report on anyone's predictions of numbers, from a file."""

import json

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import r2_score

from umemma_jax import cli
from umemma_jax.errors import UserError
from umemma_jax.evaluation import logits_file, robustness
from umemma_jax.evaluation.sigma_calibration import unfitted

NOISE = {"a": 0.6, "b": 1.5}
CENTRE, SPREAD = 50.0, 10.0
OPTIONS = robustness.Options(rates=(0.0, 0.5), seeds=1, resamples=20)


def posterior(precision, weighted):
    """Mean and standard deviation in the units of y ~ N(50, 10^2)."""
    precision = 1 + precision
    return CENTRE + SPREAD * weighted / precision, SPREAD / np.sqrt(precision) * np.ones_like(weighted)


def arrays(count, seed, prefix="", singles=False):
    """Best possible means and deviations of a number that each modality reads with noise."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(count, 1))
    weights = {m: (s**-2, (y + s * rng.normal(size=y.shape)) * s**-2) for m, s in NOISE.items()}
    found = {f"{prefix}labels": CENTRE + SPREAD * y}
    for name in ("a", "b") if singles else ("a", "b", "a+b"):
        mean, std = posterior(*(sum(weights[m][part] for m in name.split("+")) for part in (0, 1)))
        found |= {f"{prefix}means/{name}": mean, f"{prefix}stds/{name}": std}
    of_file = {"modalities": ["a", "b"], "targets": ["y"], "target_mean": [CENTRE], "target_std": [SPREAD]}
    return found if prefix else found | of_file


def read(folder, content):
    np.savez(folder / "said.npz", **content)
    return logits_file.read(folder / "said.npz")


def test_scores_and_likelihoods_are_those_of_the_means_and_deviations(tmp_path):
    content = arrays(200, 0)
    found = read(tmp_path, content)
    report = robustness.report(found.test, None, OPTIONS).results
    for name in ("a", "b", "a+b"):
        label, mean, std = (content[key][:, 0] for key in ("labels", f"means/{name}", f"stds/{name}"))
        assert report["patterns"][name]["r2"] == pytest.approx(r2_score(label, mean), abs=1e-5)
        assert report["patterns"][name]["rmse"] == pytest.approx(np.sqrt(np.mean((label - mean) ** 2)), rel=1e-5)
        nll = -stats.norm(mean, std).logpdf(label).mean() - np.log(SPREAD)  # of the standardised target
        assert report["calibration"]["patterns"][name]["before"]["nll"] == pytest.approx(nll, rel=1e-4)


def test_single_modalities_make_the_product_of_experts_that_counts_the_prior_once(tmp_path):
    """Where modalities are independent given the target, that is the posterior."""
    found, exact = read(tmp_path, arrays(50, 0, singles=True)), arrays(50, 0)
    assert found.is_ensemble
    mean, variance = unfitted(("a", "b"), found.test.targets).moments(found.test.patterns["a+b"], np.full(50, 2))
    np.testing.assert_allclose(CENTRE + SPREAD * mean, exact["means/a+b"], rtol=1e-5)
    np.testing.assert_allclose(SPREAD * np.sqrt(variance), exact["stds/a+b"], rtol=1e-5)


def test_means_without_deviations_are_as_sure_as_validation_was_right(tmp_path):
    """The command line writes the report, JAX or not."""
    content = arrays(3000, 0) | arrays(3000, 1, "validation/")
    without = {key: x for key, x in content.items() if "stds/" not in key and not key.startswith("target_")}
    np.savez(tmp_path / "said.npz", **without)
    command = ["main.py", "--mode=report", f"--logits={tmp_path / 'said.npz'}", f"--workdir={tmp_path / 'out'}"]
    assert cli.run(command) == 0
    report = json.loads((tmp_path / "out" / "report" / "report.json").read_text())
    exact = robustness.report(read(tmp_path, content).test, None, OPTIONS).results["calibration"]["patterns"]
    for name, entry in report["calibration"]["patterns"].items():
        assert entry["before"]["nll"] == pytest.approx(exact[name]["before"]["nll"], abs=0.02)
        assert report["conformal"]["patterns"][name]["coverage"] == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["x"]}, "classes: is of classes, and there are targets"),
        ({"labels": np.zeros((5, 2))}, r"labels: is \[5, 2\], not \[5, 1\]: examples by targets"),
        ({"labels": np.full((20, 1), np.nan)}, "labels: are not all finite"),
        ({"means/a": np.zeros((20, 2))}, r"means/a: is \[20, 2\], not \[20, 1\]"),
        ({"means/a": np.full((20, 1), np.inf)}, "logits/a: is not finite in row 0"),
        ({"stds/a": np.zeros((20, 1))}, "stds/a: is not above 0 everywhere"),
        ({"stds/a": None}, "stds/a: is missing, and there are no validation means to take it from"),
        ({"means/a": None}, "stds/a: stands without means/a"),
        ({"target_std": [0.0]}, "target_std: of y is not above 0"),
        ({"target_std": None}, "target_std: is missing"),
        ({"logits/a": np.zeros((20, 1))}, r"logits/a: is \[20, 1\]"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(tmp_path, change, message):
    content = {name: value for name, value in (arrays(20, 0) | change).items() if value is not None}
    with pytest.raises(UserError, match=f"^[^\n]*said\\.npz: {message}[^\n]*$"):
        read(tmp_path, content)
