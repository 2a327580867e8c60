import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data_prep.raw_files import wav_bytes
from tests.data_prep.raw_photos import photo_bytes
from umemma_jax.data_prep.raw import media
from umemma_jax.data_prep.raw.clips import ToSound
from umemma_jax.data_prep.raw.media import content_of, kind_of, path_of
from umemma_jax.data_prep.raw.photos import ToJpeg

PHOTO = photo_bytes(0)
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
HERE = Path()


def opened(data):
    return Image.open(io.BytesIO(data))


def pixels_of(content):
    return np.asarray(opened(content))


@pytest.mark.parametrize(
    "value",
    [
        PHOTO,
        base64.b64encode(PHOTO).decode(),
        "data:image/jpeg;base64," + base64.b64encode(PHOTO).decode(),
        {"bytes": PHOTO, "path": None},
        {"bytes": PHOTO, "path": "lost.jpg"},
        opened(PHOTO),  # nobody has loaded it yet
    ],
)
def test_a_file_in_any_form_is_its_content(value):
    assert content_of(value) == PHOTO
    assert kind_of(value, HERE) == "image"
    assert path_of(value) is None


@pytest.mark.parametrize("value", ["a/b.jpg", Path("a/b.jpg"), {"bytes": None, "path": "a/b.jpg"}])
def test_paths(value):
    assert content_of(value) == path_of(value) == "a/b.jpg"
    assert kind_of(value, HERE) == "image"


@pytest.mark.parametrize("pixels", [PIXELS, PIXELS[..., 0], np.concatenate([PIXELS, PIXELS[..., :1]], axis=-1)])
def test_pixels_lose_nothing(pixels):
    np.testing.assert_array_equal(pixels_of(content_of(pixels)), pixels)
    np.testing.assert_array_equal(pixels_of(content_of(pixels / 255)), pixels)  # floats from 0 to 1
    np.testing.assert_array_equal(pixels_of(content_of(Image.fromarray(pixels))), pixels)
    assert kind_of(pixels, HERE) == kind_of(pixels / 255, HERE) == kind_of(Image.fromarray(pixels), HERE) == "image"


def test_one_channel_and_sixteen_bits():
    np.testing.assert_array_equal(pixels_of(content_of(PIXELS[..., :1])), PIXELS[..., 0])
    deep = PIXELS[..., 0].astype(np.uint16) << 8
    np.testing.assert_array_equal(pixels_of(content_of(deep)), deep)


def test_a_picture_that_was_changed_is_what_it_became():
    picture = opened(PHOTO)
    picture.thumbnail((4, 4))
    assert pixels_of(content_of(picture)).shape[:2] == picture.size[::-1]


def test_a_picture_with_an_orientation_is_turned_upright():
    photo = Image.fromarray(PIXELS)
    photo.getexif()[0x0112] = 6
    np.testing.assert_array_equal(pixels_of(content_of(photo)), np.rot90(PIXELS, -1))


def test_every_mode_of_pillow_can_be_converted():
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16"):
        assert ToJpeg().convert(content_of(Image.new(mode, (4, 4)))), mode


def test_several_pictures_are_a_list():
    assert content_of([PHOTO, "b.jpg"]) == [PHOTO, "b.jpg"]
    assert kind_of([PHOTO, "b.jpg"], HERE) == kind_of(np.stack([PIXELS] * 3), HERE) == "video"
    np.testing.assert_array_equal(content_of(np.stack([PIXELS] * 3)), [PIXELS] * 3)


SAMPLES = np.arange(-400, 400, dtype=np.int16)


@pytest.mark.parametrize(
    "sound",
    [
        {"array": SAMPLES, "sampling_rate": 8000},
        {"array": SAMPLES / 32768, "sampling_rate": 8000, "path": None},
        {"array": (SAMPLES / 32768).tolist(), "sampling_rate": 8000},
        (SAMPLES, 8000),
        (SAMPLES.astype(np.int32) << 16, 8000),
        (np.stack([SAMPLES, SAMPLES]), 8000),
        (np.stack([SAMPLES, SAMPLES], axis=1), np.int64(8000)),
    ],
)
def test_sound_is_what_a_file_of_it_would_be(sound):
    assert kind_of(sound, HERE) == "audio"
    to_sound = ToSound(0, 10, sample_rate=8000)
    samples = to_sound.value(to_sound.convert(content_of(sound)))
    np.testing.assert_allclose(samples, SAMPLES, atol=1)  # to the nearest, of floats and of the mean of channels


def test_int16_is_stored_as_a_plain_file():
    assert content_of((SAMPLES, 8000)) == wav_bytes(SAMPLES.tobytes())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5, "is int, neither the path nor the content of a file"),
        ({"a": 1}, "is dict, neither"),
        ([], "is list, neither"),
        (np.full((4, 4), 37.5), "is an array from 37.5 to 37.5, and a picture has uint8, or 0 to 1"),
        (np.full((4, 4), np.nan), "is an array from nan to nan"),
        (np.zeros((3, 8, 9)), "is an array of 3x8x9, and a picture has"),
        (np.zeros((4, 4), np.int64), "is an array of int64"),
        (np.zeros((0, 4), np.uint8), "is an array of 0x4"),
        ((np.zeros(3), 0.5e12), "is sound of 500000000000.0 samples in a second"),
        ((np.array([0.0, np.nan]), 8000), "is sound that is not finite everywhere"),
        ((np.zeros(3, np.uint8), 8000), "is sound of uint8, 3, instead of int16 or float"),
        ((np.zeros(0), 8000), "is sound of float64, 0"),
        ({"array": np.zeros(3), "sampling_rate": None}, "is sound of None samples in a second"),
    ],
)
def test_what_is_no_file_says_why(value, message):
    with pytest.raises(ValueError, match=message) as error:
        content_of(value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"\xff\xd8\xff\xe0", "image"),
        (b"GIF89a", "image"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image"),
        (b"\0\0\0\x18ftypheic", "image"),
        (b"RIFF\0\0\0\0WAVEfmt ", "audio"),
        (b"OggS\0", "audio"),
        (b"\0\0\0\x18ftypM4A ", "audio"),
        (b"\0\0\0\x18ftypisom", "video"),
        (b"\x1aE\xdf\xa3", "video"),
        (b"RIFF\0\0\0\0AVI LIST", "video"),
        (b"\0\1\2\3", None),
    ],
)
def test_files_without_an_ending_are_known_by_how_they_begin(tmp_path, start, kind):
    (tmp_path / "blob").write_bytes(start)
    assert kind_of("blob", tmp_path) == kind_of(start, HERE) == kind


@pytest.mark.parametrize("text", ["A quiet film.", "x" * 2000, "AAAA" * 30, "", ".", "https://example.org/a.jpg"])
def test_texts_are_no_files(text):
    assert kind_of(text, HERE) is None


def test_urls():
    assert media.is_url("https://example.org/a.jpg")
    assert media.is_url("s3://bucket/a.jpg")
    assert not media.is_url("file:///a.jpg")
    assert not media.is_url("C:/a.jpg")
