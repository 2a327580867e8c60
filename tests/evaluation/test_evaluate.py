import jax
import numpy as np
import pytest
from sklearn import metrics as sk

from tests import small_run, test_multi_label, toy
from tests.evaluation.said import assert_close
from umemma_jax import experiment
from umemma_jax.devices import sharding
from umemma_jax.evaluation import evaluate, robustness
from umemma_jax.evaluation.evaluate import Evaluator
from umemma_jax.evaluation.pattern_calibration import PatternCalibration, of_results
from umemma_jax.missing_rates import missing_table, table_hash
from umemma_jax.patterns import all_patterns, pattern_name, pattern_numbers
from umemma_jax.training import train

EXAMPLES, BATCH = 53, 16
CLASSES = tuple("xyz")


def mesh_of(count):
    return sharding.make_mesh(devices=jax.devices()[:count])


def batches(names, present=None):
    """The padded batches of one toy split of 53 examples, and the split itself."""
    split = toy.batch(EXAMPLES, names, present=present)
    padded = jax.tree.map(lambda x: np.pad(x, [(0, -EXAMPLES % BATCH)] + [(0, 0)] * (x.ndim - 1)), split)
    cut = [jax.tree.map(lambda x, i=i: x[i : i + BATCH], padded) for i in range(0, EXAMPLES, BATCH)]
    return cut, split


def masks(modalities, complete):
    patterns = all_patterns(modalities)
    return patterns[
        np.zeros(EXAMPLES, int) if complete else np.random.default_rng(0).integers(len(patterns), size=EXAMPLES)
    ]


def pattern_logits(model, variables, split, kept, names):
    """Logits by running the whole model under a presence mask."""
    return np.asarray(model.apply(variables, split["inputs"], kept, means=toy.means(names))["logits"])


def direct(model, variables, split, kept, names):
    """Accuracy and macro-F1 by running the whole model under a presence mask."""
    predicted, counted = pattern_logits(model, variables, split, kept, names).argmax(axis=1), kept.any(axis=1)
    label, predicted = split["label"][counted], predicted[counted]
    f1 = sk.f1_score(label, predicted, labels=range(toy.CLASSES), average="macro", zero_division=0)
    return {"accuracy": sk.accuracy_score(label, predicted), "macro_f1": f1}


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "c")])
@pytest.mark.parametrize("complete", [True, False])
def test_one_pass_gives_what_running_the_model_on_every_pattern_and_cell_gives(devices, names, complete):
    present = masks(len(names), complete)
    model = toy.model(names, stand_in="mean")
    variables = toy.variables(model, names)
    evaluator = Evaluator(model, mesh_of(devices), toy.means(names))
    cut, split = batches(names, present)
    encoded = evaluator.encode(variables, cut)
    predictions = evaluator.predict_patterns(variables, encoded)
    said = evaluator.split_logits(encoded, predictions, encoded, CLASSES)
    options = robustness.Options(rates=(0.0, 0.3, 1.0), seeds=3, resamples=5)
    results, tables, _ = robustness.report(said, None, options)

    for pattern in all_patterns(len(names)):
        name, kept = pattern_name(pattern, names), present & pattern
        expected = {**direct(model, variables, split, kept, names), "examples": kept.any(axis=1).sum()}
        assert results["patterns"][name] == pytest.approx(expected, rel=1e-6)

    assert len(results["missing_rates"]) == 3 * (len(names) + 1)
    for cell in results["missing_rates"]:
        table = tables[f"{cell['kind']}@{cell['rate']:g}"]
        scores = [direct(model, variables, split, kept, names) for kept in table]
        for metric in ("accuracy", "macro_f1"):
            values = [one[metric] for one in scores]
            assert cell["mean"][metric] == pytest.approx(np.mean(values), rel=1e-6)
            assert cell["std"][metric] == pytest.approx(np.std(values), abs=1e-6)
        assert cell["table_sha256"] == table_hash(table)
        for seed, kept in enumerate(table):
            np.testing.assert_array_equal(kept, missing_table(present, cell["kind"], cell["rate"], seed, names))

    outputs = model.apply(variables, split["inputs"], present, means=toy.means(names))
    for index, name in enumerate(names):
        has, logits = present[:, index], np.asarray(outputs[f"logits/{name}"])
        expected = sk.accuracy_score(split["label"][has], logits.argmax(axis=1)[has])
        assert evaluator.unimodal(encoded)[name]["accuracy"] == pytest.approx(expected, rel=1e-6)
        assert results["ceilings"][name]["accuracy"] == pytest.approx(expected, rel=1e-6)


def test_a_whole_evaluation_traces_the_encoders_once():
    names = ("a", "b")
    model = toy.model(names)
    evaluator = Evaluator(model, mesh_of(1), {})
    for seed in range(2):
        evaluator.encode(toy.variables(model, names, seed), batches(names)[0])
    assert evaluator.encode_traces.traces == 1


def test_the_head_is_compiled_once_for_all_patterns():
    names = ("a", "b", "c")
    model = toy.model(names, stand_in="mean")
    evaluator = Evaluator(model, mesh_of(1), toy.means(names))
    variables = toy.variables(model, names)
    encoded = evaluator.encode(variables, batches(names)[0])
    assert len([evaluator.predict_patterns(variables, encoded)[name] for name in ("a", "b", "a+c", "a+b+c")]) == 4
    assert evaluator._predict._cache_size() == 1


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


def multi_label_scores(label, logits, cuts):
    """By scikit-learn, at probability 0.5 and at the rows' own cuts of their logits, float [N, K]."""
    there = label.any(axis=0)
    found = {"mAP": sk.average_precision_score(label[:, there], logits[:, there], average="macro")}
    for prefix, predicted in {"": logits > 0, "tuned_": logits > cuts}.items():
        for average in AVERAGES:
            found[f"{prefix}{average}_f1"] = sk.f1_score(label, predicted, average=average, zero_division=0)
    return found


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("complete", [True, False])
def test_multi_label_one_pass_gives_what_running_the_model_gives(devices, complete):
    names, patterns, present = ("a", "b", "c"), all_patterns(3), masks(3, complete)
    model = toy.model(names, stand_in="mean")
    variables = toy.variables(model, names)
    evaluator = Evaluator(model, mesh_of(devices), toy.means(names))

    def said(seed):
        cut, split = multi_label_batches(names, present, seed)
        encoded = evaluator.encode(variables, cut)
        return evaluator.split_logits(encoded, evaluator.predict_patterns(variables, encoded), encoded, CLASSES), split

    test, split = said(seed=0)
    validation, _ = said(seed=1)
    options = robustness.Options(rates=(0.0, 0.7), seeds=3, resamples=5)
    results, tables, _ = robustness.report(test, validation, options)
    fitted = PatternCalibration.from_dict(of_results(results))
    temperature = np.nan_to_num(fitted.temperatures, nan=1.0)
    cuts = np.log(fitted.thresholds / (1 - fitted.thresholds)) * temperature[:, None]

    def expected(kept):
        """Every row that keeps anything, at the thresholds of the pattern it keeps."""
        logits, counted = pattern_logits(model, variables, split, kept, names), kept.any(axis=1)
        return multi_label_scores(split["label"][counted], logits[counted], cuts[pattern_numbers(kept)][counted])

    for pattern in patterns:
        kept = present & pattern
        scores = {**expected(kept), "examples": kept.any(axis=1).sum()}
        assert results["patterns"][pattern_name(pattern, names)] == pytest.approx(scores, rel=2e-6)

    for cell in results["missing_rates"]:
        per_seed = [expected(kept) for kept in tables[f"{cell['kind']}@{cell['rate']:g}"]]
        assert cell["mean"].keys() == cell["std"].keys() == per_seed[0].keys() - {"mAP"}
        for name in cell["mean"]:
            values = [scores[name] for scores in per_seed]
            assert cell["mean"][name] == pytest.approx(np.mean(values), rel=2e-6)
            assert cell["std"][name] == pytest.approx(np.std(values), abs=1e-6)


def test_without_validation_nothing_is_tuned():
    names = ("a", "b")
    model = toy.model(names)
    variables = toy.variables(model, names)
    evaluator = Evaluator(model, mesh_of(1), {})
    encoded = evaluator.encode(variables, multi_label_batches(names, np.ones((EXAMPLES, 2), bool))[0])
    untuned = {"macro_f1", "micro_f1", "weighted_f1", "samples_f1", "mAP"}
    predictions = evaluator.predict_patterns(variables, encoded)
    assert evaluator.unimodal(encoded)["a"].keys() == untuned
    said = evaluator.split_logits(encoded, predictions, None, CLASSES)
    results = robustness.report(said, None, robustness.Options(rates=(0.5,), seeds=1, resamples=5)).results
    assert results["patterns"]["a"].keys() == untuned | {"examples"}
    assert results["headline"] == "macro_f1" and "thresholds" not in results and "conformal" not in results


# Several devices.

COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")


def collectives(function, *args):
    """By which means devices exchange anything in a compiled function."""
    text = function.lower(*args).compile().as_text()
    return {name for name in COLLECTIVES if f"{name}(" in text or f"{name}-start(" in text}


def assert_split(x, mesh):
    """Each device holds a share of the rows, and no device all of them."""
    shapes = {shard.data.shape for shard in x.addressable_shards}
    assert x.sharding.device_set == set(mesh.devices.flat) and len(x) == EXAMPLES + -EXAMPLES % BATCH
    assert shapes == {(len(x) // mesh.size, *x.shape[1:])}


@pytest.mark.parametrize("multi_label", [False, True])
def test_rows_stay_on_the_device_that_has_encoded_them(multi_label):
    names, mesh = ("a", "b"), mesh_of(4)
    model = toy.model(names, stand_in="mean")
    variables = jax.device_put(toy.variables(model, names), sharding.replicated(mesh))
    evaluator = Evaluator(model, mesh, toy.means(names))
    present = np.ones((EXAMPLES, 2), bool)
    cut, _ = (multi_label_batches if multi_label else batches)(names, present)
    encoded = evaluator.encode(variables, cut)
    stand_ins = evaluator._make_stand_ins(variables, encoded.features)
    predicting = variables, encoded.features, stand_ins, encoded.available, np.array([True, False])
    jax.tree.map(lambda x: assert_split(x, mesh), encoded)
    assert_split(evaluator._predict(*predicting), mesh)
    assert collectives(evaluator._encode, variables, sharding.put_batch(cut[0], mesh), ()) == set()
    assert collectives(evaluator._concatenate, [encoded, encoded]) == set()
    assert collectives(evaluator._predict, *predicting) == set()


@pytest.mark.parametrize("parts", [2, 3, 64])
def test_every_row_is_encoded_once_however_many_batches_are_joined_at_a_time(monkeypatch, parts):
    monkeypatch.setattr(evaluate, "PARTS", parts)
    names = ("a", "b")
    model = toy.model(names)
    variables = toy.variables(model, names)
    cut, split = batches(names)
    encoded = jax.device_get(Evaluator(model, mesh_of(4), {}).encode(variables, cut))
    real = np.flatnonzero(encoded.weight)
    order = real[encoded.index[real].argsort()]
    np.testing.assert_array_equal(encoded.index[order], np.arange(EXAMPLES))
    np.testing.assert_array_equal(encoded.label[order], split["label"])
    features, _ = model.apply(variables, split["inputs"], split["present"], method="encode")
    for name in names:
        np.testing.assert_allclose(encoded.features[name][order], features[name], atol=1e-6)


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_whole_evaluation_is_the_same_on_any_number_of_devices(tmp_path, monkeypatch, multi_label):
    """Every metric, digest and table to the last bit, and what comes of probabilities as far as the logits are."""
    if multi_label:
        test_multi_label.write_dataset(tmp_path)
        config = test_multi_label.get_config(tmp_path)
    else:
        small_run.write_dataset(tmp_path, missing_share=0.3)
        config = small_run.get_config(tmp_path, missing__stand_in="mean")
    found = []
    for devices in (1, 2, 4):
        monkeypatch.setattr(experiment, "make_mesh", lambda fsdp, devices=devices: mesh_of(devices))
        built = experiment.build(config)
        variables = train.initial_variables(built)
        results, tables, _ = evaluate.evaluate(built, variables, variables)
        del results["timing"], results["cost"]
        found.append((results, {name: table.tobytes() for name, table in tables.items()}))
    (one, tables), *others = found
    for results, other_tables in others:
        assert other_tables == tables
        assert results["patterns"] == one["patterns"] and results["ceilings"] == one["ceilings"]
        assert_close(results, one)
    scores = [pattern[results["metric"]] for pattern in results["patterns"].values()]
    assert len(set(scores)) == len(scores), "otherwise nothing is tested"


@pytest.mark.parametrize("devices", [1, 4])
def test_an_incomplete_split_is_encoded_on_few_rows_with_the_same_result(devices):
    """One batch fits the capacities, one does not; rows that are absent hold NaN."""
    present = np.ones((EXAMPLES, 2), bool)
    present[:BATCH:2, 0] = present[1:BATCH:2, 1] = False
    cut, _ = batches(("a", "b"), present)
    sizes = []

    def counted(raw, keys=None, train=False):
        jax.debug.callback(sizes.append, len(raw))
        return raw

    model = toy.model(stand_in="zero", preprocess=counted)
    variables = toy.variables(model)
    evaluator = Evaluator(model, mesh_of(devices), {})
    expected = jax.device_get(evaluator.encode(variables, cut[:2]))
    for m, x in enumerate(cut[0]["inputs"].values()):
        x[~cut[0]["present"][:, m]] = np.nan
    jax.effects_barrier()
    sizes.clear()
    rows = BATCH // devices // 2
    found = jax.device_get(evaluator.encode(variables, cut[:2], ((rows, rows),)))
    jax.effects_barrier()
    assert sorted(map(int, sizes)) == [BATCH // 2, BATCH // 2, BATCH, BATCH]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, expected)
    assert evaluator.encode_traces.traces == 2


def test_capacities_of_a_split_are_what_its_batches_have(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "make_mesh", lambda fsdp: mesh_of(2))
    small_run.write_dataset(tmp_path / "complete")
    assert experiment.build(small_run.get_config(tmp_path / "complete")).capacities("test") == ()
    small_run.write_dataset(tmp_path / "lacking", test=80, missing_share=0.8)
    config = small_run.get_config(tmp_path / "lacking", evaluation__batch_size=40)
    built = experiment.build(config)
    present = built.dataset.source("test").present(("image", "audio"))
    counts = present.reshape(2, 2, 20, 2).sum(axis=2).max(axis=1)
    (chosen,) = built.capacities("test")
    assert chosen in (tuple(counts.min(axis=0)), tuple(counts.max(axis=0)))
    assert built.capacities("test", np.arange(40)) == (tuple(counts[0]),)
    config.missing.capacities = 0
    assert experiment.build(config).capacities("test") == ()
