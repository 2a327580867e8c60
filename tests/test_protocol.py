"""umemma_jax/protocol.py: what examples lose for good, at each modality's own rate, given the label or a modality."""

import json

import numpy as np
import pytest

from tests import small_run
from tests.test_eta import with_eta
from umemma_jax import config as config_lib
from umemma_jax import experiment, missing_rates, protocol
from umemma_jax.errors import UserError
from umemma_jax.evaluation import evaluate
from umemma_jax.reporting import report
from umemma_jax.reporting.eta import eta_label
from umemma_jax.training import train

NAMES = ("image", "audio")
PLAIN = {"rate": 0.0, "kind": "mixed", "rates": {}, "given": "", "spread": 0.5}

pytestmark = pytest.mark.usefixtures("one_device")


def eta(**changes):
    return {**PLAIN, **changes}


def test_without_more_a_table_is_the_missing_rate_s():
    available = np.random.default_rng(0).random((83, 2)) < 0.7
    for kind in (*NAMES, "mixed"):
        expected = missing_rates.missing_table(available, kind, 0.7, 3, NAMES)
        np.testing.assert_array_equal(protocol.table(eta(rate=0.7, kind=kind), available, None, 3, NAMES), expected)


def test_rates_are_each_modality_s_own_and_no_example_loses_all():
    names = ("a", "b", "c")
    available = np.ones((200, 3), bool)
    table = protocol.table(eta(rates={"a": 0.1, "b": 0.6}), available, None, 0, names)
    assert (~table).sum(axis=0).tolist() == [20, 120, 0]
    everything = protocol.table(eta(rates={"a": 1.0, "b": 1.0, "c": 1.0}), available, None, 0, names)
    assert (everything.sum(axis=1) == 1).all()
    assert (table != protocol.table(eta(rates={"a": 0.1, "b": 0.6}), available, None, 1, names)).any()


def test_a_modality_s_loss_says_nothing_of_another_s():
    table = protocol.table(eta(rates={"a": 0.5, "b": 0.5}), np.ones((4000, 3), bool), None, 0, ("a", "b", "c"))
    assert abs(np.corrcoef(table[:, 0], table[:, 1])[0, 1]) < 0.04  # 1 / sqrt(4000) is 0.016


@pytest.mark.parametrize("kind", [*NAMES, "mixed"])
def test_given_the_label_classes_lose_shares_that_are_spread_evenly(kind):
    labels = np.repeat([0, 1, 2], [100, 50, 20])
    classes = protocol.Classes(labels, 3)
    asked = eta(rate=0.4, kind=kind, given="label")
    table = protocol.table(asked, np.ones((170, 2), bool), classes, 0, NAMES)
    lost = [(~table[labels == c].all(axis=1)).sum() for c in range(3)]
    assert lost == [20, 20, 12]  # 0.2, 0.4 and 0.6 of the classes
    if kind == "mixed":
        assert [(~table[labels == 0]).sum(axis=0).tolist()] == [[10, 10]]
    again = protocol.table(asked, np.ones((170, 2), bool), classes, 0, NAMES)
    np.testing.assert_array_equal(table, again)


def test_unequal_rates_differ_by_the_label_too():
    labels = np.repeat([0, 1], 100)
    asked = eta(rates={"a": 0.2, "b": 0.4}, given="label", spread=1.0)
    table = protocol.table(asked, np.ones((200, 3), bool), protocol.Classes(labels, 2), 0, ("a", "b", "c"))
    assert [(~table[labels == c]).sum(axis=0).tolist() for c in (0, 1)] == [[0, 0, 0], [40, 80, 0]]


def test_given_a_modality_the_others_go_by_whether_it_is_there():
    names, available = ("a", "b", "c"), np.ones((300, 3), bool)
    available[:100, 0] = False
    table = protocol.table(eta(rate=0.4, kind="b", given="a"), available, None, 0, names)
    assert [(~table[rows, 1]).sum() for rows in (slice(0, 100), slice(100, 300))] == [20, 120]  # 0.2 and 0.6
    table = protocol.table(eta(rates={"a": 0.5, "b": 0.4}, given="a"), np.ones((300, 3), bool), None, 0, names)
    there = table[:, 0]
    assert (there.sum(), (~table[there, 1]).sum(), (~table[~there, 1]).sum()) == (150, 90, 30)


def test_under_inverse_propensity_what_an_example_has_says_nothing_of_its_class():
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=600)
    present = np.stack([rng.random(600) < 0.3 + 0.2 * labels, np.ones(600, bool)], axis=-1)
    weights = protocol.inverse_propensity(present, labels, 0.01)
    by_hand = [
        (present[:, 0] == has).mean() / (present[labels == label, 0] == has).mean()
        for has, label in zip(present[:, 0], labels, strict=True)
    ]
    np.testing.assert_allclose(weights, by_hand, rtol=1e-6)
    for label in range(3):
        rows = labels == label
        share = np.average(present[rows, 0], weights=weights[rows])
        assert share == pytest.approx(present[:, 0].mean(), rel=1e-6)  # in every class as among all
        assert weights[rows].sum() == pytest.approx(rows.sum(), rel=1e-6)  # classes weigh what they did
    assert np.average(present[:, 0], weights=weights) == pytest.approx(present[:, 0].mean(), rel=1e-6)


def test_a_propensity_counts_as_no_less_than_the_least():
    labels = np.repeat([0, 1], [100, 100])
    present = np.ones((200, 2), bool)
    present[0, 0] = False  # 1 of 100 of its class, 1 of 200 of all
    present[100:150, 0] = False
    weights = protocol.inverse_propensity(present, labels, 0.05)
    assert weights[0] == pytest.approx(51 / 200 / 0.05)
    assert weights[100] == pytest.approx(51 / 200 / 0.5)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "small"
    small_run.write_dataset(path)
    return path


def get_config(path, **changes):
    return small_run.get_config(path, **{name.replace("eta_", "missing__eta__"): x for name, x in changes.items()})


def test_training_examples_lose_by_label_and_weigh_by_their_propensity(dataset):
    asked = {"eta_rate": 0.5, "eta_kind": "audio", "eta_given": "label"}
    built = experiment.build(get_config(dataset, **asked, missing__inverse_propensity=True))
    source = built.dataset.source("train")
    kept, labels = source.present(NAMES), source.labels()
    assert [(~kept[labels == c, 1]).sum() for c in range(3)] == [8, 16, 24]  # of 32
    expected = protocol.inverse_propensity(kept[built.train_rows], labels[built.train_rows], 0.05)
    np.testing.assert_allclose(built.row_weights, expected / expected.mean(), rtol=1e-6)
    assert built.row_weights.dtype == np.float32 and built.row_weights.std() > 0
    assert built.dataset.source("test").present(NAMES).all()
    assert experiment.build(get_config(dataset, **asked)).row_weights is None


def test_the_report_has_the_number_of_unequal_rates(dataset, tmp_path):
    config = get_config(dataset, eta_rates={"image": 0.2, "audio": 0.6}, unimodal__epochs=1, fusion__epochs=1)
    built = experiment.build(config)
    trained = train.train(built, tmp_path / "run")
    found = evaluate.evaluate(built, trained.unimodal, trained.fusion)
    results, decisions = found.results, found.decisions
    assert results["eta"]["rates"] == {"image": 0.2, "audio": 0.6}
    right = decisions.decided == decisions.label
    number = {(True, True): 0, (True, False): 1, (False, True): 2}
    accuracy = []
    for seed in range(2):
        rank = missing_rates.independent_ranks(41, 2, seed)
        table = missing_rates.keep_independent(np.ones((41, 2), bool), rank, (8, 25))
        accuracy.append(np.mean([right[number[tuple(kept)], n] for n, kept in enumerate(table)]))
    assert results["unequal"]["mean"]["accuracy"] == pytest.approx(np.mean(accuracy))
    report.write_report(results, tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "examples 60 % lost audio and 20 % lost image, each by itself, for good, by a seeded table; where as" in text
    assert f"accuracy is {100 * np.mean(accuracy):.1f} ± " in text
    assert json.loads((tmp_path / "report" / "report.json").read_text())["unequal"]["seeds"] == 2


def test_a_report_says_what_absence_is_given():
    words = eta_label(with_eta()["eta"] | {"given": "label", "spread": 0.5})
    assert words.endswith("by class from 0.5 to 1.5 times as often, in the test examples alike")
    assert "by whether there is audio" in eta_label(with_eta()["eta"] | {"given": "audio", "spread": 0.5})


REFUSALS = [
    ({"eta_rates": {"imag": 0.5}}, r"eta\.rates: no modality 'imag', did you mean image\? use image, audio"),
    ({"eta_rates": {"image": 1.5}}, r"eta\.rates\.image: 1\.5 must be a number in \[0, 1\]"),
    ({"eta_rates": {"image": 0.5}, "eta_rate": 0.5}, r"eta\.rates: given beside config\.missing\.eta\.rate = 0\.5"),
    (
        {"eta_given": "class", "eta_rate": 0.5},
        r"eta\.given: 'class' is neither the label nor a modality, use label, im",
    ),
    ({"eta_given": "label"}, r"eta\.given: nothing is lost, set"),
    ({"eta_given": "image", "eta_rate": 0.5}, r"eta\.kind: 'mixed' given 'image': name the other modality"),
    ({"eta_given": "label", "eta_rate": 0.8}, r"eta\.spread: 0\.8 times 1 \+ 0\.5 is above 1: use 0\.25 or less"),
    ({"eta_given": "label", "eta_rate": 0.5, "eta_spread": -1.0}, r"eta\.spread: -1\.0 must be in \[0, 1\]"),
    ({"missing__least_propensity": 0.0}, r"missing\.least_propensity: 0\.0 must be in \(0, 1\]"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSALS)
def test_refusals(dataset, changes, message):
    with pytest.raises(UserError, match=rf"^config\.(missing\.)?{message}[^\n]*$"):
        config_lib.check(get_config(dataset, **changes))


@pytest.mark.parametrize("field", ["eta.given", "inverse_propensity"])
def test_labels_that_are_not_one_class_group_nothing(field):
    missing = {"eta": eta(given="label" if field == "eta.given" else ""), "inverse_propensity": field != "eta.given"}
    protocol.check_labels(missing, one_class=True)
    with pytest.raises(UserError, match=rf"config\.missing\.{field}: for one class an example"):
        protocol.check_labels(missing, one_class=False)
