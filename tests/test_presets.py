"""Recipes for any data: of a folder of checkpoints each modality takes the first that is of its kind."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.weights.test_convert import bert_shapes
from umemma_jax import presets
from umemma_jax.data.dataset import DatasetWriter, Modality
from umemma_jax.errors import UserError

MODALITIES = {
    "title": Modality(kind="text", encoding="utf-8"),
    "price": Modality(kind="tabular", encoding="float32", shape=(1,)),
}


@pytest.fixture
def data(tmp_path):
    with DatasetWriter(
        tmp_path / "data", name="d", description="", classes=["a", "b"], modalities=MODALITIES
    ) as writer:
        for split in ("train", "val", "test"):
            for number in range(16):
                price = np.array([number], np.float32)
                writer.write(split, id=str(number), label=number % 2, title=f"word {number}", price=price)
    return str(tmp_path / "data")


@pytest.fixture
def checkpoints(tmp_path):
    """Folders with something else, and with a tiny BERT."""
    folder = tmp_path / "checkpoints"
    for name in ("a_notes", "b_other", "c_bert"):
        (folder / name).mkdir(parents=True)
    save_file({"weight": np.zeros((2, 2), np.float32)}, folder / "b_other" / "model.safetensors")
    shapes = bert_shapes(width=64, depth=1, vocabulary=50, positions=32)
    save_file(
        {name: np.zeros(shape, np.float32) for name, shape in shapes.items()},
        folder / "c_bert" / "model.safetensors",
    )
    (folder / "c_bert" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    return folder


def test_small_takes_every_kind_from_scratch(data):
    config = presets.small(data)
    assert config.modalities == ("title", "price")
    assert {m: recipe.encoder.pretrained for m, recipe in config.inputs.items()} == {"title": "", "price": ""}
    assert config.data.validation_split == "val"


def test_base_takes_the_checkpoint_that_fits_and_learns_the_rest_faster(data, checkpoints):
    config = presets.base(data, checkpoints=str(checkpoints))
    assert config.inputs.title.encoder.name == "bert"
    assert config.inputs.title.encoder.pretrained == str(checkpoints / "c_bert")
    assert config.inputs.price.encoder.pretrained == ""
    assert config.inputs.price.learning_rate_scale.unimodal > config.inputs.title.learning_rate_scale.unimodal


def test_a_checkpoint_may_be_named_for_a_modality(data, checkpoints):
    config = presets.base(data, "ume", {"title": str(checkpoints / "c_bert")})
    assert config.inputs.title.encoder.name == "bert"
    assert config.fusion.epochs == 0
    with pytest.raises(UserError, match=r"b_other.*is no checkpoint of bert"):
        presets.base(data, "ume", {"title": str(checkpoints / "b_other")})


def test_without_a_checkpoint_for_any_modality_it_says_so(data, checkpoints):
    shutil.rmtree(checkpoints / "c_bert")
    with pytest.raises(UserError, match="none for title, price: name a folder with checkpoints"):
        presets.base(data, checkpoints=str(checkpoints))
