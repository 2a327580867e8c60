"""An ONNX file says what the model itself says, under every missing pattern, in ONNX Runtime."""

import json
import sys

import numpy as np
import pytest

from tests import untrained
from tests.test_export import expected, runner
from umemma_jax import config as config_lib
from umemma_jax import onnx_export
from umemma_jax.config import tower_config
from umemma_jax.errors import UserError
from umemma_jax.patterns import all_patterns
from umemma_jax.program import named

pytestmark = pytest.mark.usefixtures("one_device")

LENET = {"name": "lenet", "channels": 4, "layers": 1}
WORDS = {"name": "word_embeddings", "width": 8}
PAIRS = {
    "LeNet and word embeddings": (LENET, WORDS),
    "ResNet and BERT": ({"name": "resnet"}, {"name": "bert"}),
    "ResNet for CIFAR and words": ({"name": "resnet", "form": "cifar", "depth": 20}, WORDS),
    "ViT and BERT in bfloat16": ({"name": "vit", "dtype": "bfloat16"}, {"name": "bert", "dtype": "bfloat16"}),
}
SIDE, ROWS = 32, 3


def photos_and_titles(folder, image, text):
    untrained.write_dataset(folder / "data", {"image": "image", "text": "text"})
    config = config_lib.load("configs/food101.py:small")
    config.inputs.image = tower_config(encoder=image, length=SIDE)
    config.inputs.text = tower_config(encoder=text, length=16)
    return config


def sounds_and_digits(folder, *_):
    untrained.write_dataset(folder / "data", {"image": "digit", "audio": "audio"})
    return config_lib.load("configs/quickstart.py")


def table_and_text(folder, *_):
    untrained.write_dataset(folder / "data", {"table": "table", "text": "text"}, classes=(), targets=["y"])
    return config_lib.load(f"configs/own_data.py:{folder / 'data'}")


CASES = [
    *(pytest.param(photos_and_titles, *pair, id=name) for name, pair in PAIRS.items()),
    pytest.param(sounds_and_digits, None, None, id="LeNets on pixels and a spectrogram"),
    pytest.param(table_and_text, None, None, id="a table and n-grams, to a target"),
]


@pytest.mark.parametrize(("recipe", "image", "text"), CASES)
def test_every_pattern(recipe, image, text, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("jax2onnx")
    config = recipe(tmp_path, image, text)
    config.data.dir = str(tmp_path / "data")
    untrained.shrink(config, tmp_path)
    model, rows = untrained.saved_model(config)
    onnx_export.export(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    described = json.loads(session.get_modelmeta().custom_metadata_map["model.json"])
    assert list(described["inputs"]) == list(model.modalities)
    # In float32, as the file.
    run = runner(onnx_export.in_float32(model))
    for pattern in all_patterns(2):
        some = [{m: row[m] for m, has in zip(run.modalities, pattern, strict=True) if has} for row in rows[:ROWS]]
        arrays = {m: named(run.decode(m, [row.get(m) for row in some])) for m in run.modalities}
        given = {m if part == "values" else f"{m}.{part}": x for m, of in arrays.items() for part, x in of.items()}
        given["present"] = np.tile(pattern, (ROWS, 1))
        names = [output.name for output in session.get_outputs()]
        wanted = expected(run, model, some)
        for name, values in zip(names, session.run(None, given), strict=True):
            if name != "logits":
                np.testing.assert_allclose(values, getattr(wanted, name), rtol=1e-4, atol=1e-4, err_msg=name)


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(UserError, match=r"needs the package jax2onnx: pip install 'umemma_jax\[onnx\]'"):
        onnx_export.export(None, tmp_path / "model.onnx")
