"""The shipped recipes: every one loads and passes the checks, and the one for own data trains on what it is given."""

import pytest

from data_prep import table
from tests import small_run
from umemma_jax import config as config_lib
from umemma_jax import evaluate, experiment, train
from umemma_jax.config import METHODS
from umemma_jax.errors import UserError


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["quickstart", "av_mnist", "food101", "mm_imdb"])
def test_recipes_of_every_method(name, method):
    config = config_lib.load(f"configs/{name}.py:{method}")
    config_lib.check(config)
    assert config_lib.method_name(config) == method


@pytest.mark.parametrize("name", ["food101", "mm_imdb"])
def test_small_recipes(name):
    config = config_lib.load(f"configs/{name}.py:small,late_fusion")
    config_lib.check(config)
    assert config_lib.method_name(config) == "late_fusion"
    assert not config.inputs.image.encoder.pretrained
    with pytest.raises(UserError, match="unknown method"):
        config_lib.load(f"configs/{name}.py:tiny")


def brief(config):
    config.unimodal.epochs = config.fusion.epochs = 2
    config.evaluation.seeds = 1
    config_lib.check(config)
    return config


def run(config, workdir):
    built = experiment.build(config)
    trained = train.train(built, workdir)
    return evaluate.evaluate(built, trained.unimodal, trained.fusion)[0]


def test_own_data_of_three_kinds(tmp_path):
    small_run.write_dataset(tmp_path / "data")
    results = run(brief(config_lib.load(f"configs/own_data.py:{tmp_path / 'data'}")), tmp_path / "run")
    assert len(results["patterns"]) == 7


def test_own_data_from_a_table(tmp_path, monkeypatch):
    """Words and numbers that tell the class, in a CSV file with gaps."""
    names = ("apple", "pear", "plum")
    lines = ["title,weight,length,fruit"]
    for number in range(90):
        label = number % 3
        title = "" if number % 10 == 0 else f"a fine {names[label]} number {number % 7}"
        lines.append(f"{title},{label + number % 5 / 10},{2 - label},{names[label]}")
    (tmp_path / "fruit.csv").write_text("\n".join(lines))
    arguments = ["--text=title", "--tabular=size=weight,length", "--label=fruit", f"--out={tmp_path / 'data'}"]
    monkeypatch.setattr("sys.argv", ["table", f"--table={tmp_path / 'fruit.csv'}", *arguments])
    table.main()
    results = run(brief(config_lib.load(f"configs/own_data.py:{tmp_path / 'data'},ume_mma")), tmp_path / "run")
    assert results["naturally_missing"]["text"] > 0
    assert results["patterns"]["text+size"]["accuracy"] > 0.5


def test_own_data_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match=r"python -m data_prep\.table"):
        config_lib.load(f"configs/own_data.py:{tmp_path / 'nothing'}")
