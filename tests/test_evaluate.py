import jax
import numpy as np
import pytest
from sklearn import metrics as sk

from tests import toy
from umemma_jax import metrics, missing, sharding
from umemma_jax.evaluate import Evaluator

EXAMPLES, BATCH = 53, 16


def mesh_of(count):
    return jax.sharding.Mesh(np.array(jax.devices()[:count]), (sharding.AXIS,))


def batches(names, present=None):
    """The padded batches of one toy split of 53 examples, and the split itself."""
    split = toy.batch(EXAMPLES, names, present=present)
    padded = jax.tree.map(lambda x: np.pad(x, [(0, -EXAMPLES % BATCH)] + [(0, 0)] * (x.ndim - 1)), split)
    cut = [jax.tree.map(lambda x, i=i: x[i : i + BATCH], padded) for i in range(0, EXAMPLES, BATCH)]
    return cut, split


def direct(model, variables, split, kept, names):
    """Accuracy and macro-F1 by running the whole model under a presence mask."""
    outputs = model.apply(variables, split["inputs"], kept, means=toy.means(names))
    predicted, counted = np.asarray(outputs["logits"]).argmax(axis=1), kept.any(axis=1)
    label, predicted = split["label"][counted], predicted[counted]
    f1 = sk.f1_score(label, predicted, labels=range(toy.CLASSES), average="macro", zero_division=0)
    return sk.accuracy_score(label, predicted), f1


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "c")])
@pytest.mark.parametrize("complete", [True, False])
def test_one_pass_gives_what_running_the_model_on_every_pattern_and_cell_gives(devices, names, complete):
    rng = np.random.default_rng(0)
    present = np.ones((EXAMPLES, len(names)), bool)
    if not complete:
        present = missing.all_patterns(len(names))[rng.integers(2 ** len(names) - 1, size=EXAMPLES)]
    model = toy.model(names, stand_in="mean")
    variables = toy.variables(model, names)
    evaluator = Evaluator(model, mesh_of(devices), toy.means(names))
    cut, split = batches(names, present)
    encoded = evaluator.encode(variables, cut)
    predictions = evaluator.predict_patterns(variables, encoded)

    for pattern in missing.all_patterns(len(names)):
        found = evaluator.every_pattern(predictions, encoded)[missing.pattern_name(pattern, names)]
        kept = present & pattern
        accuracy, f1 = direct(model, variables, split, kept, names)
        np.testing.assert_allclose([found["accuracy"], found["macro_f1"]], [accuracy, f1], rtol=1e-6)
        assert found["examples"] == kept.any(axis=1).sum()

    cells, tables = evaluator.grid(predictions, encoded, (0.0, 0.3, 1.0), seeds=3)
    assert len(cells) == 3 * (len(names) + 1)
    for cell in cells:
        table = tables[f"{cell['kind']}@{cell['rate']:g}"]
        scores = [direct(model, variables, split, kept, names) for kept in table]
        mean, std = np.mean(scores, axis=0), np.std(scores, axis=0)
        np.testing.assert_allclose([cell["mean"]["accuracy"], cell["mean"]["macro_f1"]], mean, rtol=1e-6)
        np.testing.assert_allclose([cell["std"]["accuracy"], cell["std"]["macro_f1"]], std, atol=1e-6)
        assert cell["table_sha256"] == missing.table_hash(table)
        for seed, kept in enumerate(table):
            expected = missing.missing_table(present, cell["kind"], cell["rate"], seed, names)
            np.testing.assert_array_equal(kept, expected)

    for index, name in enumerate(names):
        logits = np.asarray(model.apply(variables, split["inputs"], present, means=toy.means(names))[f"logits/{name}"])
        has = present[:, index]
        expected = sk.accuracy_score(split["label"][has], logits.argmax(axis=1)[has])
        np.testing.assert_allclose(evaluator.unimodal(encoded)[name]["accuracy"], expected, rtol=1e-6)


def test_a_whole_evaluation_traces_the_encoders_once():
    names = ("a", "b")
    model = toy.model(names)
    evaluator = Evaluator(model, mesh_of(1), {})
    for seed in range(2):
        evaluator.encode(toy.variables(model, names, seed), batches(names)[0])
    assert evaluator.encode_traces.traces == 1


# Multi-label.

AVERAGES = ("macro", "micro", "weighted", "samples")


def multi_label_batches(names, present, seed=0):
    """As `batches`, with any number of classes per row: the first row has none, and class 2 is in few."""
    cut, split = batches(names, present)
    label = (np.random.default_rng(seed).random((EXAMPLES, toy.CLASSES)) < [0.6, 0.4, 0.1]).astype(np.float32)
    label[0] = 0
    split["label"] = label
    padded = np.pad(label, [(0, -EXAMPLES % BATCH), (0, 0)])
    return [{**batch, "label": padded[i * BATCH : (i + 1) * BATCH]} for i, batch in enumerate(cut)], split


def pattern_logits(model, variables, split, kept, names):
    """Logits by running the whole model under a presence mask."""
    return np.asarray(model.apply(variables, split["inputs"], kept, means=toy.means(names))["logits"])


def f1_scores(label, predicted, prefix=""):
    return {
        f"{prefix}{average}_f1": sk.f1_score(label, predicted, average=average, zero_division=0) for average in AVERAGES
    }


def all_scores(label, logits, cuts):
    """What a pattern's entry holds, by scikit-learn; cuts float [N, 1] are the rows' tuned thresholds as logits."""
    there = label.any(axis=0)
    precision = sk.average_precision_score(label[:, there], logits[:, there], average="macro")
    return f1_scores(label, logits > 0) | f1_scores(label, logits > cuts, "tuned_") | {"mAP": precision}


def assert_scores(found, expected):
    assert found.keys() - {"examples"} == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-6, err_msg=name)


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("complete", [True, False])
def test_multi_label_one_pass_gives_what_running_the_model_gives(devices, complete):
    names = ("a", "b", "c")
    patterns = missing.all_patterns(3)
    present = np.ones((EXAMPLES, 3), bool)
    if not complete:
        present = patterns[np.random.default_rng(0).integers(7, size=EXAMPLES)]
    model = toy.model(names, stand_in="mean")
    variables = toy.variables(model, names)
    evaluator = Evaluator(model, mesh_of(devices), toy.means(names))
    cut, split = multi_label_batches(names, present)
    encoded = evaluator.encode(variables, cut)
    predictions = evaluator.predict_patterns(variables, encoded)
    thresholds = np.linspace(0.3, 0.6, 7)

    def expected(kept):
        """Every row that keeps anything, at the threshold of the pattern it keeps."""
        logits, counted = pattern_logits(model, variables, split, kept, names), kept.any(axis=1)
        numbers = (kept[:, None] == patterns[None]).all(axis=-1).argmax(axis=1)
        cuts = metrics.logit(thresholds)[numbers][:, None]
        return all_scores(split["label"][counted], logits[counted], cuts[counted])

    found = evaluator.every_pattern(predictions, encoded, thresholds)
    for pattern in patterns:
        assert_scores(found[missing.pattern_name(pattern, names)], expected(present & pattern))

    cells, tables = evaluator.grid(predictions, encoded, (0.0, 0.7), seeds=3, thresholds=thresholds)
    for cell in cells:
        per_seed = [expected(kept) for kept in tables[f"{cell['kind']}@{cell['rate']:g}"]]
        assert cell["mean"].keys() == cell["std"].keys() == per_seed[0].keys() - {"mAP"}
        for name in cell["mean"]:
            values = [scores[name] for scores in per_seed]
            np.testing.assert_allclose(cell["mean"][name], np.mean(values), rtol=2e-6)
            np.testing.assert_allclose(cell["std"][name], np.std(values), atol=1e-6)

    outputs = model.apply(variables, split["inputs"], present, means=toy.means(names))
    found = evaluator.unimodal(encoded, thresholds[:3])
    for index, name in enumerate(names):
        has, logits = present[:, index], np.asarray(outputs[f"logits/{name}"])
        assert_scores(found[name], all_scores(split["label"][has], logits[has], metrics.logit(thresholds[index])))


def test_without_thresholds_nothing_is_tuned():
    names = ("a", "b")
    model = toy.model(names)
    variables = toy.variables(model, names)
    evaluator = Evaluator(model, mesh_of(1), {})
    encoded = evaluator.encode(variables, multi_label_batches(names, np.ones((EXAMPLES, 2), bool))[0])
    untuned = {"macro_f1", "micro_f1", "weighted_f1", "samples_f1", "mAP"}
    predictions = evaluator.predict_patterns(variables, encoded)
    assert evaluator.every_pattern(predictions, encoded)["a"].keys() == untuned | {"examples"}
    assert evaluator.unimodal(encoded)["a"].keys() == untuned


def test_tuned_thresholds_are_the_best_of_all_hundredths_by_scikit_learn():
    names = ("a", "b")
    present = missing.all_patterns(2)[np.random.default_rng(3).integers(3, size=EXAMPLES)]
    model = toy.model(names)
    variables = toy.variables(model, names)
    evaluator = Evaluator(model, mesh_of(4), {})
    cut, split = multi_label_batches(names, present)
    encoded = evaluator.encode(variables, cut)
    outputs = model.apply(variables, split["inputs"], present)

    def assert_best(threshold, logits, rows):
        def macro_f1(t):
            predicted = logits[rows] > metrics.logit(np.array(t))
            return sk.f1_score(split["label"][rows], predicted, average="macro", zero_division=0)

        best = max(macro_f1(t) for t in np.arange(1, 100) / 100)
        assert best > macro_f1(0.5), "otherwise nothing is tested"
        assert macro_f1(threshold) == pytest.approx(best, rel=1e-6)

    for index, threshold in enumerate(evaluator.tune_unimodal(encoded)):
        assert_best(threshold, np.asarray(outputs[f"logits/{names[index]}"]), present[:, index])
    for pattern, threshold in zip(evaluator.patterns, evaluator.tune_patterns(variables, encoded), strict=True):
        has_all = (present | ~pattern).all(axis=1)
        assert_best(threshold, pattern_logits(model, variables, split, present & pattern, names), has_all)


def test_a_pattern_that_no_validation_row_has_keeps_the_threshold_of_a_half():
    names = ("a", "b")
    present = np.tile([True, False], (EXAMPLES, 1))
    model = toy.model(names)
    variables = toy.variables(model, names)
    evaluator = Evaluator(model, mesh_of(1), {})
    encoded = evaluator.encode(variables, multi_label_batches(names, present)[0])
    both, only_a, only_b = evaluator.tune_patterns(variables, encoded)
    assert both == only_b == 0.5
    assert only_a != 0.5
