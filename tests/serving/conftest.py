"""A model of photos, sound, titles and numbers for the tests of the server: not trained, but calibrated."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from tests import untrained
from umemma_jax import predictor, presets
from umemma_jax.data_prep.build.dataframes import table_of
from umemma_jax.data_prep.table import Choices, inferred, prepare_rows

RATE = 8000
COLOURS = ("red", "green", "blue")


def png(seed=0, size=(20, 16)):
    """A small picture of noise."""
    pixels = np.random.default_rng(seed).integers(256, size=(*size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def sound(seed=0, seconds=0.5):
    """Noise and its rate."""
    return np.random.default_rng(seed).integers(-9000, 9000, int(seconds * RATE)).astype(np.int16), RATE


def row(number):
    """Of the table that the model is made for."""
    return {
        "photo": png(number),
        "clip": sound(number),
        "title": f"{COLOURS[number % 3]} thing number {number % 5}",
        "price": 1.5 * number,
        "colour": COLOURS[number % 3],
        "kind": "ab"[number % 2],
    }


def predictor_of(made, folder):
    """The Predictor of a saved model that was never written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictor.saved_model, "read", lambda folder: made)
        return predictor.Predictor(folder)


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The Predictor."""
    folder = tmp_path_factory.mktemp("served")
    table = table_of([row(number) for number in range(120)])
    choices, _ = inferred(table, Choices(label="kind", split="0.6,0.2,0.2", types={"title": "text"}), None)
    prepare_rows(str(folder / "data"), table.rows, choices, table.path, "things")
    config = presets.small(str(folder / "data"))
    config.data.batch_size = 8
    made, _ = untrained.saved_model(config)
    return predictor_of(made, folder)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A Predictor of pictures of 8x8 pixels and texts; without a text it answers nothing."""
    folder = tmp_path_factory.mktemp("digits")
    untrained.write_dataset(str(folder / "data"), {"digit": "digit", "text": "text"})
    made, _ = untrained.saved_model(presets.small(str(folder / "data")))
    return predictor_of(dataclasses.replace(made, required=("text",)), folder)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """A Predictor of videos and texts."""
    folder = tmp_path_factory.mktemp("videos")
    untrained.write_dataset(str(folder / "data"), {"video": "video", "text": "text"})
    made, _ = untrained.saved_model(presets.small(str(folder / "data")))
    return predictor_of(made, folder)
