"""A trained model in its folder: the same answers wherever it lies, without the data that it was trained on."""

import json
import shutil

import jax
import numpy as np
import pytest

from tests import small_run
from umemma_jax import experiment, runs, saved_model
from umemma_jax.by_pattern import ByPattern
from umemma_jax.data import example
from umemma_jax.errors import UserError
from umemma_jax.patterns import all_patterns, pattern_name
from umemma_jax.training import train

pytestmark = pytest.mark.usefixtures("one_device")
COUNT = 11  # examples that are predicted


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run whose stand-ins are mean inputs, with stored values and logits of its test split; its data are gone."""
    data, workdir = tmp_path_factory.mktemp("data") / "small", tmp_path_factory.mktemp("run")
    small_run.write_dataset(data)
    changes = {"unimodal__epochs": 1, "fusion__epochs": 1, "missing__stand_in": "mean"}
    built = experiment.build(small_run.get_config(data, **changes))
    trained = train.train(built, workdir)
    runs.conclude(built, trained, workdir, "a test")
    records = built.dataset.source("test").examples(range(COUNT))
    values = {m: [example.bytes_value(record, m) for record in records] for m in built.modalities}
    present = all_patterns(2)[:, None, :] & np.ones((COUNT, 1), bool)
    batch = next(built.batches("test"))
    inputs = jax.tree.map(lambda x: x[:COUNT], batch["inputs"])
    outputs = {
        pattern_name(mask[0], built.modalities): built.model.apply(trained.fusion, inputs, mask, means=built.means)
        for mask in present
    }
    saved_model.copy(workdir / saved_model.FOLDER, workdir.parent / "moved")
    shutil.rmtree(data)
    return workdir.parent / "moved", values, outputs


@pytest.fixture
def runner(finished):
    saved = saved_model.read(finished[0])
    return ByPattern(saved.module, saved.variables, saved.inputs, saved.info, saved.means)


def rows_of(values):
    """Examples, each with all of these modalities."""
    return [dict(zip(values, of_row, strict=True)) for of_row in zip(*values.values(), strict=True)]


def test_examples_of_several_patterns_are_put_back_in_order(finished, runner):
    _, values, _ = finished
    rows = rows_of(values)
    mixed = [dict(list(row.items())[n % 2 :]) if n % 3 else {} for n, row in enumerate(rows)]
    said = runner(mixed)
    for n, row in enumerate(mixed):
        alone = runner([row])
        np.testing.assert_array_equal(said.present[n], alone.present[0])
        np.testing.assert_allclose(said.logits[n], alone.logits[0], rtol=1e-5, atol=1e-5)
    assert not said.present[0].any()
    assert not said.logits[0].any()


def test_it_answers_as_the_trained_model_under_every_pattern(finished, runner):
    _, values, outputs = finished
    for pattern in all_patterns(2):
        kept = {m: x for m, x in values.items() if pattern[list(values).index(m)]}
        said = runner(rows_of(kept))
        expected = outputs[pattern_name(pattern, list(values))]
        np.testing.assert_allclose(said.logits, expected["logits"], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(said.present, np.tile(pattern, (COUNT, 1)))
        for m in kept:
            np.testing.assert_allclose(said.features[m], expected[f"features/{m}"], rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(said.unimodal[m], expected[f"logits/{m}"], rtol=1e-5, atol=1e-5)


def test_programs_are_made_once_for_a_pattern_and_a_power_of_two(finished, runner):
    _, values, _ = finished
    for count in (5, 8, 6):
        runner(rows_of(values)[:count])
    assert runner.traces.traces == 1
    for count in (1, 8, 1):
        runner(rows_of({"image": values["image"]})[:count])
    assert runner.traces.traces == 3


def test_what_is_absent_is_not_computed(finished, runner):
    _, values, _ = finished
    flops = {}
    for pattern in all_patterns(2):
        raw = {m: runner.decode(m, x[:1]) for m, x in values.items() if pattern[list(values).index(m)]}
        lowered = jax.jit(runner.traces, static_argnums=0).lower(
            tuple(pattern.tolist()), runner.variables, runner.stand_ins, raw
        )
        flops[pattern_name(pattern, list(values))] = lowered.cost_analysis()["flops"]
    assert flops["image"] + flops["audio"] == pytest.approx(flops["image+audio"], rel=0.01)


def test_it_says_how_good_it_is(finished):
    folder, _, _ = finished
    saved = saved_model.read(folder)
    report = json.loads((folder / saved_model.REPORT).read_text())
    assert saved.quality == {name: scores["accuracy"] for name, scores in report["patterns"].items()}
    assert (saved.method, saved.headline, saved.required) == ("ume_mma", "accuracy", ())
    assert saved.calibration.examples == report["calibration"]["examples"]


# Bad input.


def changed(folder, tmp_path, name, content):
    copied = tmp_path / "copied"
    shutil.copytree(folder, copied)
    (copied / name).write_bytes(content((copied / name).read_bytes()))
    return copied


def test_a_truncated_file_is_named(finished, tmp_path):
    folder = changed(finished[0], tmp_path, saved_model.WEIGHTS, lambda data: data[:-5])
    with pytest.raises(UserError, match=r"copied/weights.safetensors: has \d+ bytes in place of \d+: copy the model"):
        saved_model.read(folder)


def test_a_flipped_bit_is_found(finished, tmp_path):
    folder = changed(finished[0], tmp_path, saved_model.WEIGHTS, lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(UserError, match=r"weights.safetensors: does not match its checksum"):
        saved_model.read(folder)


def test_another_version_is_named(finished, tmp_path):
    folder = changed(finished[0], tmp_path, saved_model.RECORD, lambda data: data.replace(b": 1,", b": 9,", 1))
    (folder / "checksums.json").unlink()
    with pytest.raises(UserError, match=r"model.json: format_version 9 instead of 1: save the model again"):
        saved_model.read(folder)


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(UserError, match="no saved model here"):
        saved_model.read(tmp_path)


def test_a_copy_replaces_nothing(finished, tmp_path):
    with pytest.raises(UserError, match="exists already"):
        saved_model.copy(finished[0], tmp_path)
