"""Images against NumPy, SciPy and Pillow."""

import jax
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from tests.preprocess.raw_rows import COLOUR, IMAGE, keys, pixels, preprocess
from umemma_jax.errors import UserError
from umemma_jax.preprocess import affine


@pytest.mark.parametrize("modality", [IMAGE, COLOUR])
def test_images_are_standardised_per_channel(modality):
    raw = pixels(5, modality)
    expected = (raw.astype(np.float64) - modality.mean) / modality.std
    assert_allclose(preprocess(modality)(raw), expected, atol=1e-5)
    other = preprocess(modality, mean=modality.std, std=modality.mean)
    assert_allclose(other(raw), (raw - np.array(modality.std)) / modality.mean, atol=1e-5)


def test_affine_sampling_is_that_of_scipy():
    image = pixels(1, COLOUR)[0].astype(np.float32)
    matrix, shift = np.array([[0.9, 0.3], [-0.2, 1.1]], np.float32), np.array([1.3, -0.6], np.float32)
    centre = (np.array(image.shape[:2]) - 1) / 2
    expected = np.stack(
        [
            scipy.ndimage.affine_transform(
                channel, matrix, centre + shift - matrix @ centre, order=1, mode="grid-constant"
            )
            for channel in image.transpose(2, 0, 1)
        ],
        axis=-1,
    )
    assert_allclose(affine(image, matrix, shift), expected, atol=1e-2)  # of 255


def test_image_augmentation_moves_pixels_no_further_than_it_says():
    raw = np.zeros((64, 28, 28, 1), np.uint8)
    raw[:, 14, 14] = 255
    black = -IMAGE.mean[0] / IMAGE.std[0]
    moved = np.asarray(preprocess(IMAGE, shift=2)(raw, keys(64), True)) > black + 1e-3
    rows, columns = np.nonzero(moved.any(axis=(0, 3)))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (12, 16, 12, 16)


def test_flip_mirrors_about_half_of_the_rows():
    raw = np.repeat(pixels(1, COLOUR), 200, axis=0)
    flipped = np.asarray(preprocess(COLOUR, flip=True)(raw, keys(200), True))
    plain = np.asarray(preprocess(COLOUR)(raw))
    same = np.isclose(flipped, plain, atol=1e-4).all(axis=(1, 2, 3))
    mirrored = np.isclose(flipped, plain[:, :, ::-1], atol=1e-4).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert 70 < same.sum() < 130


def plain_pixels(raw, keys=None, train=False, **config):
    """What the preprocessing makes of uint8 images before it standardises."""
    channels = raw.shape[-1]
    p = preprocess(IMAGE if channels == 1 else COLOUR, mean=(0.0,) * channels, std=(1.0,) * channels, **config)
    return np.asarray(jax.jit(p, static_argnames="train")(raw, keys, train=train))


@pytest.mark.parametrize("height, width, crop", [(9, 7, 5), (8, 8, 5), (6, 9, 6), (5, 5, 5)])
def test_evaluation_crops_the_centre(height, width, crop):
    raw = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), np.uint8)
    top, left = (height - crop) // 2, (width - crop) // 2
    assert_array_equal(plain_pixels(raw, crop=crop), raw[:, top : top + crop, left : left + crop])


def test_training_crops_anywhere_with_equal_chances():
    image = np.arange(7 * 6, dtype=np.uint8).reshape(1, 7, 6, 1)  # the first pixel tells the position
    cropped = plain_pixels(np.repeat(image, 3000, axis=0), keys(3000), train=True, crop=5)
    windows = np.lib.stride_tricks.sliding_window_view(image[0, ..., 0], (5, 5))
    top, left = np.divmod(cropped[:, 0, 0, 0].astype(int), 6)
    assert_array_equal(cropped[..., 0], windows[top, left])
    assert scipy.stats.chisquare(np.bincount(top * 2 + left, minlength=6)).pvalue > 1e-3


def ramps(rows, height, width):
    """Images whose channels say where a pixel is: its row, its column, nothing."""
    image = np.stack([*np.mgrid[:height, :width], np.zeros((height, width))], axis=-1)
    return np.repeat(image[None].astype(np.uint8), rows, axis=0)


def boxes(resized):
    """(top, left, height, width) of the rectangles that became [B, S, S, 3], from what they did to `ramps`."""
    _, size, _, _ = resized.shape
    inner = slice(size // 4, -(size // 4))  # where the filter does not reach over an edge
    ticks = np.arange(size)[inner] + 0.5
    found = []
    for row in resized:
        lines = [
            np.polynomial.Polynomial.fit(ticks, values, 1).convert().coef
            for values in (row[inner, size // 2, 0], row[size // 2, inner, 1])
        ]
        found.append([*(start + 0.5 for start, _ in lines), *(slope * size for _, slope in lines)])
    return np.array(found)


def test_a_resized_crop_is_a_rectangle_of_the_area_and_shape_that_it_says():
    resized = plain_pixels(ramps(400, 120, 200), keys(400), train=True, crop=40, resized_crop=0.9)
    assert resized.shape == (400, 40, 40, 3)
    top, left, height, width = boxes(resized).T
    assert min(top.min(), left.min()) > -0.01
    assert (top + height).max() < 120.01
    assert (left + width).max() < 200.01
    area, ratio = height * width / (120 * 200), width / height
    assert 0.1 < area.min() < 0.13
    assert 0.8 < area.max() < 1
    free = height < 119.9  # what would be higher than the image is as high as it
    assert 0.74 < ratio[free].min() < 0.78
    assert 1.28 < ratio[free].max() < 1.34
    assert 0.3 < np.mean(area[free] < 0.45) < 0.7
    assert abs(np.corrcoef(top[free], left[free])[0, 1]) < 0.3


@pytest.mark.parametrize("size", [24, 60])
def test_a_resized_crop_is_that_of_pillow(size):
    raw = np.random.default_rng(0).integers(0, 256, (5, 60, 60, 3), np.uint8)
    config = {"resized_crop": 0.5, "crop": size}
    found = boxes(plain_pixels(ramps(5, 60, 60), keys(5), train=True, **config))
    resized = plain_pixels(raw, keys(5), train=True, **config)
    for image, row, (top, left, height, width) in zip(raw, resized, found, strict=True):
        box = np.clip((left, top, left + width, top + height), 0, 60)
        expected = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR, tuple(box)))
        difference = np.abs(row - expected)[3:-3, 3:-3]  # at the box's edges Pillow looks no further
        assert difference.mean() < 1  # of 255; Pillow rounds
        assert difference.max() < 5


def test_a_crop_comes_before_the_other_augmentation():
    raw = np.repeat(pixels(1, COLOUR), 50, axis=0)
    cropped = plain_pixels(raw, keys(50), train=True, crop=5)
    both = plain_pixels(raw, keys(50), train=True, crop=5, flip=True)
    mirrored = (both != cropped).any(axis=(1, 2, 3))
    assert 10 < mirrored.sum() < 40
    assert_array_equal(both, np.where(mirrored[:, None, None, None], cropped[:, :, ::-1], cropped))


def test_a_crop_larger_than_the_images_is_refused():
    with pytest.raises(UserError, match=r"preprocess\.crop: 8 is larger than the images, 9 x 7: lower it"):
        preprocess(COLOUR, crop=8)(pixels(1, COLOUR))
