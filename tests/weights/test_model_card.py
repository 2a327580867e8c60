"""The model card of a converted folder, and the parameters beside it."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from umemma_jax.errors import UserError
from umemma_jax.weights import model_card
from umemma_jax.weights.model_card import Card, read_card, write_card

MINE = Card(
    version=model_card.VERSION,
    family="vit",
    format="timm",
    fields={"width": 6, "pool": "mean"},
    besides={"grid": [2, 8]},
    parameters=51,
    sha256={"model.safetensors": "ab12"},
    prefix="encoder.",
    config={"model_type": "vit"},
    shapes={"0.weight": [6, 4]},
    inputs={"mean": [127.5], "std": [255.0]},
    optional=["params/pooler/bias"],
    fit={"params/positions": "positions"},
    carried=["classifier.bias"],
    ignored=["step"],
    libraries={"jax": "0.10.2"},
)


def test_a_card_is_read_as_it_was_written(tmp_path):
    write_card(MINE, tmp_path)
    assert read_card(tmp_path) == MINE
    assert json.loads((tmp_path / model_card.CARD).read_text()) == dataclasses.asdict(MINE)


def test_the_line_is_the_card_without_its_long_listings():
    line = MINE.line()
    assert "\n" not in line
    long = ("config", "shapes", "optional", "fit")
    assert json.loads(line) == {name: value for name, value in dataclasses.asdict(MINE).items() if name not in long}


@pytest.mark.parametrize("contents", [None, "", "{}", "[]", '{"version": 2}', "{"])
def test_a_damaged_card(tmp_path, contents):
    if contents is not None:
        (tmp_path / model_card.CARD).write_text(contents)
    with pytest.raises(UserError, match=r"model\.json: cannot be read .*: convert the checkpoint again"):
        read_card(tmp_path)


def test_a_card_of_another_version(tmp_path):
    write_card(dataclasses.replace(MINE, version=model_card.VERSION + 1), tmp_path)
    with pytest.raises(UserError, match=r"is of version 3, not 2: convert the checkpoint again"):
        read_card(tmp_path)


def test_parameters_are_those_of_the_folder(tmp_path):
    kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
    save_file({"params/kernel": kernel, "carried/step": np.zeros(1)}, tmp_path / model_card.PARAMETERS)
    opened = model_card.open_parameters(tmp_path)
    assert opened.shapes == {"params/kernel": (2, 3), "carried/step": (1,)}
    np.testing.assert_array_equal(opened.read("params/kernel"), kernel)
