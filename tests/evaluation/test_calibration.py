import numpy as np
import pytest
from scipy import optimize, special, stats
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from umemma_jax.evaluation import calibration


def single_label(rows=400, classes=5, seed=0, sharpness=3.0):
    """Logits that are `sharpness` times as far apart as their labels' probabilities warrant."""
    rng = np.random.default_rng(seed)
    honest = rng.normal(size=(rows, classes))
    label = np.array([rng.choice(classes, p=p) for p in special.softmax(honest, axis=1)])
    return (sharpness * honest).astype(np.float32), label


def multi_label(rows=400, classes=6, seed=0, sharpness=3.0):
    rng = np.random.default_rng(seed)
    honest = rng.normal(size=(rows, classes)) - np.linspace(0, 4, classes)
    return (sharpness * honest).astype(np.float32), rng.random((rows, classes)) < special.expit(honest)


def decisions(logits, label, temperature=1.0):
    found = calibration.probabilities(logits, label.ndim == 2, temperature)
    if label.ndim == 2:
        return found.ravel(), label.ravel()
    return found.max(axis=1), found.argmax(axis=1) == label


@pytest.mark.parametrize("seed", range(3))
def test_single_label_scores_are_scikit_learn_s(seed):
    logits, label = single_label(seed=seed)
    found = calibration.scores(logits, label, temperature=2.0)
    softmax = special.softmax(logits.astype(np.float64) / 2, axis=1)
    assert found["nll"] == pytest.approx(sk.log_loss(label, softmax), abs=1e-9)
    brier = sk.brier_score_loss(label, softmax, scale_by_half=False)
    assert found["brier"] == pytest.approx(brier, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_multi_label_scores_are_scikit_learn_s_over_all_decisions(seed):
    logits, label = multi_label(seed=seed)
    found = calibration.scores(logits, label)
    sigmoid = special.expit(logits.astype(np.float64))
    assert found["nll"] == pytest.approx(sk.log_loss(label.ravel(), sigmoid.ravel()), abs=1e-9)
    assert found["brier"] == pytest.approx(sk.brier_score_loss(label.ravel(), sigmoid.ravel()), abs=1e-9)


def test_nll_of_a_certain_error_is_its_margin_not_infinite():
    assert calibration.nll(np.array([[2000.0, 0.0]]), np.array([1])) == 2000
    assert calibration.nll(np.array([[2000.0, -2000.0]]), np.array([[False, False]])) == 1000


@pytest.mark.parametrize("make", [single_label, multi_label])
def test_calibration_error_is_that_of_the_definition(make):
    logits, label = make()
    confidence, right = decisions(logits, label)
    found = calibration.scores(logits, label)
    expected = 0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        expected += abs(right[inside].sum() - confidence[inside].sum()) / len(right)
    assert found["ece"] == pytest.approx(expected, abs=1e-9)
    parts = np.array_split(np.argsort(confidence), 15)
    expected = sum(len(part) / len(right) * abs(right[part].mean() - confidence[part].mean()) for part in parts)
    assert found["ece_equal_mass"] == pytest.approx(expected, abs=1e-9)


def test_reliability_is_scikit_learn_s_calibration_curve():
    logits, label = multi_label(rows=600, classes=5)  # 3,000 decisions: 200 in each of 15 bins
    confidence, right = decisions(logits, label)
    accuracy, mean_confidence = calibration_curve(right, confidence, n_bins=15, strategy="quantile")
    found = calibration.reliability(logits, label)
    np.testing.assert_allclose(found["accuracy"], accuracy, atol=1e-9)
    np.testing.assert_allclose(found["confidence"], mean_confidence, atol=1e-9)
    np.testing.assert_array_equal(found["examples"], np.full(15, 200))


@pytest.mark.parametrize("rows", [0, 1, 7, 15, 16, 44])
def test_bins_have_equally_many_examples(rows):
    found = calibration.reliability(*single_label(rows=rows) if rows else (np.empty((0, 3)), np.empty(0, int)))
    assert len(found["examples"]) == min(rows, 15)
    assert found["examples"].sum() == rows
    assert np.ptp(found["examples"]) <= 1 if rows else True


def test_equal_logits_give_the_same_bins_in_any_order():
    logits, label = single_label(rows=100)
    logits = np.round(logits / 6) * 6
    order = np.random.default_rng(0).permutation(100)
    found, other = (calibration.scores(logits[rows], label[rows]) for rows in (np.arange(100), order))
    assert found == pytest.approx(other, abs=1e-12)
    certain = calibration.scores(np.zeros((90, 2)), np.arange(90) % 2)
    assert certain["ece_equal_mass"] == pytest.approx(0, abs=1e-12)


def test_scores_of_nothing_are_undefined():
    found = calibration.scores(np.empty((0, 3)), np.empty(0, int))
    assert list(found) == ["nll", "brier", "ece", "ece_equal_mass"]
    assert all(np.isnan(value) for value in found.values())


@pytest.mark.parametrize("make", [single_label, multi_label])
@pytest.mark.parametrize("rows", [20, 3000])
@pytest.mark.parametrize("sharpness", [0.3, 1.0, 4.0])
def test_temperature_is_the_most_likely(make, rows, sharpness):
    logits, label = make(rows=rows, sharpness=sharpness)
    decisions_of_a_row = logits.shape[1] if label.ndim == 2 else 1

    def improbability(log_t):
        losses = calibration.nll(logits, label, np.exp(log_t)) * decisions_of_a_row
        return losses.sum() - stats.norm.logpdf(log_t)

    found = calibration.temperature(logits, label, np.ones(rows, bool))
    expected = optimize.minimize_scalar(improbability, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9})
    assert found == pytest.approx(np.exp(expected.x), rel=1e-5)


@pytest.mark.parametrize("make", [single_label, multi_label])
def test_temperature_undoes_the_sharpness(make):
    for sharpness in (0.3, 1.0, 4.0):
        logits, label = make(rows=3000, sharpness=sharpness)
        assert calibration.temperature(logits, label, np.ones(3000, bool)) == pytest.approx(sharpness, rel=0.1)


def test_temperature_heeds_only_the_rows_that_count():
    logits, label = single_label()
    counted = np.arange(400) < 300
    expected = calibration.temperature(logits[:300], label[:300], np.ones(300, bool))
    logits[300:] = np.nan
    assert calibration.temperature(logits, label, counted) == expected
    assert calibration.temperature(logits, label, np.zeros(400, bool)) is None


def test_temperature_stays_near_one_where_the_rows_do_not_tell():
    everything = np.ones(3, bool)
    assert calibration.temperature(np.zeros((3, 3)), np.arange(3), everything) == pytest.approx(1)
    right = 20 * np.eye(3)
    assert calibration.temperature(right, np.arange(3), everything) == pytest.approx(1, abs=1e-3)


def test_temperature_is_bounded():
    everything = np.ones(3, bool)
    assert calibration.temperature(-1e4 * np.eye(3), np.arange(3), everything) == 20
    assert calibration.temperature(1e-3 * np.eye(3)[[0] * 99999], np.zeros(99999, int), np.ones(99999, bool)) == 0.05


def test_temperature_at_least_halves_the_calibration_error_of_sharp_logits():
    logits, label = single_label(rows=8000)
    fitted = calibration.temperature(logits, label, np.arange(8000) < 2000)
    before = calibration.scores(logits[2000:], label[2000:])
    after = calibration.scores(logits[2000:], label[2000:], fitted)
    assert after["ece_equal_mass"] < before["ece_equal_mass"] / 2
    assert after["nll"] < before["nll"]


def best_f1(probability, label):
    """Of one class, by trying a threshold between any two probabilities."""
    edges = np.sort(np.append(probability, [0, 1]))
    return max(sk.f1_score(label, probability > t, zero_division=0) for t in (edges[1:] + edges[:-1]) / 2)


@pytest.mark.parametrize("seed", range(3))
def test_thresholds_have_the_highest_f1_where_a_class_is_frequent(monkeypatch, seed):
    monkeypatch.setattr(calibration, "COMMON_POSITIVES", 1e-9)
    logits, label = multi_label(rows=60, seed=seed)
    logits = np.round(logits)  # ties
    thresholds = calibration.class_thresholds(logits, label)
    found = calibration.probabilities(logits, multi_label=True)
    for k, threshold in enumerate(thresholds):
        assert sk.f1_score(label[:, k], found[:, k] > threshold, zero_division=0) == best_f1(found[:, k], label[:, k])


def test_thresholds_lean_on_the_common_one_where_a_class_is_rare(monkeypatch):
    logits, label = multi_label(rows=60)
    label[:, 5] = False
    together = calibration.class_thresholds(logits, label)
    monkeypatch.setattr(calibration, "COMMON_POSITIVES", 1e-9)
    alone = calibration.class_thresholds(logits, label)
    found = calibration.probabilities(logits, multi_label=True)
    hundredths = sorted(np.arange(1, 100) / 100, key=lambda t: abs(t - 0.5))
    common = max(hundredths, key=lambda t: sk.f1_score(label, found > t, average="macro", zero_division=0))
    positives = label.sum(axis=0)
    expected = (positives * special.logit(alone) + 5 * special.logit(common)) / (positives + 5)
    np.testing.assert_allclose(special.logit(together), expected, atol=1e-6)
    assert together[5] == pytest.approx(common)


def test_thresholds_of_rare_classes_carry_over_to_other_rows(monkeypatch):
    """Against the thresholds of the highest F1, with 3 to 20 positives of the rarer classes."""
    gains = []
    for seed in range(10):
        logits, label = multi_label(rows=4100, seed=seed, sharpness=1)
        found = calibration.probabilities(logits[100:], multi_label=True)
        scores = []
        for weight in (5, 1e-9):
            monkeypatch.setattr(calibration, "COMMON_POSITIVES", weight)
            predicted = found > calibration.class_thresholds(logits[:100], label[:100])
            scores.append(sk.f1_score(label[100:], predicted, average="macro", zero_division=0))
        gains.append(scores[0] - scores[1])
    assert np.mean(gains) > 2 * np.std(gains) / np.sqrt(10)


def test_thresholds_are_a_half_where_that_is_as_good_or_nothing_is_known():
    logits = np.array([[-1.0, 1.0], [1.0, 1.0]])
    label = np.array([[False, False], [True, False]])
    np.testing.assert_array_equal(calibration.class_thresholds(logits, label), [0.5, 0.5])
    np.testing.assert_array_equal(calibration.class_thresholds(logits[:0], label[:0]), [0.5, 0.5])
