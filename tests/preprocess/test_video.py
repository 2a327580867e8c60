"""Frames of clips that say which they are, against `Image` on each of them."""

import jax
import numpy as np
import pytest
import scipy.stats
from numpy.testing import assert_allclose, assert_array_equal

from tests.preprocess.raw_rows import keys, preprocess
from umemma_jax.data.kinds import Modality
from umemma_jax.errors import UserError

VIDEO = Modality("video", "jpeg", frame_rate=1.0, max_frames=12, mean=(120.0, 110.0, 100.0), std=(60.0, 50.0, 40.0))
PHOTO = Modality("image", "jpeg", mean=VIDEO.mean, std=VIDEO.std)


def numbered(*counts, frames=12):
    """Clips of so many frames as the pipeline delivers them; all pixels of frame i are i + 1, padding is 0."""
    numbers = np.where(np.arange(frames) < np.array(counts)[:, None], np.arange(frames) + 1, 0)
    pixels = np.broadcast_to(numbers[..., None, None, None], (*numbers.shape, 4, 4, 3))
    return {"frames": pixels.astype(np.uint8), "count": np.array(counts, np.int32)}


def noise(*counts, frames=12, height=9, width=7):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (len(counts), frames, height, width, 3), np.uint8)
    return {"frames": pixels, "count": np.array(counts, np.int32)}


def sampled(raw, row_keys=None, **config):
    """Which frames, counted from 0, int [B, T], are taken of `numbered` clips; -1 is padding."""
    p = preprocess(VIDEO, mean=(0.0,) * 3, std=(1.0,) * 3, **config)
    taken = np.asarray(jax.jit(p, static_argnames="train")(raw, row_keys, train=row_keys is not None))
    return np.rint(taken[:, :, 0, 0, 0]).astype(int) - 1


@pytest.mark.parametrize(
    "frames, count, expected",
    [
        (3, 9, [1, 4, 7]),
        (3, 10, [1, 5, 8]),
        (3, 12, [2, 6, 10]),
        (1, 9, [4]),
        (1, 1, [0]),
        (4, 4, [0, 1, 2, 3]),
        (4, 2, [0, 0, 1, 1]),
        (3, 1, [0, 0, 0]),
    ],
)
def test_evaluation_takes_the_middle_of_each_part(frames, count, expected):
    assert_array_equal(sampled(numbered(5, count), frames=frames)[1], expected)


def test_training_takes_any_frame_of_each_part_with_equal_chances():
    taken = sampled(numbered(*[9] * 3000), keys(3000), frames=3)
    for part, column in enumerate(taken.T):
        chosen = np.bincount(column - 3 * part, minlength=3)
        assert chosen.shape == (3,)
        assert scipy.stats.chisquare(chosen).pvalue > 1e-3
    assert np.abs(np.corrcoef(taken.T) - np.eye(3)).max() < 0.1  # each part draws by itself


@pytest.mark.parametrize("count", [1, 2, 5, 12])
@pytest.mark.parametrize("frames", [1, 3, 5])
def test_training_keeps_the_order_and_takes_no_padding(frames, count):
    taken = sampled(numbered(*[count] * 500), keys(500), frames=frames)
    assert (np.diff(taken, axis=1) >= 0).all()
    assert set(taken.ravel()) == set(range(count))


def test_frames_are_what_image_makes_of_them():
    raw = noise(12, 5)
    found = preprocess(VIDEO, frames=3, crop=6)(raw)
    assert (found.shape, found.dtype) == ((2, 3, 6, 6, 3), np.float32)
    for clip, row, index in zip(found, raw["frames"], ([2, 6, 10], [0, 2, 4]), strict=True):
        assert_allclose(clip, preprocess(PHOTO, crop=6)(row[index]), atol=1e-6)


@pytest.mark.parametrize("config", [{"crop": 5}, {"flip": True}, {"resized_crop": 0.6}, {"rotation": 30.0}])
def test_all_frames_of_a_clip_are_augmented_alike_and_as_an_image(config):
    raw = noise(*[12] * 8)
    raw["frames"][:] = raw["frames"][:, :1]  # clips of one picture
    found = np.asarray(jax.jit(preprocess(VIDEO, **config), static_argnums=2)(raw, keys(8), True))
    assert_allclose(found, np.repeat(found[:, :1], 3, axis=1), atol=1e-5)
    expected = jax.jit(preprocess(PHOTO, **config), static_argnums=2)(raw["frames"][:, 0], keys(8), True)
    assert_allclose(found[:, 0], expected, atol=1e-4)


def test_a_row_depends_on_its_own_key_and_frames_only():
    raw, rows = noise(12, 0, 3, 7, 1, 12), np.array([3, 0, 2])
    augment = jax.jit(preprocess(VIDEO, frames=2, flip=True, resized_crop=0.5), static_argnums=2)
    together = np.asarray(augment(raw, keys(6), True))
    assert np.isfinite(together).all()
    apart = augment({name: x[rows] for name, x in raw.items()}, keys(6)[rows], True)
    assert_allclose(apart, together[rows], atol=1e-5)
    padding = np.arange(12) >= raw["count"][:, None]
    other = {**raw, "frames": np.where(padding[..., None, None, None], 255 - raw["frames"], raw["frames"])}
    kept = raw["count"] > 0
    assert_array_equal(np.asarray(augment(other, keys(6), True))[kept], together[kept])
    assert not np.allclose(augment(raw, keys(6, seed=1), True), together)  # other keys, other draws


@pytest.mark.parametrize(
    "config, message",
    [
        ({"frames": 0}, "config.inputs.m.preprocess.frames: must be positive, got 0"),
        ({"frames": 1.5}, "config.inputs.m.preprocess.frames: expected int, got 1.5"),
        ({"crop": -1}, "config.inputs.m.preprocess.crop: must not be negative, got -1"),
        ({"mean": (1.0,)}, "config.inputs.m.preprocess.mean: 1 values, the dataset has 3 channels"),
        ({"form": "flow"}, "config.inputs.m.preprocess.form: 'flow' is none of frames, the forms of kind 'video'"),
    ],
)
def test_mistakes_are_named_in_one_line(config, message):
    with pytest.raises(UserError) as caught:
        preprocess(VIDEO, **config)
    assert str(caught.value) == message


def test_a_crop_larger_than_the_frames_is_refused():
    with pytest.raises(UserError, match=r"preprocess\.crop: 8 is larger than the images, 9 x 7: lower it"):
        preprocess(VIDEO, crop=8)(noise(12))
