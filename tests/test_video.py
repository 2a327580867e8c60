"""Clips whose frames and sound tell the class, from the writer to the report."""

import jax
import numpy as np
import pytest

from tests import small_run
from umemma_jax import experiment
from umemma_jax.config import tower_config
from umemma_jax.data import jpeg
from umemma_jax.data.dataset import DatasetWriter, Modality
from umemma_jax.errors import UserError
from umemma_jax.evaluation import evaluate
from umemma_jax.training import stages, train

SIDE = 24
VIT = {"name": "vit", "width": 24, "depth": 1, "heads": 2, "mlp_width": 48, "patch": 4, "pool": "mean"}
RESNET = {"name": "resnet", "form": "cifar", "depth": 20, "width": 4}
pytestmark = pytest.mark.usefixtures("one_device")


def frame(rng, label):
    """A JPEG file of noise in a colour."""
    pixels = rng.integers(0, 150, (32, 40, 3))
    pixels[..., label] += 100
    return jpeg.encode(pixels.astype(np.uint8))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Clips of 1 to 5 frames with a tone; the sound of some and the frames of others are absent."""
    path = tmp_path_factory.mktemp("data") / "clips"
    rng = np.random.default_rng(0)
    modalities = {
        "frames": Modality(kind="video", encoding="jpeg", frame_rate=1.0),
        "sound": Modality(kind="audio", encoding="pcm_s16le", sample_rate=8000),
    }
    with DatasetWriter(path, name="clips", description="", classes=["a", "b", "c"], modalities=modalities) as writer:
        for split, count in {"train": 48, "test": 21}.items():
            for number in range(count):
                label = number % 3
                time = np.arange(int(rng.integers(600, 800))) / 8000
                tone = 3000 * np.sin(2 * np.pi * (500 + 700 * label) * time) + 1000 * rng.normal(size=time.size)
                values = {
                    "frames": [frame(rng, label) for _ in range(rng.integers(1, 6))],
                    "sound": tone.astype(np.int16),
                }
                if number % 7 == 0:
                    del values[("frames", "sound")[number % 2]]
                writer.write(split, id=str(number), label=label, **values)
    return path


def get_config(dataset, encoder=VIT, **changes):
    """A small encoder on three frames beside a small CNN on the sound."""
    config = small_run.get_config(dataset, modalities=("frames", "sound"))
    config.data.batch_size = config.evaluation.batch_size = 12
    config.inputs.frames = tower_config(encoder, {"frames": 3, "crop": 16, "flip": True}, length=SIDE)
    config.inputs.sound = tower_config({"name": "lenet", "channels": 4, "layers": 2}, {"n_mels": 16}, length=800)
    config.unimodal.epochs = config.fusion.epochs = 1
    for field, value in changes.items():
        stage, name = field.split("__")
        config[stage][name] = value
    return config


def patterns_of_a_run(config, workdir):
    built = experiment.build(config)
    trained = train.train(built, workdir)
    results = evaluate.evaluate(built, trained.unimodal, trained.fusion).results
    assert set(results["patterns"]) == {"frames+sound", "frames", "sound"}
    assert all(np.isfinite(pattern["accuracy"]) for pattern in results["patterns"].values())
    return results["patterns"]


@pytest.mark.slow
def test_frames_alone_tell_the_class(dataset, tmp_path):
    config = get_config(dataset, unimodal__epochs=8, fusion__epochs=2)
    assert patterns_of_a_run(config, tmp_path)["frames"]["accuracy"] > 0.9


def test_the_mean_clip_stands_in_where_modalities_are_dropped_at_random(dataset, tmp_path):
    patterns_of_a_run(get_config(dataset, missing__stand_in="mean", missing__layout="random"), tmp_path)


def test_the_mean_clip_is_one_mean_frame(dataset):
    built = experiment.build(get_config(dataset, missing__stand_in="mean"))
    mean = built.means["frames"]
    assert mean["frames"].shape == (1, 5, SIDE, SIDE, 3)
    np.testing.assert_array_equal(mean["count"], [1])
    values = built.dataset.statistics["frames"]
    assert abs(np.mean(mean["frames"][0, 0]) - values.mean()) < 5
    assert not np.asarray(mean["frames"])[0, 1:].any()


@pytest.mark.parametrize("encoder", [VIT, RESNET], ids=["vit", "resnet"])
def test_no_pixel_of_an_absent_or_padding_frame_reaches_any_output(dataset, encoder):
    built = experiment.build(get_config(dataset, encoder))
    variables = train.initial_variables(built)
    batch = next(iter(stages.training_batches(built, "fusion")))
    batch = {**batch, "present": np.arange(24).reshape(12, 2) % 5 > 0}
    absent = np.arange(5) >= np.where(batch["present"][:, 0], batch["inputs"]["frames"]["count"], 0)[:, None]
    clips = batch["inputs"]["frames"]
    garbage = np.where(absent[..., None, None, None], 255 - clips["frames"], clips["frames"])
    other = {**batch["inputs"], "frames": {**clips, "frames": garbage}}
    assert absent.any() and (garbage != clips["frames"]).any()

    @jax.jit
    def outputs(inputs):
        return built.model.apply(
            variables,
            inputs,
            batch["present"],
            train=True,
            keys=jax.random.split(jax.random.key(0), 12),
            mutable=["batch_stats"],
        )

    jax.tree.map(np.testing.assert_array_equal, outputs(batch["inputs"]), outputs(other))


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("length", 0, "config.inputs.frames.length: video/jpeg needs a length: the side of the square images"),
        ("length", 8, "config.inputs.frames.preprocess.crop: 16 is larger than the images, 8 x 8"),
        ("preprocess", {"frames": 0}, "config.inputs.frames.preprocess.frames: must be positive, got 0"),
    ],
)
def test_mistakes_are_named_before_any_training(dataset, field, value, message):
    config = get_config(dataset)
    config.inputs.frames[field] = value
    with pytest.raises(UserError) as caught:
        experiment.build(config)
    assert str(caught.value).startswith(message)
