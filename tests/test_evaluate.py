import jax
import numpy as np
import pytest
from sklearn import metrics as sk

from tests import toy
from umemma_jax import missing, sharding
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
