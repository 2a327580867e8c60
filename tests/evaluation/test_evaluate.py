import jax
import numpy as np
import pytest
from sklearn import metrics as sk

from tests import small_run, test_multi_label, toy
from umemma_jax import experiment, missing
from umemma_jax.devices import sharding
from umemma_jax.evaluation import evaluate, metrics
from umemma_jax.evaluation.evaluate import Evaluator
from umemma_jax.training import train

EXAMPLES, BATCH = 53, 16


def mesh_of(count):
    return sharding.make_mesh(devices=jax.devices()[:count])


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


# Several devices.

COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")


def collectives(function, *args):
    """By which means devices exchange anything in a compiled function."""
    text = function.lower(*args).compile().as_text()
    return {name for name in COLLECTIVES if f"{name}(" in text or f"{name}-start(" in text}


def assert_split(x, axis, mesh):
    """Each device holds a share of the rows, and no device all of them."""
    shapes = {shard.data.shape for shard in x.addressable_shards}
    assert x.sharding.device_set == set(mesh.devices.flat) and x.shape[axis] == EXAMPLES + -EXAMPLES % BATCH
    assert shapes == {(*x.shape[:axis], x.shape[axis] // mesh.size, *x.shape[axis + 1 :])}


@pytest.mark.parametrize("multi_label", [False, True])
def test_rows_stay_on_the_device_that_has_encoded_them(multi_label):
    names, mesh = ("a", "b"), mesh_of(4)
    model = toy.model(names, stand_in="mean")
    variables = jax.device_put(toy.variables(model, names), sharding.replicated(mesh))
    evaluator = Evaluator(model, mesh, toy.means(names))
    present = np.ones((EXAMPLES, 2), bool)
    cut, _ = (multi_label_batches if multi_label else batches)(names, present)
    encoded = evaluator.encode(variables, cut)
    predictions = evaluator.predict_patterns(variables, encoded)
    jax.tree.map(lambda x: assert_split(x, 0, mesh), encoded)
    assert_split(predictions, 1, mesh)

    ranks = jax.device_put(np.zeros((2, len(encoded.weight)), np.int32), predictions.sharding)
    counting = predictions, encoded, evaluator.patterns, np.zeros((1, 3), np.float32)
    assert collectives(evaluator._encode, variables, sharding.put_batch(cut[0], mesh), ()) == set()
    assert collectives(evaluator._concatenate, [encoded, encoded]) == set()
    assert collectives(evaluator._predict_patterns, variables, encoded) == set()
    assert collectives(evaluator._predict_unimodal, encoded) == set()
    assert collectives(evaluator._count_patterns, *counting) == {"all-reduce"}
    assert collectives(evaluator._count_cells, *counting, ranks, np.ones((5, 2), np.int32)) == {"all-reduce"}
    for counts in jax.tree.leaves(evaluator._count_patterns(*counting)):
        assert counts.sharding.is_fully_replicated and counts.dtype == np.int32


def test_average_precision_needs_whole_classes_and_no_device_gets_all_of_them():
    names, mesh, rows = ("a", "b"), mesh_of(4), EXAMPLES + -EXAMPLES % BATCH
    model = toy.model(names)
    variables = toy.variables(model, names)
    evaluator = Evaluator(model, mesh, {})
    encoded = evaluator.encode(variables, multi_label_batches(names, np.ones((EXAMPLES, 2), bool))[0])
    predictions = evaluator.predict_patterns(variables, encoded)
    text = evaluator._precisions.lower(predictions, encoded, evaluator.patterns).compile().as_text()
    assert "all-to-all(" in text and f"f32[1,{rows}]" in text
    assert f"f32[{rows},{toy.CLASSES}]" not in text and f"f32[{toy.CLASSES},{rows}]" not in text


def test_cells_are_counted_one_at_a_time():
    """What the device needs besides the predictions does not grow with the number of cells."""
    model = toy.model(("a", "b"))
    evaluator = Evaluator(model, mesh_of(1), {})
    rows, patterns = 100_000, len(evaluator.patterns)
    columns = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in (((rows, 2), bool), ((rows,), np.int32))]
    encoded = evaluate.Encoded({}, {}, columns[0], columns[1], jax.ShapeDtypeStruct((rows,), np.float32), columns[1])

    def temporary(cells):
        predictions, ranks = (jax.ShapeDtypeStruct((count, rows), np.int32) for count in (patterns, 5))
        cuts, losses = np.zeros((1, patterns), np.float32), np.zeros((cells, 2), np.int32)
        lowered = evaluator._count_cells.lower(predictions, encoded, evaluator.patterns, cuts, ranks, losses)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert temporary(cells=200) < temporary(cells=2) + rows < 50 * rows


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
    """Every figure, digest and table, to the last bit; only what it took differs."""
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
        results, tables = evaluate.evaluate(built, variables, variables)
        del results["timing"]
        found.append((results, {name: table.tobytes() for name, table in tables.items()}))
    assert found[0] == found[1] == found[2]
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
