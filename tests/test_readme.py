"""README's code runs as it stands there."""

import csv
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np

from tests import own_family, test_predictor
from umemma_jax.data.dataset import open_dataset

README = (pathlib.Path(__file__).resolve().parents[1] / "README.md").read_text()
THREE_LINES, FAMILY, ENCODER, DATASET = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_three_lines_train_report_and_answer(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, count in (("train", 150), ("test", 30)):
        rows = test_predictor.rows(count, count)
        with open(f"{name}.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    names = {}
    exec(THREE_LINES, names)
    assert names["answer"].prediction == "shoe"
    assert "title alone (tabular missing)" in capsys.readouterr().out


def test_the_family_is_the_one_that_the_tests_convert():
    _, code = FAMILY.split("\n", 1)
    assert pathlib.Path(own_family.__file__).read_text().endswith(code)
    assert len(code.splitlines()) <= 30


def test_the_encoder_keeps_the_contract():
    names = {}
    exec(ENCODER, names)
    model, x = names["Model"](width=5), jnp.ones((3, 4, 4, 1))
    variables = model.init(jax.random.key(0), x)
    assert model.apply(variables, x, mask=jnp.ones(3, bool), train=True).shape == (3, 5)


def test_the_dataset_is_written_and_lacks_what_was_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(DATASET, {"pixels": np.zeros((28, 28, 1), np.uint8), "samples": np.ones(800, np.int16)})
    source = open_dataset("DATA").source("train")
    np.testing.assert_array_equal(source.present(("image", "audio")), [[True, True], [False, True]])
    np.testing.assert_array_equal(source.labels(), [0, 1])
