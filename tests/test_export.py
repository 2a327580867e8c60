"""An exported model says what the model itself says, under every missing pattern, for every recipe."""

import hashlib
import json
import zipfile

import jax
import numpy as np
import pytest

from tests import small_run, untrained
from umemma_jax import config as config_lib
from umemma_jax import export, predict, program, serving
from umemma_jax.by_pattern import ByPattern
from umemma_jax.errors import UserError
from umemma_jax.patterns import all_patterns

pytestmark = pytest.mark.usefixtures("one_device")

DIGITS = {"image": "digit", "audio": "audio"}
PHOTOS = {"image": "image", "text": "text"}
CLIPS = {"video": "video", "audio": "audio"}
RECIPES = {
    "quickstart.py": DIGITS,
    "av_mnist.py": DIGITS,
    **{f"{name}.py:{form}": PHOTOS for name in ("food101", "mm_imdb") for form in ("small", "ume_mma")},
    **{f"ave.py:{form}": CLIPS for form in ("small", "resnets", "resnet_audionet", "vit_ast")},
}
ROWS = 3


def exported(folder, model):
    export.export(model, folder / "model.stablehlo")
    return serving.load(folder / "model.stablehlo")


def runner(model):
    return ByPattern(model.module, model.variables, model.inputs, model.info, model.means)


def expected(run, model, rows):
    """What a Predictor says of rows of stored values."""
    said = run(rows)
    ids = [str(number) for number in range(len(rows))]
    return predict.from_logits(ids, run.modalities, said.present, said.logits, model.info, model.calibration)


def check_every_pattern(folder, model, rows):
    found, run = exported(folder, model), runner(model)
    for pattern in all_patterns(len(run.modalities)):
        kept = [m for m, there in zip(run.modalities, pattern, strict=True) if there]
        wanted = expected(run, model, [{m: row[m] for m in kept} for row in rows])
        said = found.predict({m: run.decode(m, [row[m] for row in rows]) for m in kept})
        for name, values in said.items():
            if name != "logits":
                np.testing.assert_allclose(
                    values, getattr(wanted, name), rtol=1e-5, atol=1e-5, err_msg=f"{kept} {name}"
                )
    return found


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe(recipe, tmp_path):
    about = {"multi_label": True} if recipe.startswith("mm_imdb") else {}
    untrained.write_dataset(tmp_path / "data", RECIPES[recipe], **about)
    config = config_lib.load(f"configs/{recipe}")
    config.data.dir = str(tmp_path / "data")
    untrained.shrink(config, tmp_path)
    model, rows = untrained.saved_model(config)
    check_every_pattern(tmp_path, model, rows[:ROWS])


def test_clips_of_kinetics_sound_go_through_the_encoders_of_ave():
    for form in ("small", "resnets", "resnet_audionet", "vit_ast"):
        one, other = (config_lib.load(f"configs/{name}.py:{form}") for name in ("ave", "kinetics_sound"))
        assert one.inputs == other.inputs


TARGETS = {"classes": (), "targets": ["price", "weight"]}


@pytest.mark.parametrize(
    ("about", "is_calibrated"),
    [({}, True), ({}, False), ({"multi_label": True}, True), (TARGETS, True), (TARGETS, False)],
)
def test_own_data_of_three_modalities(about, is_calibrated, tmp_path):
    """A table, a text as a bag of n-grams, and raw pixels."""
    untrained.write_dataset(tmp_path / "data", {"table": "table", "text": "text", "digit": "digit"}, **about)
    config = config_lib.load(f"configs/own_data.py:{tmp_path / 'data'}")
    untrained.shrink(config, tmp_path)
    model, rows = untrained.saved_model(config, is_calibrated)
    check_every_pattern(tmp_path, model, rows[:ROWS])


@pytest.mark.parametrize("changes", [{"missing__stand_in": "mean"}, {"fusion__head": "mlp"}])
def test_other_stand_ins_and_heads(changes, tmp_path):
    small_run.write_dataset(tmp_path / "data")
    model, rows = untrained.saved_model(small_run.get_config(tmp_path / "data", **changes))
    check_every_pattern(tmp_path, model, rows[:ROWS])


def test_an_encoder_that_counts_rows_is_refused_in_one_line(tmp_path):
    untrained.write_dataset(tmp_path / "data", {"table": "table", "digit": "digit"})
    config = config_lib.load(f"configs/own_data.py:{tmp_path / 'data'}")
    config.inputs.digit.encoder = {"name": "tests.counting_encoder"}
    model, _ = untrained.saved_model(config)
    with pytest.raises(UserError, match=r"an encoder cannot do with any number of rows .*: in an encoder of your own"):
        export.export(model, tmp_path / "model.stablehlo")
    assert not list(tmp_path.glob("model.*"))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    small_run.write_dataset(folder / "data")
    model, _ = untrained.saved_model(small_run.get_config(folder / "data"))
    return untrained.with_required(model, "image"), folder


def test_the_file_says_what_it_needs_and_how_good_it_is(small):
    model, folder = small
    description = exported(folder, model).description
    assert description == json.loads((folder / "model.stablehlo.json").read_text())
    assert description["inputs"]["image"]["arrays"] == {"values": {"dtype": "uint8", "shape": ["batch", 8, 8, 1]}}
    sound = description["inputs"]["audio"]
    assert (sound["sample_rate"], sound["counted_by"], sound["lengths"]) == (8000, "length", [800])
    assert (description["required"], description["optional"]) == (["image"], ["audio"])
    assert description["quality"] == model.quality
    assert description["calibration"]["temperatures"] == pytest.approx(
        {"image+audio": None} | dict(zip(("image", "audio"), model.calibration.temperatures[1:], strict=True))
    )
    with zipfile.ZipFile(folder / "model.stablehlo") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    assert description["sha256"] == {
        name: hashlib.sha256(part).hexdigest() for name, part in parts.items() if name != "model.json"
    }


def test_one_file_is_for_all_platforms(small):
    description = exported(small[1], small[0]).description
    assert set(description["program"]["platforms"]) == {"cpu", "cuda", "tpu"}


def test_encoders_of_what_is_absent_are_not_computed(small):
    """Each stands in a conditional: outside of these there are no convolutions."""
    model, _ = small
    run = runner(model)
    inputs = {m: program.named(run.decode(m, [None])) for m in run.modalities}
    weights = program.weights(model, run.stand_ins)
    traced = jax.make_jaxpr(program.of(model))(weights, inputs, np.ones((1, 2), bool))
    outside = [equation.primitive.name for equation in traced.jaxpr.eqns]
    assert outside.count("cond") == 2
    assert "conv_general_dilated" in str(traced)
    assert "conv_general_dilated" not in outside
