"""JPEG files against Pillow, which reads and writes them by another copy of the library."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter
from sklearn.datasets import load_sample_images

from umemma_jax.data import jpeg

PHOTO = load_sample_images().images[0]  # uint8 [427, 640, 3]


def file_of(image: Image.Image, format: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def photo(width: int, height: int, **options) -> bytes:
    return file_of(Image.fromarray(PHOTO).resize((width, height), Image.Resampling.LANCZOS), **options)


def reference(data: bytes, side: int) -> np.ndarray:
    """Decoded in full, cut at the centre and resized by Pillow's best filter."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    (width, height), shorter = image.size, min(image.size)
    box = ((width - shorter) / 2, (height - shorter) / 2, (width + shorter) / 2, (height + shorter) / 2)
    return np.asarray(image.resize((side, side), Image.Resampling.LANCZOS, box))


@pytest.mark.parametrize("size", [(341, 256), (256, 341), (256, 256), (80, 60), (500, 31), (640, 427)])
@pytest.mark.parametrize("side", [256, 224, 200, 128, 64, 60, 33])
def test_centre_square_at_any_scale_is_the_one_of_pillow(size: tuple[int, int], side: int):
    image = Image.fromarray(PHOTO).resize(size)
    data = file_of(image.filter(ImageFilter.GaussianBlur(min(size) / 12)), quality=95)  # any filter shrinks it alike
    pixels = jpeg.decode(data, side)
    assert (pixels.shape, pixels.dtype) == ((side, side, 3), np.uint8)
    assert np.abs(pixels.astype(int) - reference(data, side)).mean() < 1.3  # the cut is at whole pixels


@pytest.mark.parametrize("size", [(341, 256), (60, 80), (64, 64), (500, 31)])
@pytest.mark.parametrize("side", [200, 64])
def test_whole_images_are_squeezed_into_the_square(size: tuple[int, int], side: int):
    image = Image.fromarray(PHOTO).resize(size)
    data = file_of(image.filter(ImageFilter.GaussianBlur(min(size) / 12)), quality=95)
    whole = Image.open(io.BytesIO(data)).convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
    assert np.abs(jpeg.decode(data, side, "whole").astype(int) - np.asarray(whole)).mean() < 1.3


@pytest.mark.parametrize("side", [150, 64, 50, 33])
def test_what_is_too_fine_for_the_side_is_averaged(side: int):
    stripes = np.tile(np.array([0, 255], np.uint8), (320, 160))
    pixels = jpeg.decode(file_of(Image.fromarray(stripes), quality=100), side).astype(int)
    assert np.abs(pixels[:, 2:-2] - 127.5).max() < 20


@pytest.mark.parametrize("size", [(341, 256), (256, 341)])
def test_image_of_the_right_size_is_only_cut(size: tuple[int, int]):
    data = photo(*size)
    full = np.asarray(Image.open(io.BytesIO(data)))
    top, left = (full.shape[0] - 256) // 2, (full.shape[1] - 256) // 2
    difference = np.abs(jpeg.decode(data, 256).astype(int) - full[top : top + 256, left : left + 256])
    assert difference.max() <= 2  # two builds of the library


@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": 0}, {"subsampling": 2}, {"quality": 30}])
def test_kinds_of_files(options: dict):
    data = photo(90, 70, **options)
    jpeg.check(data)
    assert np.abs(jpeg.decode(data, 70).astype(int) - reference(data, 70)).mean() < 1


def test_grey_becomes_three_equal_channels():
    data = file_of(Image.fromarray(PHOTO).convert("L"))
    jpeg.check(data)
    pixels = jpeg.decode(data, 100)
    assert (pixels == pixels[..., :1]).all()
    assert np.abs(pixels.astype(int) - reference(data, 100)).mean() < 5


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 2)])
def test_images_of_a_few_pixels(size: tuple[int, int]):
    data = file_of(Image.new("RGB", size, (77, 2, 3)))
    jpeg.check(data)
    assert np.abs(jpeg.decode(data, 32).astype(int) - (77, 2, 3)).max() <= 2


def test_encoded_pixels_come_back():
    pixels = np.asarray(Image.fromarray(PHOTO).resize((48, 48)))
    assert np.abs(jpeg.decode(jpeg.encode(pixels), 48).astype(int) - pixels).mean() < 4


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a JPEG file"),
        (b"GIF89a", "not a JPEG file"),
        (file_of(Image.new("RGB", (9, 9)), "PNG"), "not a JPEG file"),
        (file_of(Image.new("CMYK", (9, 9))), "a JPEG in CMYK instead of RGB or grey|a JPEG in YCCK"),
        (photo(341, 256)[:-1000], "Premature end of JPEG file"),
        (photo(341, 256)[:100], "not a JPEG file, or its header is damaged"),
        (np.zeros(3, np.uint8), "ndarray instead of the bytes of a JPEG file"),
    ],
)
def test_what_is_not_a_whole_jpeg_file_is_refused(data: bytes, message: str):
    with pytest.raises(ValueError, match=message):
        jpeg.check(data)


@pytest.mark.parametrize("end", [100, -1000])
def test_damaged_files_are_not_decoded(end: int):
    with pytest.raises(ValueError, match="JPEG file"):
        jpeg.decode(photo(341, 256)[:end], 64)
