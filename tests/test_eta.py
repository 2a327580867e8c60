"""The eta protocol: training and validation examples lose modalities for good, and the report says the number."""

import json

import jax
import numpy as np
import pytest

from tests import small_run
from tests.example_results import example_results
from umemma_jax import config as config_lib
from umemma_jax import experiment, missing_rates
from umemma_jax.errors import UserError
from umemma_jax.evaluation import evaluate
from umemma_jax.reporting import eta, report, results
from umemma_jax.reporting.markdown import comparison_markdown, summary
from umemma_jax.training import stages, train

NAMES = ("image", "audio")

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "small"
    small_run.write_dataset(path, missing_share=0.2)
    return path


def get_config(path, rate=0.7, kind="mixed", **changes):
    return small_run.get_config(path, missing__eta__rate=rate, missing__eta__kind=kind, **changes)


def expected_table(dataset, kind, rate, seed=0):
    available = experiment.open_dataset(dataset).source("train").present(NAMES)
    return missing_rates.missing_table(available, kind, rate, seed, NAMES)


@pytest.mark.parametrize("kind", ["mixed", "audio"])
@pytest.mark.parametrize("stage", stages.STAGES)
def test_training_and_validation_examples_stay_incomplete_and_test_examples_whole(dataset, kind, stage):
    built = experiment.build(get_config(dataset, kind=kind))
    table = expected_table(dataset, kind, 0.7)
    assert not table[built.train_rows].all() and not table[built.validation[1]].all()
    batches = stages.training_batches(built, stage)
    for _ in range(12):  # more than two epochs
        batch = next(batches)
        np.testing.assert_array_equal(batch["present"], table[batch["index"]])
    for batch in built.batches(*built.validation):
        real = batch["weight"] > 0
        np.testing.assert_array_equal(batch["present"][real], table[batch["index"][real]])
    whole = experiment.open_dataset(dataset).source("test").present(NAMES)
    np.testing.assert_array_equal(built.dataset.source("test").present(NAMES), whole)


def test_a_validation_split_of_its_own_is_incomplete_too_but_not_when_it_is_the_test_split(tmp_path):
    small_run.write_dataset(tmp_path / "data")
    built = experiment.build(get_config(tmp_path / "data", data__validation_split="test"))
    assert list(built.dataset.kept) == ["train"]
    built = experiment.build(get_config(tmp_path / "data", data__train_split="test", data__test_split="train"))
    assert list(built.dataset.kept) == ["test"]


def test_another_seed_another_table(dataset):
    tables = [experiment.build(get_config(dataset, seed=seed)).dataset.kept["train"] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(tables[0], tables[1])
    assert (tables[0] != tables[2]).any()


def test_no_protocol_no_change(dataset):
    built = experiment.build(small_run.get_config(dataset))
    assert type(built.dataset) is experiment.Dataset


def test_the_report_says_the_protocol_s_number_and_what_it_means(dataset, tmp_path):
    config = get_config(dataset, rate=0.65, unimodal__epochs=1, fusion__epochs=1)
    built = experiment.build(config)
    trained = train.train(built, tmp_path / "run")
    found, tables, _ = evaluate.evaluate(built, trained.unimodal, trained.fusion)
    report.write_report(found, tmp_path / "report", tables)
    found = json.loads((tmp_path / "report" / "report.json").read_text())
    digest = missing_rates.table_hash(expected_table(dataset, "mixed", 0.65))
    assert found["eta"] == {"rate": 0.65, "kind": "mixed", "table_sha256": {"train": digest}}
    # Not among the rates that the config asks for, yet in the grid; its number from the model, table by table.
    rows = next(experiment.eval_batches(built.dataset, "test", NAMES, 41, lengths=built.lengths))
    apply, accuracy = jax.jit(built.model.apply), []
    for kept in tables["mixed@0.65"]:
        logits = apply(trained.fusion, rows["inputs"], kept)["logits"]
        accuracy.append((np.asarray(logits).argmax(axis=1) == rows["label"]).mean())
    assert eta.eta_cell(found)["mean"]["accuracy"] == pytest.approx(np.mean(accuracy))
    number = f"{100 * np.mean(accuracy):.1f} ± {100 * np.std(accuracy):.1f} %"
    sentence = (
        "Protocol eta = 65 %, mixed: that share of the training and validation examples lost one modality each, all in "
        "equal shares, for good, by a seeded table; where as many of the test examples lose it, accuracy is "
        f"{number}, mean ± standard deviation over 2 seeded tables."
    )
    assert sentence in (tmp_path / "report" / "report.md").read_text()
    assert sentence in summary(found)


def with_eta(kind="image", seed=0, **changes):
    protocol = {"rate": 0.5, "kind": kind, "table_sha256": {"train": f"{seed:064}"}}
    return example_results(seed=seed, **changes) | {"eta": protocol}


def test_a_comparison_says_which_of_its_numbers_are_the_protocol_s():
    comparison = results.compare([with_eta(seed=0), with_eta(seed=1)])
    assert comparison["eta"] == {"rate": 0.5, "kind": "image"}
    markdown = comparison_markdown(comparison)
    assert "examples lost image for good" in markdown
    assert "The protocol's numbers are those at missing rate 50 %, image missing." in markdown
    assert "eta" not in results.compare([example_results()])


def test_runs_of_other_protocols_are_not_compared():
    for other in (with_eta("audio", seed=1), example_results(seed=1)):
        with pytest.raises(UserError, match="results that cannot be compared: eta is"):
            results.compare([with_eta(), other])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("kind", "text", "config.missing.eta.kind: 'text' is not one of image, audio, mixed"),
        ("rate", 1.2, r"config.missing.eta.rate: 1.2 must be in \[0, 1\]"),
    ],
)
def test_refusals(dataset, field, value, message):
    with pytest.raises(UserError, match=message):
        config_lib.check(get_config(dataset, **{field: value}))
